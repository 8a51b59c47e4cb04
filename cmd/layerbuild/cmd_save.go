package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/hostfile"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// saveFlags are the flags of the save verb.
type saveFlags struct {
	state            stateFlags
	access           registryFlags
	output, platform string
	format           saveFormat
	progress         progressFlags
	spec             export.Spec
}

func saveVerb() verb {
	return verb{
		name: "save", args: "IMAGE…", takesPaths: true,
		summary: "write images to an archive, for docker load or podman load",
		notes: `The archive is an OCI image layout that also has Docker's manifest.json: docker, podman, skopeo and umoci read it.
An image for several platforms is written with all of them. Engines that read only manifest.json get the one of this machine.`,
		examples: []example{
			{"layerbuild save app", "write an image to standard output, for docker load"},
			{"layerbuild save -o app.tar app:v1 app:v2", "write two images to a file"},
			{"layerbuild save --format layout -o dir app", "write an OCI image layout"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f saveFlags
			f.define(fs)
			return f.prepare
		},
	}
}

// saveFormat is the value of --format of save.
type saveFormat string

func (f *saveFormat) Set(s string) error {
	var word string
	// podman calls them docker-archive, oci-archive and oci-dir.
	s = strings.TrimSuffix(s, "-archive")
	if s == "oci-dir" {
		s = "layout"
	}
	err := newChoice(&word, "", f.values()...).Set(s)
	if err == nil {
		*f = saveFormat(word)
	}
	return err
}

func (f *saveFormat) Type() string     { return "string" }
func (f *saveFormat) String() string   { return string(*f) }
func (f *saveFormat) values() []string { return []string{"docker", "oci", "layout"} }

func (f *saveFlags) define(fs *pflag.FlagSet) {
	f.state.define(fs)
	group(fs, "Archive", func(fs *pflag.FlagSet) {
		fs.VarP((*given)(&f.output), "output", "o",
			"`FILE` file to write (default: standard output)")
		f.format = "docker"
		fs.Var(&f.format, "format", "format of the archive")
		fs.Var((*given)(&f.platform), "platform", "`OS/ARCH` write one platform of the images")
		fs.BoolP("multi-image-archive", "m", false,
			"no effect: an archive may have several images")
		f.progress.define(fs)
	})
	group(fs, "Registries", f.access.define)
}

func (f *saveFlags) prepare(e *env, args []string) (runFunc, error) {
	if len(args) == 0 {
		return nil, errors.New("at least one image is expected")
	}
	var want wanted
	err := checkImages(args)
	if f.platform != "" && err == nil {
		want, err = platform(e, f.platform)
	}
	err = errors.Join(err, f.state.resolve(e), f.progress.resolve(e),
		f.state.access(&f.access))
	if err != nil {
		return nil, err
	}
	f.spec = export.Spec{Type: export.TypeDocker, Dest: f.output}
	if f.format != "docker" {
		f.spec.Type = export.TypeOCI
	}
	switch f.spec.Dir = f.format == "layout"; {
	case f.output == "" && f.spec.Dir:
		return nil, errors.New("--format layout: give the directory with --output")
	case f.output == "":
		f.spec.Dest = "-"
		if term.IsTerminal(int(e.stdout.Fd())) {
			return nil, errors.New("refusing to write an archive to a terminal; redirect " +
				"standard output, or give --output FILE")
		}
	default:
		if err := export.Check(e.stdout, f.spec); err != nil {
			return nil, badValue("output", f.output, errors.Unwrap(err))
		}
		if err := checkDest(f.spec); err != nil {
			return nil, badValue("output", f.output, err)
		}
	}
	return func(ctx context.Context) error { return f.run(ctx, e, args, want) }, nil
}

func (f *saveFlags) run(ctx context.Context, e *env, args []string, want wanted) error {
	return f.state.withProgress(ctx, e, f.progress.mode,
		func(state *state.State, im *images, sink event.Sink) error {
			members, err := im.members(ctx, args, want)
			if err != nil {
				return err
			}
			return export.Save(ctx, f.state.exportEnv(e, state, im), f.spec, members, sink)
		})
}

// members finds images for an archive. An image that is given under several names is there once.
func (im *images) members(ctx context.Context, args []string, want wanted) ([]export.Member,
	error) {
	var list []export.Member
	for _, name := range args {
		found, err := im.found(ctx, name)
		if err != nil {
			return nil, err
		}
		if want.explicit {
			if found, err = im.forPlatform(ctx, found, name, want); err != nil {
				return nil, err
			}
		}
		names := namesOf(found)
		i := slices.IndexFunc(list, func(m export.Member) bool {
			return m.Root.Digest == found.Root.Digest
		})
		if i < 0 {
			list = append(list, export.Member{Root: found.Root, Content: found, AnyPlatform: true,
				Names: names})
			continue
		}
		for _, n := range names {
			if !slices.Contains(list[i].Names, n) {
				list[i].Names = append(list[i].Names, n)
			}
		}
	}
	return list, nil
}

// loadFlags are the flags of the load verb.
type loadFlags struct {
	state           stateFlags
	input, platform string
	progress        progressFlags
}

func loadVerb() verb {
	return verb{
		name: "load", summary: "read images from an archive into the store",
		notes: `The archive is one of docker save or podman save, or an OCI image layout. It may have several images, and may be
compressed with gzip, zstd, bzip2 or xz. The images keep their digests and their names. An archive without an index.json names no
digest: the image gets a manifest whose layers are stored as they are in the archive.`,
		examples: []example{
			{"layerbuild load", "read standard input, such as the output of docker save"},
			{"layerbuild load -i app.tar", "read a file"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f loadFlags
			f.state.define(fs)
			fs.VarP((*given)(&f.input), "input", "i",
				"`FILE` file or layout to read (default: standard input)")
			fs.Var((*given)(&f.platform), "platform", "`OS/ARCH` read one platform of the images")
			f.progress.define(fs)
			return f.prepare
		},
	}
}

func (f *loadFlags) prepare(e *env, args []string) (runFunc, error) {
	if err := noArgs(args); err != nil {
		return nil, fmt.Errorf("%w; give the file with --input", err)
	}
	var want wanted
	var err error
	if f.platform != "" {
		want, err = platform(e, f.platform)
	}
	if err := errors.Join(err, f.state.resolve(e), f.progress.resolve(e)); err != nil {
		return nil, err
	}
	switch {
	case f.input == "" && term.IsTerminal(int(e.stdin.Fd())):
		return nil, errors.New("standard input is a terminal; redirect an archive to it, or give " +
			"--input FILE")
	case f.input != "" && f.input != "-":
		if fi, err := os.Stat(f.input); err == nil && fi.IsDir() {
			if !isImageFile(f.input) {
				return nil, badValue("input", f.input,
					errors.New("it is not an OCI image layout: there is no index.json"))
			}
		} else if err := readableFile(f.input); err != nil {
			return nil, badValue("input", f.input, err)
		}
	}
	return func(ctx context.Context) error { return f.run(ctx, e, want) }, nil
}

func (f *loadFlags) run(ctx context.Context, e *env, want wanted) error {
	return f.state.withProgress(ctx, e, f.progress.mode,
		func(state *state.State, im *images, sink event.Sink) error {
			list, err := f.images(ctx, e, im)
			if err != nil {
				return fmt.Errorf("load: %w", err)
			}
			if len(list) == 0 {
				return errors.New("load: the archive holds no image")
			}
			for _, found := range list {
				if err := im.load(ctx, e, state, found, want, sink); err != nil {
					return fmt.Errorf("load: %w", err)
				}
			}
			return nil
		})
}

// images returns the images of the input.
func (f *loadFlags) images(ctx context.Context, e *env, im *images) ([]*image.Found, error) {
	if f.input == "" || f.input == "-" {
		return im.resolver.Stream(ctx, e.stdin)
	}
	if fi, err := os.Stat(f.input); err == nil && fi.IsDir() {
		return im.resolver.All(ctx, imageref.Ref{Scheme: imageref.OCI, Path: f.input})
	}
	file, err := hostfile.Open(f.input, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return im.resolver.Stream(ctx, file)
}

// load stores one image, and prints its names as docker does.
func (im *images) load(ctx context.Context, e *env, state *state.State, f *image.Found, want wanted,
	sink event.Sink) (err error) {
	name := f.Root.Digest.String()
	if len(f.Names) > 0 {
		name = f.Names[0]
	}
	if want.explicit {
		if f, err = im.forPlatform(ctx, f, name, want); err != nil {
			return err
		}
	}
	id := event.ID("load " + f.Root.Digest.String())
	sink(event.Start{ID: id, Name: "load " + name, Time: time.Now()})
	err = im.storeImage(ctx, state.Store, f, f.Names, id, sink)
	sink(event.Done{ID: id, Err: err, Time: time.Now()})
	if err != nil {
		return fmt.Errorf("image %s: %w", name, err)
	}
	for _, name := range f.Names {
		if _, err := fmt.Fprintf(e.text(e.stdout), "Loaded image: %s\n",
			familiar(name)); err != nil {
			return err
		}
	}
	if len(f.Names) > 0 {
		return nil
	}
	image, err := imageID(ctx, f)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "Loaded image ID: %s\n", image)
	return err
}
