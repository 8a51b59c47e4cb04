package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/engine"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/ui"
	digest "github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"
)

// copyFlags are the flags of the copy verb.
type copyFlags struct {
	state    stateFlags
	access   registryFlags
	platform string
	progress progressFlags
	all      bool
	src, dst copySide
}

// copySide has the flags for the registry of one side of a copy, which are those of skopeo.
type copySide struct {
	name      string // of the flags: src or dest
	creds     given
	tlsVerify bool
}

func (s *copySide) define(fs *pflag.FlagSet, name, what string) {
	s.name = name
	fs.Var(&s.creds, name+"-creds", "`USER:PASSWORD` as --creds, for "+what)
	fs.BoolVar(&s.tlsVerify, name+"-tls-verify", true, "as --tls-verify, for "+what)
}

// apply adds what the flags say about the registry of an image.
func (s *copySide) apply(o *registry.Options, ref imageref.Ref) error {
	if s.creds == "" && s.tlsVerify {
		return nil
	}
	var login registry.Login
	if s.creds != "" {
		var err error
		if login, err = parseCreds(s.name+"-creds", string(s.creds)); err != nil {
			return err
		}
	}
	name, err := reference.Full(ref.Name)
	if err != nil || ref.Scheme != imageref.Docker {
		return fmt.Errorf("--%[1]s-creds and --%[1]s-tls-verify are for an image of a registry, "+
			"which is docker://NAME", s.name)
	}
	if !s.tlsVerify {
		o.InsecureHosts = append(o.InsecureHosts, name.Domain)
	}
	if s.creds == "" {
		return nil
	}
	if other, ok := o.Logins[name.Domain]; ok && other != login {
		return fmt.Errorf("--src-creds and --dest-creds differ for one registry, %s", name.Domain)
	}
	if o.Logins == nil {
		o.Logins = map[string]registry.Login{}
	}
	o.Logins[name.Domain] = login
	return nil
}

func copyVerb() verb {
	return verb{
		name: "copy", args: "SRC DST", takesPaths: true,
		summary: "copy an image between registries, layouts, archives and engines",
		notes: `SRC and DST are each one of: NAME (an image of the store, also if NAME has the host of a registry), docker://NAME (a registry), oci:DIR[:TAG] (an OCI image
layout), oci-archive:FILE[:TAG], docker-archive:FILE[:NAME] and docker-daemon:NAME (a docker daemon, at $DOCKER_HOST). SRC may also be
an image ID.

Documents and blobs are copied as they are, so that the digests stay the same; images of docker archives have none, and get a manifest.
Of an image for several platforms the one of this machine is copied, unless there is --platform or --all. Between two repositories of a
registry the registry is asked to mount the blobs, and nothing is transferred. The digest is printed.`,
		examples: []example{
			{"layerbuild copy --all docker://alpine docker://registry.example.com/alpine",
				"copy an image with all platforms to another registry"},
			{"layerbuild copy docker://debian:12 oci:debian:12", "write an OCI image layout"},
			{"layerbuild copy app docker-daemon:app:v1", "pass an image of the store to docker"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f copyFlags
			f.define(fs)
			return f.prepare
		},
	}
}

func (f *copyFlags) define(fs *pflag.FlagSet) {
	f.state.define(fs)
	group(fs, "Image", func(fs *pflag.FlagSet) {
		fs.BoolVarP(&f.all, "all", "a", false, "copy the images for all platforms")
		fs.Var((*given)(&f.platform), "platform", platformUsage)
		fs.Bool("preserve-digests", false, "no effect: digests always stay the same")
		f.progress.define(fs)
	})
	group(fs, "Registries", func(fs *pflag.FlagSet) {
		f.access.define(fs)
		f.src.define(fs, "src", "SRC")
		f.dst.define(fs, "dest", "DST")
	})
}

func (f *copyFlags) prepare(e *env, args []string) (runFunc, error) {
	if len(args) != 2 {
		return nil, errors.New("a source and a destination are expected, " +
			"such as docker://debian:12 oci:debian:12")
	}
	if f.all && f.platform != "" {
		return nil, errors.New("--all and --platform: give one of them")
	}
	src, err := imageref.Parse(args[0], imageref.Options{Exists: image.Exists, Explicit: true})
	if err == nil && src.Scheme == imageref.Plain {
		err = checkImage(src.Name)
	}
	if err != nil {
		return nil, err
	}
	dst, err := imageref.Parse(args[1], imageref.Options{Exists: image.Exists, Explicit: true})
	if err == nil {
		err = checkCopyDest(dst)
	}
	if err != nil {
		return nil, fmt.Errorf("destination %q: %w", args[1], err)
	}
	want, err := platform(e, f.platform)
	err = errors.Join(err, f.src.apply(&f.access.base, src), f.dst.apply(&f.access.base, dst),
		f.state.resolve(e), f.progress.resolve(e),
		f.state.access(&f.access))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		if src.Scheme != imageref.Docker || src.Name != dst.Name { // else it is pulled
			noteStoreOnly(e, dst, args[1])
		}
		return f.state.withProgress(ctx, e, f.progress.mode,
			func(state *state.State, im *images, sink event.Sink) error {
				c := &copier{e: e, f: f, state: state, im: im, sink: sink}
				return c.copy(ctx, src, dst, args[0], want)
			})
	}, nil
}

// noteStoreOnly prints a note if a destination in the store has the name of a registry: who means
// the registry would not notice that nothing is sent there.
func noteStoreOnly(e *env, dst imageref.Ref, word string) {
	n, err := reference.Full(dst.Name)
	if err != nil || dst.Scheme != imageref.Plain || !reference.HasRegistry(dst.Name) ||
		n.Domain == "localhost" {
		return
	}
	fmt.Fprintf(e.stderr, "layerbuild: note: %s is written to the store only; docker://%[1]s "+
		"writes to the registry\n", ui.Visible(word))
}

// checkCopyDest returns an error for a destination that cannot be written.
func checkCopyDest(dst imageref.Ref) error {
	if dst.Digest != "" {
		return errors.New("a destination has no digest: the image keeps its own")
	}
	if !dst.Scheme.IsPath() {
		if dst.Scheme == imageref.Daemon && digest.Digest(dst.Name).Validate() == nil {
			return errors.New("a name is expected, not an ID")
		}
		return checkNewName(dst.Name)
	}
	member, spec := copyTarget(dst)
	if dst.Scheme == imageref.DockerArchive && dst.Tag != "" && len(member.Names) == 0 {
		return fmt.Errorf("%q is not a name", dst.Tag)
	}
	if dst.Tag == "" && strings.HasSuffix(dst.Path, "/") && !spec.Dir {
		return errors.New("a file is expected")
	}
	if err := export.Check(os.Stdout, spec); err != nil {
		return errors.Unwrap(err) // without the output in the form of -o
	}
	return checkDest(spec)
}

// copyTarget returns the output for a destination with a path, and the image's names there.
func copyTarget(dst imageref.Ref) (export.Member, export.Spec) {
	spec := export.Spec{Type: export.TypeOCI, Dest: dst.Path}
	switch dst.Scheme {
	case imageref.OCI, imageref.Layout:
		spec.Dir = true
	case imageref.DockerArchive:
		spec.Type = export.TypeDocker
	}
	m := export.Member{AnyPlatform: true, Tag: dst.Tag}
	// A word such as v1 is only a tag in a layout, but a name for docker.
	if dst.Scheme == imageref.DockerArchive || strings.ContainsAny(dst.Tag, ":/") {
		if n, err := reference.Full(dst.Tag); err == nil && n.Digest == "" {
			m.Names = []reference.Name{n}
		}
	}
	return m, spec
}

// copier copies one image.
type copier struct {
	e     *env
	f     *copyFlags
	state *state.State
	im    *images
	sink  event.Sink
	// origin returns the repository of a registry that has a blob, or ""; nil: that of the image.
	origin func(digest.Digest) string
}

func (c *copier) copy(ctx context.Context, src, dst imageref.Ref, word string,
	want wanted) error {
	found, err := c.im.foundAt(ctx, src, word)
	if err != nil {
		return err
	}
	if !c.f.all {
		if found, err = c.im.forPlatform(ctx, found, word, want); err != nil {
			return err
		}
	}
	if err := c.to(ctx, found, dst); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.e.stdout, found.Root.Digest)
	return err
}

// to writes the image to its destination.
func (c *copier) to(ctx context.Context, found *image.Found, dst imageref.Ref) error {
	exports := c.f.state.exportEnv(c.e, c.state, c.im)
	m, spec := copyTarget(dst)
	m.Root, m.Content = found.Root, found
	switch {
	case dst.Scheme.IsPath():
		return export.Save(ctx, exports, spec, []export.Member{m}, c.sink)
	case dst.Scheme == imageref.Daemon:
		daemon, err := newEngine(c.e.getenv)()
		if err != nil {
			return err
		}
		name, err := reference.Full(dst.Name)
		if err != nil {
			return err
		}
		m.Names, exports.Load = []reference.Name{name}, loadInto(daemon)
		return export.Save(ctx, exports, export.Spec{Type: export.TypeDocker}, []export.Member{m},
			c.sink)
	case dst.Scheme == imageref.Docker:
		return c.push(ctx, found, dst.Name)
	}
	id := event.ID("copy " + dst.Name)
	c.sink(event.Start{ID: id, Name: "copy to " + dst.Name, Time: time.Now()})
	err := c.im.storeImage(ctx, c.state.Store, found, []string{dst.Name}, id, c.sink)
	c.sink(event.Done{ID: id, Err: err, Time: time.Now()})
	return err
}

// push copies the image to a registry. If it comes from the same registry, its blobs are mounted.
func (c *copier) push(ctx context.Context, found *image.Found, name string) error {
	origins, err := c.im.resolver.Origins(ctx)
	if err != nil {
		return err
	}
	id := event.ID("push " + name)
	p, err := c.im.client.Pusher(name, registry.PushOptions{
		From: func(d digest.Digest) []string {
			from := found.Repository
			if c.origin != nil {
				from = c.origin(d)
			}
			if from == "" {
				return origins(d)
			}
			return append([]string{from}, origins(d)...)
		},
		Progress: func(at registry.PushProgress) { c.sink(progressOf(id, at)) },
	})
	if err != nil {
		return err
	}
	c.sink(event.Start{ID: id, Name: "push " + p.Name(), Time: time.Now()})
	err = p.Push(ctx, found, found.Root)
	c.sink(event.Done{ID: id, Err: err, Time: time.Now()})
	return err
}

// loadInto returns the function for export.Env that passes an archive to a daemon.
func loadInto(daemon *engine.Engine) func(context.Context, io.Reader) error {
	return func(ctx context.Context, archive io.Reader) error {
		_, err := daemon.Load(ctx, archive)
		return err
	}
}
