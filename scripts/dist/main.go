package main

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

func main() {
	syscall.Umask(0o022) // the modes of all files that are made
	var o options
	var arch, images, helpers string
	flag.StringVar(&o.root, "root", "../..", "the `directory` of layerbuild's source")
	flag.StringVar(&o.out, "out", "../../dist", "the `directory` that gets the files")
	flag.StringVar(&o.goCommand, "go", "go", "the go `command`")
	flag.StringVar(&o.buildFlags, "build-flags", "", "`flags` for go build, separated by spaces")
	flag.StringVar(&arch, "arch", "amd64,arm64", "the `architectures`")
	flag.StringVar(&images, "images", "", "the container images: a `list` of image and inplace")
	flag.StringVar(&helpers, "helpers", "ecr,gcr,acr",
		"the credential helpers in the ordinary image: a `list` of ecr, gcr and acr")
	flag.BoolVar(&o.release, "release", false, "require that the tree is that of a tag vX.Y.Z")
	flag.Parse()
	o.archs = strings.Split(arch, ",")
	comma := func(r rune) bool { return r == ',' }
	o.images = strings.FieldsFunc(images, comma)
	o.helpers = strings.FieldsFunc(helpers, comma)
	if err := run(o, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

// options holds the flags.
type options struct {
	root, out, goCommand, buildFlags string
	archs, images, helpers           []string
	release                          bool
}

// check returns an error for options that dist does not know.
func (o options) check(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("no arguments are expected: %s", args[0])
	}
	for _, a := range o.archs {
		if _, ok := rpmArch[a]; !ok {
			return fmt.Errorf("-arch: unknown architecture %q; amd64 and arm64 are known", a)
		}
	}
	for _, i := range o.images {
		if dockerfiles[i] == "" {
			return fmt.Errorf("-images: unknown image %q; image and inplace are known", i)
		}
	}
	for _, h := range o.helpers {
		if !slices.ContainsFunc(credentialHelpers[:], func(c helper) bool { return c.name == h }) {
			return fmt.Errorf("-helpers: unknown helper %q; ecr, gcr and acr are known", h)
		}
	}
	return nil
}

// releaseTag matches the tags that are releases.
var releaseTag = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

// run makes the files. The directory for them is replaced only when all have been made.
func run(o options, args []string) (err error) {
	if err := o.check(args); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "layerbuild-dist-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if o.root, err = filepath.Abs(o.root); err != nil {
		return err
	}
	if o.out, err = filepath.Abs(o.out); err != nil {
		return err
	}
	s := &source{root: o.root, goCommand: o.goCommand, flags: strings.Fields(o.buildFlags)}
	if o.release {
		if err := s.requireTag(); err != nil {
			return err
		}
	}
	if err := s.clone(filepath.Join(work, "source")); err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	d := &distribution{source: s, work: work, made: filepath.Join(work, "made")}
	if err := os.Mkdir(d.made, 0o755); err != nil {
		return err
	}
	if err := d.files(o.archs); err != nil {
		return err
	}
	if len(o.images) > 0 {
		if err := d.makeImages(o); err != nil {
			return err
		}
	}
	if err := writeSums(d.made); err != nil {
		return err
	}
	return d.deliver(o.out)
}

// distribution makes the files of a release from a source.
type distribution struct {
	*source
	work string // a temporary directory
	made string // the directory of the files that are finished
	host string // the program for this machine
}

// files makes all files but the images.
func (d *distribution) files(archs []string) error {
	programs := map[string]program{}
	for _, arch := range slices.Compact(append(slices.Clone(archs), runtime.GOARCH)) {
		if _, ok := programs[arch]; ok {
			continue
		}
		p, err := d.build(arch, filepath.Join(d.work, "program", arch))
		if err != nil {
			return err
		}
		programs[arch] = p
	}
	host := programs[runtime.GOARCH]
	d.host = host.path
	docs, err := d.documents(host)
	if err != nil {
		return err
	}
	for _, arch := range archs {
		p := programs[arch]
		if docs.licenses, err = d.licenses(arch); err != nil {
			return err
		}
		if err := d.packages(p, docs); err != nil {
			return err
		}
		if err := d.describe(p); err != nil {
			return fmt.Errorf("list the software for %s: %w", arch, err)
		}
	}
	return nil
}

// packages makes the archive and the packages of a program.
func (d *distribution) packages(p program, docs documents) error {
	for _, f := range []struct {
		name string
		make func(program, documents) ([]byte, error)
	}{
		{archiveName(p) + ".tar.gz", archiveOf},
		{"layerbuild_" + packageVersion(p.version) + "_" + p.arch + ".deb", debOf},
		{"layerbuild-" + packageVersion(p.version) + "-1." + rpmArch[p.arch] + ".rpm", rpmOf},
	} {
		data, err := f.make(p, docs)
		if err != nil {
			return fmt.Errorf("make %s: %w", f.name, err)
		}
		if err := os.WriteFile(filepath.Join(d.made, f.name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// archiveName returns the name of the archive of a program, without its suffix.
func archiveName(p program) string {
	return "layerbuild-" + strings.TrimPrefix(p.version, "v") + "-linux-" + p.arch
}

// writeSums writes the checksums of the files in a directory, as sha256sum -c reads them.
func writeSums(dir string) error {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(data), e.Name())
	}
	return os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(b.String()), 0o644)
}

// deliver moves the finished files to a directory, in place of the files of an earlier run.
func (d *distribution) deliver(out string) error {
	old, err := filepath.Glob(filepath.Join(out, "layerbuild[_\\-]*"))
	if err != nil {
		return err
	}
	for _, f := range append(old, filepath.Join(out, "SHA256SUMS")) {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(d.made)
	if err != nil {
		return err
	}
	for _, e := range entries {
		to := filepath.Join(out, e.Name())
		if err := copyFile(to, filepath.Join(d.made, e.Name())); err != nil {
			return err
		}
		fmt.Println(to)
	}
	return nil
}
