package main

import (
	"bytes"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// source is a commit of layerbuild that is checked out.
type source struct {
	root      string
	goCommand string
	flags     []string // of go build
	toolchain string   // go1.2.3
	tag       string   // that the program must have as its version; "": any
}

// program is layerbuild for an architecture.
type program struct {
	arch    string
	path    string
	version string    // v1.2.3
	time    time.Time // of the commit
}

// goLine matches the version of Go in go.mod.
var goLine = regexp.MustCompile(`(?m)^go (\d+\.\d+\.\d+)$`)

// clone replaces the source by a clone in a directory, so that only what is committed gets into the
// program, and because the go command does not read the version in a linked worktree.
func (s *source) clone(dir string) error {
	head, err := s.output("git", "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	changes, err := s.output("git", "status", "--porcelain")
	if err != nil {
		return err
	}
	if changes != "" {
		fmt.Fprintln(os.Stderr, "dist: changes that are not committed are not in the files")
	}
	clone := s.command("", "git", "clone", "-q", "--no-checkout", s.root, dir)
	if err := quietly(clone); err != nil {
		return err
	}
	s.root = dir
	return quietly(s.command("", "git", "checkout", "-q", "--detach", head))
}

// open reads which toolchain builds the source.
func (s *source) open() error {
	data, err := os.ReadFile(filepath.Join(s.root, "go.mod"))
	if err != nil {
		return err
	}
	m := goLine.FindSubmatch(data)
	if m == nil {
		return errors.New("go.mod: a line 'go X.Y.Z' is expected")
	}
	s.toolchain = "go" + string(m[1])
	return nil
}

// command returns a command that runs in the source with settings that do not depend on the user.
func (s *source) command(arch, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.root
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN="+s.toolchain, "GOFLAGS=", "GOWORK=off",
		"GOEXPERIMENT=", "GOFIPS140=off", "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch,
		"GOAMD64=v1", "GOARM64=v8.0", "LC_ALL=C", "TZ=UTC",
		// root may build in the directory of a user, and a user in that of root.
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0="+s.root)
	return cmd
}

// output runs a command of the source and returns its standard output.
func (s *source) output(name string, args ...string) (string, error) {
	out, err := s.command("", name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// requireTag returns an error if the tree is not exactly that of a tag of a release. The program
// must have the tag as its version.
func (s *source) requireTag() error {
	changes, err := s.output("git", "status", "--porcelain")
	if err != nil {
		return err
	}
	if changes != "" {
		return fmt.Errorf("the tree has changes that are not committed:\n%s", changes)
	}
	tags, err := s.output("git", "tag", "--points-at", "HEAD")
	if err != nil {
		return err
	}
	for tag := range strings.FieldsSeq(tags) {
		if releaseTag.MatchString(tag) {
			s.tag = tag
			return nil
		}
	}
	return errors.New("the commit has no tag vX.Y.Z: make one with git tag")
}

// build compiles the program for an architecture.
func (s *source) build(arch, dir string) (program, error) {
	p := program{arch: arch, path: filepath.Join(dir, "layerbuild")}
	args := append([]string{"build", "-buildvcs=true"}, s.flags...)
	if err := s.command(arch, s.goCommand,
		append(args, "-o", p.path, "./cmd/layerbuild")...).Run(); err != nil {
		return p, fmt.Errorf("build the program for %s: %w", arch, err)
	}
	info, err := buildinfo.ReadFile(p.path)
	if err != nil {
		return p, err
	}
	p.version = info.Main.Version
	for _, setting := range info.Settings {
		if setting.Key == "vcs.time" {
			p.time, err = time.Parse(time.RFC3339, setting.Value)
		}
	}
	if err != nil || p.time.IsZero() || !strings.HasPrefix(p.version, "v") {
		return p, errors.New("the go command did not write a version into the program")
	}
	if s.tag != "" && p.version != s.tag {
		return p, fmt.Errorf("the go command gives the program the version %s, "+
			"not that of the tag %s", p.version, s.tag)
	}
	return p, nil
}

// packageVersion returns a version as packages have it: '~' sorts before everything, so that
// 1.2.3~rc.1 is before 1.2.3.
func packageVersion(v string) string {
	return strings.ReplaceAll(strings.TrimPrefix(v, "v"), "-", "~")
}

// quietly runs a command and adds its output to its error.
func quietly(cmd *exec.Cmd) error {
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, b.String())
	}
	return nil
}

// copyFile copies a file that is not executable.
func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
