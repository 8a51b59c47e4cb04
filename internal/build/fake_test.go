package build_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }

// fakeExecutor replaces package executor. It performs steps in this process. The command of a RUN
// is a list of these, separated by "; ":
//
//	write PATH TEXT, remove PATH, nothing
//	fail CODE
//	wait       until the step is cancelled
//	mark NAME  reports that the step has begun; see began
type fakeExecutor struct {
	mu sync.Mutex
	// the commands of RUNs, "copy DEST" and "mkdir PATH", in the order in which they ended
	ran   []string
	begun map[string]chan struct{}
	// fail, if it is set, is called before each action.
	fail func(action string) error
}

// began returns a channel that is closed when a step with that mark has begun.
func (f *fakeExecutor) began(mark string) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.begun == nil {
		f.begun = map[string]chan struct{}{}
	}
	if f.begun[mark] == nil {
		f.begun[mark] = make(chan struct{})
	}
	return f.begun[mark]
}

// take returns the actions that have run since the last call.
func (f *fakeExecutor) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := f.ran
	f.ran = nil
	return list
}

func (f *fakeExecutor) Run(ctx context.Context, spec *executor.Spec, _,
	_ io.Writer) (executor.Result, error) {
	dir, err := mount.Open(spec.Root)
	if err != nil {
		return executor.Result{}, err
	}
	defer dir.Close()
	root := dirfd.FDPath(int(dir.Fd()))
	var name string
	switch a := spec.Action.(type) {
	case *executor.Process:
		name = a.Args[len(a.Args)-1]
	case *copyfs.Copy:
		name = "copy " + a.Dest
	case *executor.Mkdir:
		name = "mkdir " + a.Path
	}
	if f.fail != nil {
		if err := f.fail(name); err != nil {
			return executor.Result{}, err
		}
	}
	switch a := spec.Action.(type) {
	case *executor.Process:
		err = f.command(ctx, root, name)
	case *copyfs.Copy:
		if a.DestOnly {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.ran = append(f.ran, "dest "+a.Dest)
			return dest(root, a)
		}
		err = copyFiles(root, a)
	case *executor.Mkdir:
		err = os.MkdirAll(filepath.Join(root, a.Path), 0o755)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ran = append(f.ran, name)
	return executor.Result{}, err
}

func (f *fakeExecutor) command(ctx context.Context, root, script string) error {
	for line := range strings.SplitSeq(script, "; ") {
		verb, rest, _ := strings.Cut(line, " ")
		path, text, _ := strings.Cut(rest, " ")
		switch verb {
		case "write":
			if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o644); err != nil {
				return err
			}
		case "remove":
			if err := os.RemoveAll(filepath.Join(root, path)); err != nil {
				return err
			}
		case "nothing":
		case "mark":
			close(f.began(path))
		case "fail":
			return &executor.ExitError{Code: 3}
		case "wait":
			<-ctx.Done()
			return context.Cause(ctx)
		default:
			return fmt.Errorf("unknown command %q", line)
		}
	}
	return nil
}

// dest makes the destination of a Copy.
func dest(root string, a *copyfs.Copy) (executor.Result, error) {
	dir := filepath.Join(root, a.Dest)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return executor.Result{}, err
	}
	names, err := os.ReadDir(dir)
	return executor.Result{Files: copyfs.Result{Dest: &copyfs.Dest{
		Path: strings.Trim(a.Dest, "/"), Empty: len(names) == 0, Chown: true}}}, err
}

// copyFiles copies the sources of a Copy without owners and modes.
func copyFiles(root string, a *copyfs.Copy) error {
	dest := filepath.Join(root, a.Dest)
	for _, src := range a.Sources {
		from := dirfd.FDPath(int(src.Dir.Fd()))
		for _, it := range src.Items {
			path := filepath.Join(from, it.Path)
			if it.Contents {
				if err := os.MkdirAll(dest, 0o755); err != nil {
					return err
				}
				if err := os.CopyFS(dest, os.DirFS(path)); err != nil {
					return err
				}
				continue
			}
			to := dest
			if strings.HasSuffix(a.Dest, "/") {
				to = filepath.Join(dest, filepath.Base(it.Path))
			}
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if err := os.WriteFile(to, data, 0o644); err != nil {
				return err
			}
		}
	}
	for _, in := range a.Inline {
		to := dest
		if strings.HasSuffix(a.Dest, "/") {
			to = filepath.Join(dest, in.Name)
		}
		if err := os.WriteFile(to, in.Data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// fakeImages has images without layers, by their names, and artifacts.
type fakeImages struct {
	configs   map[string]func(*image.Image)
	artifacts map[string]*image.Artifact
}

func (f *fakeImages) Resolve(_ context.Context, ref string,
	o image.ResolveOptions) (*image.Image, error) {
	set, ok := f.configs[ref]
	if !ok {
		return nil, fmt.Errorf("image %s: not found", ref)
	}
	img := &image.Image{Name: ref, Platform: o.Platform,
		Descriptor: ocispec.Descriptor{Digest: digest.FromString(ref)}}
	img.Config.Platform = o.Platform
	set(img)
	return img, nil
}

func (f *fakeImages) Top(context.Context, *image.Image) (snapshot.ID, bool, error) {
	return "", true, nil
}

func (*fakeImages) Unpack(context.Context, *image.Image,
	image.UnpackOptions) (snapshot.ID, bool, error) {
	return "", true, nil
}

func (*fakeImages) Outline(context.Context, *image.Image,
	image.UnpackOptions) (snapshot.ID, error) {
	return "", nil
}

func (*fakeImages) SharedOutline(context.Context, *image.Image,
	image.OutlineOptions) (snapshot.ID, error) {
	return "", nil
}

func (*fakeImages) Pack(context.Context, string, func(io.Writer) error) (ocispec.Descriptor,
	error) {
	return ocispec.Descriptor{}, errors.New("no store")
}

func (f *fakeImages) UnpackAs(context.Context, *image.Image, snapshot.ID,
	image.UnpackOptions) (bool, error) {
	return true, nil
}

func (f *fakeImages) Artifact(_ context.Context, ref string,
	_ image.ResolveOptions) (*image.Artifact, error) {
	if a := f.artifacts[ref]; a != nil {
		return a, nil
	}
	return nil, errors.New("not found")
}

func (f *fakeImages) EnsureLayer(context.Context, *image.Image, image.UnpackOptions) error {
	return nil
}

func (f *fakeImages) UnpackOn(context.Context, *image.Image, snapshot.ID, snapshot.ID,
	image.UnpackOptions) error {
	return errors.New("the layer cannot be unpacked")
}

// bench is a state and a context with fakes, for builds one after another.
type bench struct {
	t      *testing.T
	dir    string // the context
	driver string // of the state
	state  *state.State
	exec   *fakeExecutor
	images *fakeImages
	// change, if it is set, replaces parts of the next builds.
	change func(*imagebuild.Parts)
	// resolver, if it is set, replaces the fake images.
	resolver *image.Resolver
	mu       sync.Mutex
	events   []event.Event // of the last build
}

// newBench returns a bench whose snapshots are made by a driver.
func newBench(t *testing.T, driver string) *bench {
	t.Helper()
	mounttest.Need(t)
	st, err := state.Open(t.Context(), state.Options{Root: t.TempDir(), Driver: driver})
	if err != nil {
		t.Skipf("no driver %s: %v", driver, err)
	}
	b := &bench{t: t, dir: t.TempDir(), driver: driver, state: st, exec: &fakeExecutor{},
		images: &fakeImages{configs: map[string]func(*image.Image){}}}
	t.Cleanup(func() {
		if err := b.state.Close(); err != nil {
			t.Error(err)
		}
	})
	b.file("a", "a\n")
	return b
}

// reopen closes the state and opens it again, as another process does.
func (b *bench) reopen() {
	b.t.Helper()
	root := b.state.Root
	if err := b.state.Close(); err != nil {
		b.t.Fatal(err)
	}
	st, err := state.Open(b.t.Context(), state.Options{Root: root, Driver: b.driver})
	if err != nil {
		b.t.Fatal(err)
	}
	b.state = st
}

// file writes a file of the context.
func (b *bench) file(name, text string) {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// build builds a Dockerfile with options, and returns the actions that ran.
func (b *bench) build(ctx context.Context, dockerfile string,
	o imagebuild.Options) (*imagebuild.Result, []string, error) {
	b.t.Helper()
	file := filepath.Join(b.t.TempDir(), "Dockerfile")
	if err := os.WriteFile(file, []byte(dockerfile), 0o644); err != nil {
		b.t.Fatal(err)
	}
	o.Source.Context, o.Source.Dockerfile = b.dir, file
	b.events = nil
	o.Sink = func(e event.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.events = append(b.events, e)
	}
	parts := imagebuild.DefaultParts(b.state, nil)
	parts.Engine.Run, parts.Engine.Images = b.exec.Run, b.images
	parts.BaseImages, parts.Artifacts = b.images, b.images
	if b.resolver != nil {
		parts.Engine.Images, parts.BaseImages, parts.Artifacts = b.resolver, b.resolver, b.resolver
	}
	if b.change != nil {
		b.change(&parts)
	}
	res, err := imagebuild.BuildWith(ctx, b.state, b.resolver, o, parts)
	return res, b.exec.take(), err
}

// must is like build, and fails the test if the build fails.
func (b *bench) must(dockerfile string, o imagebuild.Options) (*imagebuild.Result, []string) {
	b.t.Helper()
	res, ran, err := b.build(b.t.Context(), dockerfile, o)
	if err != nil {
		b.t.Fatalf("build: %v\n%s", err, dockerfile)
	}
	return res, ran
}

// warnings returns the messages of the last build's warnings.
func (b *bench) warnings() []string {
	var list []string
	for _, e := range b.events {
		if w, ok := e.(event.Warning); ok {
			list = append(list, w.Message)
		}
	}
	return list
}

// want compares the actions that ran.
func (b *bench) want(what string, got []string, want ...string) {
	b.t.Helper()
	if !slices.Equal(got, want) {
		b.t.Errorf("%s: ran %q, want %q", what, got, want)
	}
}

// manifest returns the manifest of an image.
func (b *bench) manifest(res *imagebuild.Result) ocispec.Manifest {
	b.t.Helper()
	data, err := b.state.Store.Read(b.t.Context(), res.Root)
	if err != nil {
		b.t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		b.t.Fatal(err)
	}
	return m
}

// fakeSealer returns the errors of fail, and seals layers for which fail returns nil.
type fakeSealer struct {
	*layers.Sealer
	fail func(*layers.Layer) error
}

func (s fakeSealer) Seal(l *layers.Layer) {
	err := s.fail(l)
	if err == nil {
		s.Sealer.Seal(l)
		return
	}
	if end := l.Begin(); end != nil {
		end(ocispec.Descriptor{}, "", &layers.Error{Lines: l.Lines,
			Err: fmt.Errorf("seal the layer of %q: %w", l.Text, err)})
	}
}

// sealerThat returns a function that makes a fakeSealer.
func sealerThat(fail func(*layers.Layer) error) func(context.Context,
	layers.SealerOptions) (imagebuild.Sealer, build.CopySealer) {
	return func(ctx context.Context,
		o layers.SealerOptions) (imagebuild.Sealer, build.CopySealer) {
		s := layers.NewSealer(ctx, o)
		return fakeSealer{s, fail}, s
	}
}

// fails returns err if the layer's instruction contains a text.
func fails(l *layers.Layer, text string, err error) error {
	if strings.Contains(l.Text, text) {
		return err
	}
	return nil
}

// places parses values of --cache-to.
func places(list ...string) []remotecache.Place {
	var out []remotecache.Place
	for _, s := range list {
		p, err := remotecache.ParseTo(s)
		if err != nil {
			panic(err)
		}
		out = append(out, p)
	}
	return out
}

// parsedLine returns the line of an error of package parser; 0 for another error.
func parsedLine(err error) int {
	if e, ok := errors.AsType[*parser.Error](err); ok {
		return e.Range.Start
	}
	return 0
}
