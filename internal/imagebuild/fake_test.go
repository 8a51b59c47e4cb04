package imagebuild

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
	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
)

// fixture has a state, a context and fakes, for builds one after another. It mounts nothing: the
// snapshots are directories, to which the fake of the executor writes.
type fixture struct {
	t       *testing.T
	state   *state.State
	context string
	// contexts are the named contexts of the next builds.
	contexts map[string]string
	// change, if it is set, replaces parts of the next builds.
	change func(*Parts)
	images fakeImages
	steps  fakeSteps
	// repairs, if it is set, is called when work is shown that begins again because of a damaged
	// blob.
	repairs func()

	mu     sync.Mutex
	events []event.Event // of the last build
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	st, err := state.Open(t.Context(), state.Options{Root: t.TempDir(), Driver: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return &fixture{t: t, state: st, context: t.TempDir()}
}

// build builds a Dockerfile, and checks that the build has ended and closed everything that it
// began.
func (f *fixture) build(ctx context.Context, text string, o Options) (*Result, error) {
	f.t.Helper()
	if text != "" {
		f.write("Dockerfile", text)
	}
	if o.Source.Context == "" {
		o.Source.Context = f.context
	}
	o.Source.Contexts = f.contexts
	f.steps.ran, f.events = nil, nil
	o.Sink = func(e event.Event) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.events = append(f.events, e)
		if done, ok := e.(event.Done); ok && done.Repair && f.repairs != nil {
			f.repairs()
		}
	}
	parts := DefaultParts(f.state, nil)
	parts.Engine.Run, parts.Engine.Images = f.steps.run, nil
	parts.BaseImages, parts.Artifacts = &f.images, &f.images
	if f.change != nil {
		f.change(&parts)
	}
	open := descriptors(f.t)
	res, err := BuildWith(ctx, f.state, nil, o, parts)
	goleak.VerifyNone(f.t, goleak.IgnoreCurrent())
	if now := descriptors(f.t); now != open {
		f.t.Errorf("%d files are open after the build, and %d were before", now, open)
	}
	if left := f.left(); len(left) > 0 {
		f.t.Errorf("the build has left %q", left)
	}
	return res, err
}

// must is like build, and fails the test if the build fails.
func (f *fixture) must(text string, o Options) *Result {
	f.t.Helper()
	res, err := f.build(f.t.Context(), text, o)
	if err != nil {
		f.t.Fatalf("build: %v\n%s", err, text)
	}
	return res
}

// write writes a file of the context.
func (f *fixture) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.context, name), []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// left returns the temporary files of builds in the state: directories, snapshots that are not
// committed, and blobs that are not complete.
func (f *fixture) left() []string {
	f.t.Helper()
	var list []string
	for _, pattern := range []string{"tmp-*", "snapshots/*/tmp/*", "oci/tmp/*"} {
		found, err := filepath.Glob(filepath.Join(f.state.Root, pattern))
		if err != nil {
			f.t.Fatal(err)
		}
		list = append(list, found...)
	}
	return list
}

// descriptors returns the number of open descriptors of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// warnings returns the warnings of the last build, each with its line of the Dockerfile if it has
// one.
func (f *fixture) warnings() []string {
	var list []string
	for _, e := range f.events {
		w, ok := e.(event.Warning)
		if !ok {
			continue
		}
		if w.Time.IsZero() {
			f.t.Errorf("the warning %q has no time", w.Message)
		}
		text := w.Message
		if w.Line > 0 {
			text = fmt.Sprintf("%s:%d: %s", w.File, w.Line, text)
		}
		list = append(list, text)
	}
	return list
}

// failed returns the names of the work of the last build that is shown as failed.
func (f *fixture) failed() []string {
	names := map[event.ID]string{}
	var list []string
	for _, e := range f.events {
		switch e := e.(type) {
		case event.Start:
			names[e.ID] = e.Name
		case event.Done:
			if e.Err != nil && !e.Repair && !errors.Is(e.Err, context.Canceled) {
				list = append(list, names[e.ID])
			}
		}
	}
	return list
}

// read decodes a document of the store.
func (f *fixture) read(d ocispec.Descriptor, v any) {
	f.t.Helper()
	data, err := f.state.Store.Read(f.t.Context(), d)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// want compares the commands that ran, in any order.
func (f *fixture) want(what string, want ...string) {
	f.t.Helper()
	got := slices.Sorted(slices.Values(f.steps.ran))
	slices.Sort(want)
	if !slices.Equal(got, want) {
		f.t.Errorf("%s: ran %q, want %q", what, got, want)
	}
}

// fakeSteps runs the commands of RUN in this process. A command is one of these:
//
//	write PATH TEXT
//	say TEXT
//	fail, full   end with an exit code, or because of a full disk
//	wait         until the build is cancelled
type fakeSteps struct {
	mu      sync.Mutex
	ran     []string
	process *executor.Process // the last one
	waiting func()            // called when wait begins
}

func (s *fakeSteps) run(ctx context.Context, spec *executor.Spec, stdout,
	_ io.Writer) (executor.Result, error) {
	p, ok := spec.Action.(*executor.Process)
	if !ok {
		return executor.Result{}, nil // a COPY that copies nothing
	}
	command := p.Args[len(p.Args)-1]
	s.mu.Lock()
	s.ran, s.process = append(s.ran, command), p
	s.mu.Unlock()
	verb, rest, _ := strings.Cut(command, " ")
	switch verb {
	case "write":
		path, text, _ := strings.Cut(rest, " ")
		path = filepath.Join(spec.Root[0].Source, path)
		return executor.Result{}, os.WriteFile(path, []byte(text), 0o644)
	case "say":
		_, err := io.WriteString(stdout, rest+"\n")
		return executor.Result{}, err
	case "fail":
		return executor.Result{}, &executor.ExitError{Code: 3}
	case "full":
		return executor.Result{}, fmt.Errorf("write the file: %w", errNoSpace)
	case "wait":
		s.waiting()
		<-ctx.Done()
		return executor.Result{}, context.Cause(ctx)
	}
	return executor.Result{}, fmt.Errorf("unknown command %q", command)
}

// fakeImages has base images without layers, and no artifacts.
type fakeImages map[string]func(*image.Image) error

func (f *fakeImages) Resolve(_ context.Context, ref string,
	o image.ResolveOptions) (*image.Image, error) {
	set, ok := (*f)[ref]
	if !ok {
		return nil, fmt.Errorf("image %s: not found", ref)
	}
	img := &image.Image{Name: ref, Platform: o.Platform,
		Descriptor: ocispec.Descriptor{Digest: digest.FromString(ref)}}
	img.Config.Platform = o.Platform
	return img, set(img)
}

func (*fakeImages) Top(context.Context, *image.Image) (snapshot.ID, bool, error) {
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

func (*fakeImages) UnpackAs(context.Context, *image.Image, snapshot.ID,
	image.UnpackOptions) (bool, error) {
	return true, nil
}

func (*fakeImages) Artifact(context.Context, string,
	image.ResolveOptions) (*image.Artifact, error) {
	return nil, errors.New("no such artifact")
}

// fakeSealer seals the layers for which fail returns nil, and calls waited after Wait.
type fakeSealer struct {
	*layers.Sealer
	fail   func(*layers.Layer) error
	waited func()
}

func (s *fakeSealer) Seal(l *layers.Layer) {
	err := s.fail(l)
	if err == nil {
		s.Sealer.Seal(l)
		return
	}
	if end := l.Begin(); end != nil {
		end(ocispec.Descriptor{}, "", &layers.Error{Lines: l.Lines, Err: err})
	}
}

func (s *fakeSealer) Wait() {
	s.Sealer.Wait()
	s.waited()
}

// sealers makes fakeSealers, and notes in log when each is made and waited for.
type sealers struct {
	fail   func(*layers.Layer) error
	waited func() // called when the build has waited for a sealer; may be nil
	log    []string
	made   int
	lazy   []*layers.Lazy
	ctx    context.Context // of the last sealer
}

func (s *sealers) replace(p *Parts) {
	p.NewSealer = func(ctx context.Context,
		o layers.SealerOptions) (Sealer, build.CopySealer) {
		s.made++
		n := s.made
		s.log = append(s.log, fmt.Sprint("sealer ", n))
		s.lazy, s.ctx = append(s.lazy, o.Lazy), ctx
		if _, err := o.TempDir.Path(); err != nil { // so that there is a directory to remove
			panic(err)
		}
		real := layers.NewSealer(ctx, o)
		return &fakeSealer{real, s.fail, func() {
			if s.log = append(s.log, fmt.Sprint("waited for ", n)); s.waited != nil {
				s.waited()
			}
		}}, real
	}
}
