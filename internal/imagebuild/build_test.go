package imagebuild

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageanalysis"
	"github.com/layerbuild/layerbuild/internal/job"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/parser"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var errNoSpace error = syscall.ENOSPC

func linux(arch string) ocispec.Platform {
	return ocispec.Platform{OS: "linux", Architecture: arch}
}

// TestErrors checks the errors of builds that fail: the position, the text, the work that is shown
// as failed, and what the result has for printing the lines of the Dockerfile.
func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name, text string
		o          Options
		change     func(*Parts)
		line       int // of the Dockerfile; 0: none
		step       string
		err        string // text in the error
		ran        []string
		failed     []string // work that is shown as failed
		noText     bool     // the Dockerfile was not read
	}{
		{
			name: "a command", text: "FROM scratch\nRUN write a 1\nRUN fail\nRUN write b 2\n",
			line: 3, step: "[3/3] RUN fail", err: `Dockerfile:3: process "/bin/sh -c fail" did not complete successfully: exit code: 3`,
			ran: []string{"write a 1", "fail"}, failed: []string{"[2/3] RUN fail"},
		},
		{
			name: "a full disk in a command", text: "FROM scratch\nRUN full\n", line: 2,
			err: "Dockerfile:2: write the file: no space left on device", ran: []string{"full"},
			failed: []string{"[1/1] RUN full"},
		},
		{
			name: "a mistake in the syntax", text: "FROM scratch\nRUM write a 1\n", line: 2,
			err:    "Dockerfile:2: unknown instruction: RUM",
			failed: []string{"load build context and Dockerfile"},
		},
		{
			name: "a mistake in a later instruction",
			text: "FROM scratch\nRUN write a 1\nEXPOSE x\n", line: 3, err: "Dockerfile:3: ",
		},
		{
			name: "a base image", text: "FROM scratch\nRUN write a 1\nFROM gone\n", line: 3,
			err: "Dockerfile:3: image gone: not found",
		},
		{
			name: "an image of a copy", text: "FROM scratch\nRUN write a 1\nCOPY --from=gone / /\n",
			line: 3, err: "Dockerfile:3: image gone: not found",
		},
		{
			name: "a layer", text: "FROM scratch\nRUN write a 1\nRUN write b 2\n", line: 2,
			err: "Dockerfile:2: broken", ran: []string{"write a 1", "write b 2"},
			failed: []string{"exporting to image"},
			change: func(p *Parts) {
				s := &sealers{fail: func(l *layers.Layer) error {
					if strings.Contains(l.Text, "write a") {
						return broken
					}
					return nil
				}}
				s.replace(p)
			},
		},
		{
			name: "a context", text: "FROM scratch\n", err: "no such directory",
			o:      Options{Source: SourceOptions{Context: "/no/such/context"}},
			failed: []string{"load build context and Dockerfile"}, noText: true,
		},
		{
			name: "a Dockerfile", text: "FROM scratch\n", err: "other.Dockerfile",
			o:      Options{Source: SourceOptions{Dockerfile: "other.Dockerfile"}},
			failed: []string{"load build context and Dockerfile"}, noText: true,
		},
		{
			name: "a finding that is an error", text: "FROM scratch as x\nRUN write a 1\n",
			o: Options{Lint: parser.LintOptions{Error: true}}, err: "FromAsCasing",
		},
		{
			name: "a target", text: "FROM scratch\n", o: Options{Target: "gone"},
			err: `target stage "gone" could not be found`,
		},
		{
			name: "an output", text: "FROM scratch\nRUN write a 1\n",
			o:   Options{Outputs: []export.Spec{{Type: export.TypeImage, Push: true}}},
			err: "pushing to a registry is not available",
		},
		{
			name: "an exported cache", text: "FROM scratch\nRUN write a 1\n",
			o: Options{Cache: CacheOptions{
				To: []remotecache.Place{{Type: "registry", Ref: "r"}}}},
			err: "export the cache to ", ran: []string{"write a 1"},
			failed: []string{"exporting cache to r"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.change = tt.change
			res, err := f.build(t.Context(), tt.text, tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("error %v, want one with %q", err, tt.err)
			}
			if got := lineOf(err); got != tt.line {
				t.Errorf("the error %q has line %d, want %d", err, got, tt.line)
			}
			f.want("failing build", tt.ran...)
			if got := f.failed(); !slices.Equal(got, tt.failed) {
				t.Errorf("shown as failed: %q, want %q", got, tt.failed)
			}
			if read := string(res.Text) == tt.text; read == tt.noText {
				t.Errorf("the result has the text %q", res.Text)
			}
			if tt.line > 0 && res.Dockerfile != "Dockerfile" {
				t.Errorf("the result has the Dockerfile %q", res.Dockerfile)
			}
			if res.Root.Digest != "" && tt.failed[0] == "exporting to image" {
				t.Errorf("the result has the image %s", res.Root.Digest)
			}
		})
	}
}

// lineOf returns the line of the Dockerfile that an error names; 0 for none.
func lineOf(err error) int {
	if step, ok := errors.AsType[*build.StepError](err); ok {
		return step.Range.Start
	}
	if parse, ok := errors.AsType[*parser.Error](err); ok {
		return parse.Range.Start
	}
	return 0
}

// TestFullDisk checks that the remedy is in the error that is printed below the lines of the
// Dockerfile, that the error keeps its position, and that an error without a position has the
// remedy, too.
func TestFullDisk(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		change     func(*Parts)
		line       int
		bare       bool // the error of the step is reported without the remedy
	}{
		{"a command", "FROM scratch\nRUN full\n", nil, 2, false},
		{"a layer", "FROM scratch\nRUN write a 1\n",
			(&sealers{fail: func(*layers.Layer) error { return errNoSpace }}).replace, 2, true},
		{"the record of a step", "FROM scratch\nRUN write a 1\n",
			func(p *Parts) { p.Engine.Records = fullRecords{p.Engine.Records} }, 2, true},
		{"a record of an instruction without a step", "FROM scratch\nENV A=1\n",
			func(p *Parts) { p.Engine.Records = fullRecords{p.Engine.Records} }, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.change = tt.change
			_, err := f.build(t.Context(), tt.text, Options{})
			printed := err
			if step, ok := errors.AsType[*build.StepError](err); ok {
				printed = step.Err
			}
			if !errors.Is(printed, errNoSpace) || lineOf(err) != tt.line ||
				!strings.Contains(printed.Error(), f.state.Root) {
				t.Errorf("line %d: %v, want line %d, the state directory and what to do",
					lineOf(err), printed, tt.line)
			}
			for _, e := range f.events {
				if done, ok := e.(event.Done); ok && done.Err != nil && tt.bare &&
					strings.Contains(done.Err.Error(), f.state.Root) {
					t.Errorf("the error of an event was changed later: %v", done.Err)
				}
			}
		})
	}
}

// fullRecords is a cache on a full disk.
type fullRecords struct{ build.Records }

func (fullRecords) Put(context.Context, cache.Key, cache.Record) error { return errNoSpace }

// TestOutputOfAFailedStep checks that a step's output is an event of the step that is shown as
// failed, so that it can be printed with the error.
func TestOutputOfAFailedStep(t *testing.T) {
	f := newFixture(t)
	f.must("FROM scratch\nRUN say hello\nRUN say world\n", Options{})
	names, said := map[event.ID]string{}, map[string]string{}
	for _, e := range f.events {
		switch e := e.(type) {
		case event.Start:
			names[e.ID] = e.Name
		case event.Log:
			said[names[e.ID]] += string(e.Data)
		}
	}
	if said["[1/2] RUN say hello"] != "hello\n" || said["[2/2] RUN say world"] != "world\n" {
		t.Errorf("the output of the steps is %q", said)
	}
}

// damagedOnce returns a function for sealers.fail that reports a damaged blob for the first layer
// of an instruction with a text.
func damagedOnce(text string) func(*layers.Layer) error {
	damaged := false
	return func(l *layers.Layer) error {
		if damaged || !strings.Contains(l.Text, text) {
			return nil
		}
		damaged = true
		return &store.BlobError{Digest: digest.FromString(text), Err: errors.New("damaged")}
	}
}

// TestRestart damages a layer, and checks that the build starts again: with a new sealer, after the
// first one has ended, and without running steps again, even with --no-cache.
func TestRestart(t *testing.T) {
	const text = "FROM scratch\nRUN write a 1\nRUN write b 2\n"
	at := int64(1_000_000_000)
	names := []string{"docker.io/library/app:latest"}
	undamaged := newFixture(t).must(text, Options{Image: ImageOptions{Epoch: &at}})
	for _, no := range []bool{false, true} {
		f := newFixture(t)
		s := &sealers{fail: damagedOnce("write a")}
		f.change = s.replace
		res := f.must(text, Options{Cache: CacheOptions{No: no},
			Image: ImageOptions{Names: []string{"app"}, Epoch: &at}})
		f.want(fmt.Sprintf("--no-cache=%v", no), "write a 1", "write b 2")
		if want := []string{"sealer 1", "waited for 1", "sealer 2",
			"waited for 2"}; !slices.Equal(s.log, want) {
			t.Errorf("sealers: %q, want %q", s.log, want)
		}
		if s.lazy[0] == s.lazy[1] {
			t.Error("the second attempt has the lazy snapshots of the first")
		}
		if want := []string{"blob " + digest.FromString("write a").String() + " damaged; the build makes the blob, and results that depend on it, again"}; !slices.Equal(f.warnings(), want) {
			t.Errorf("warnings %q, want %q", f.warnings(), want)
		}
		if failed := f.failed(); len(failed) > 0 {
			t.Errorf("%q are shown as failed", failed)
		}
		if res.Root.Digest != undamaged.Root.Digest || !slices.Equal(res.Names, names) {
			t.Errorf("the image is %s with the names %q, want %s with %q", res.Root.Digest,
				res.Names, undamaged.Root.Digest, names)
		}
	}
}

// TestRestartEnds checks the errors after which a build does not start again: a blob that stays
// damaged, another error, and the end of the context.
func TestRestartEnds(t *testing.T) {
	bad := func(text string) error {
		return &store.BlobError{Digest: digest.FromString(text), Err: errors.New("damaged")}
	}
	for _, tt := range []struct {
		name     string
		fail     func(attempt int) error
		cancel   bool // when the damage is shown
		attempts int
	}{
		{"the same blob again", func(int) error { return bad("x") }, false, 2},
		{"another error", func(int) error { return errors.New("broken") }, false, 1},
		{"the end of the context", func(int) error { return bad("x") }, true, 1},
		{"too many blobs", func(n int) error { return bad(fmt.Sprint(n)) }, false,
			maxRepairs + 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			n := 0
			s := &sealers{fail: func(*layers.Layer) error {
				if n++; n > tt.attempts {
					return errors.New("one attempt too many")
				}
				return tt.fail(n)
			}}
			f.change = s.replace
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.cancel {
				f.repairs = cancel
			}
			if res, err := f.build(ctx, "FROM scratch\nRUN write a 1\n",
				Options{}); err == nil || res.Root.Digest != "" {
				t.Errorf("error %v, image %q: want an error and no image", err, res.Root.Digest)
			}
			if s.made != tt.attempts {
				t.Errorf("%d attempts, want %d", s.made, tt.attempts)
			}
			if n := len(s.log); n != 2*tt.attempts ||
				s.log[n-1] != fmt.Sprint("waited for ", s.made) {
				t.Errorf("sealers: %q, want that each is waited for", s.log)
			}
			f.want("steps", "write a 1")
		})
	}
}

// TestCancel cancels a build while a step of one platform waits, a layer is sent and another layer
// is sealed, and checks that Build ends all of them; the fixture checks that nothing is left open.
// The next build runs only what was not done.
func TestCancel(t *testing.T) {
	f := newFixture(t)
	sealed := make(chan struct{})
	s := &sealers{fail: func(*layers.Layer) error { return nil }, waited: func() { close(sealed) }}
	f.change = s.replace
	ctx, cancel := context.WithCancel(t.Context())
	sending, ended := make(chan struct{}), atomic.Bool{}
	f.steps.waiting = func() { <-sending; cancel() }
	res, err := f.build(ctx, "FROM scratch\nRUN write a 1\nRUN wait\n", Options{
		Outputs: []export.Spec{{Type: export.TypeImage, Push: true, Names: []string{"h/app"}}},
		Export:  export.Env{Pusher: noPusher{}},
		Upload: uploader(func(ctx context.Context, name string) error {
			if name != "h/app" {
				t.Errorf("a layer is sent to %q", name)
			}
			close(sending)
			<-ctx.Done()
			<-sealed
			for range 100_000 { // a build that does not wait closes the state's files meanwhile
				runtime.Gosched()
			}
			if left := f.left(); len(left) != 1 {
				t.Errorf("%q are left while a layer is sent, want the temporary directory", left)
			}
			ended.Store(true)
			return context.Cause(ctx)
		}),
	})
	if !errors.Is(err, context.Canceled) || res.Root.Digest != "" {
		t.Errorf("error %v, image %q: want context.Canceled and no image", err, res.Root.Digest)
	}
	if !ended.Load() {
		t.Error("the layer is still being sent")
	}
	if want := []string{"sealer 1", "waited for 1"}; !slices.Equal(s.log, want) {
		t.Errorf("sealers: %q, want %q", s.log, want)
	}
	if failed := f.failed(); len(failed) > 0 {
		t.Errorf("%q are shown as failed", failed)
	}
	s.waited = nil
	f.must("FROM scratch\nRUN write a 1\nRUN say hello\n", Options{})
	f.want("the next build", "say hello")
}

// TestNoteUnsynced checks that a build that has run a step notes that there is work to sync, that a
// build without work does not, and that a build with CacheOptions.Sync syncs.
func TestNoteUnsynced(t *testing.T) {
	const text = "FROM scratch\nRUN write a 1\n"
	f := newFixture(t)
	ledger := func() []string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(f.state.Root, "cache", "syncs"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(data)) // the last two of five are the note
	}
	f.must(text, Options{})
	if got := ledger(); len(got) != 5 || got[2] != "0" {
		t.Errorf("after a step the ledger has %q, want no syncs and a note", got)
	}
	if err := f.state.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.must(text, Options{})
	if got := ledger(); len(got) != 3 || got[2] != "1" {
		t.Errorf("after a build without work the ledger has %q, want one sync and no note", got)
	}
	f.must(text, Options{Cache: CacheOptions{Sync: true}})
	if got := ledger(); got[2] != "2" {
		t.Errorf("after a build that syncs the ledger has %q, want two syncs", got)
	}
}

// TestErrorEndsTheSealer checks that the context of the sealer ends when the build has failed, so
// that it does not wait for layers that no image needs.
func TestErrorEndsTheSealer(t *testing.T) {
	f := newFixture(t)
	s := &sealers{fail: func(*layers.Layer) error { return nil }}
	s.waited = func() {
		if s.ctx.Err() == nil {
			t.Error("the build waits for a sealer whose context has not ended")
		}
	}
	f.change = s.replace
	if _, err := f.build(t.Context(), "FROM scratch\nRUN write a 1\nRUN fail\n",
		Options{}); err == nil {
		t.Error("the build has no error")
	}
	if s.ctx.Err() == nil {
		t.Error("the context of the sealer has not ended")
	}
}

// uploader is a function that sends a layer to the repository of a name.
type uploader func(ctx context.Context, name string) error

func (u uploader) Send(ctx context.Context, name string, _ export.Spec,
	_ ocispec.Descriptor) error {
	return u(ctx, name)
}

func (u uploader) Stream(context.Context, string, export.Spec, *store.Growing) error {
	return errors.New("the layer is too small to be sent while it is written")
}

func (u uploader) Locate(context.Context, string, export.Spec, ocispec.Descriptor) (bool, error) {
	return false, nil
}

// noPusher fails to push.
type noPusher struct{}

func (noPusher) Push(context.Context, string, ocispec.Descriptor, export.Fetcher,
	export.PushOptions) error {
	return errors.New("no registry")
}

// TestPlatforms builds for two platforms, and checks the index, the configurations, the names of
// the steps, and that findings are reported once.
func TestPlatforms(t *testing.T) {
	f := newFixture(t)
	f.images = fakeImages{"base": func(img *image.Image) error {
		img.Config.Config.Env = []string{"ARCH=" + img.Platform.Architecture}
		return nil
	}}
	at := int64(1_000_000_000)
	res := f.must("FROM base as x\nARG TARGETARCH\nRUN write arch $TARGETARCH\nENV A=1\n", Options{
		Platforms: []ocispec.Platform{linux("arm64"), linux("amd64")},
		Image:     ImageOptions{Names: []string{"app"}, Epoch: &at},
	})
	f.want("build", "write arch $TARGETARCH", "write arch $TARGETARCH")
	if res.Root.MediaType != ocispec.MediaTypeImageIndex {
		t.Fatalf("the root is a %s", res.Root.MediaType)
	}
	var index ocispec.Index
	f.read(res.Root, &index)
	for i, arch := range []string{"arm64", "amd64"} {
		if got := index.Manifests[i].Platform.Architecture; got != arch {
			t.Errorf("image %d is for %s, want %s", i, got, arch)
		}
		var m ocispec.Manifest
		f.read(index.Manifests[i], &m)
		var c ocispec.Image
		f.read(m.Config, &c)
		if c.Architecture != arch || !slices.Contains(c.Config.Env, "ARCH="+arch) ||
			!slices.Contains(c.Config.Env, "A=1") || c.Created.Unix() != at {
			t.Errorf("%s: configuration %+v", arch, c)
		}
		if i == 0 && res.Config.Digest != m.Config.Digest {
			t.Errorf("Config is %s, want %s, of the first platform", res.Config.Digest,
				m.Config.Digest)
		}
	}
	var names []string
	for _, e := range f.events {
		if start, ok := e.(event.Start); ok && strings.Contains(start.Name, "RUN") {
			names = append(names, start.Name)
		}
	}
	slices.Sort(names)
	if want := []string{"[linux/amd64 x 2/2] RUN write arch amd64",
		"[linux/arm64 x 2/2] RUN write arch arm64"}; !slices.Equal(names, want) {
		t.Errorf("steps %q, want %q", names, want)
	}
	if got := f.warnings(); len(got) != 1 ||
		!strings.HasPrefix(got[0], "Dockerfile:1: 'as' and 'FROM'") {
		t.Errorf("warnings %q, want one, of line 1", got)
	}
	if len(res.Warnings) != 1 {
		t.Errorf("the result has the findings %v, want one", res.Warnings)
	}
	last, _ := f.events[len(f.events)-1].(event.Result)
	if want := []string{"docker.io/library/app:latest"}; !slices.Equal(last.Names, want) ||
		last.Digest != res.Root.Digest.String() || !slices.Equal(res.Names, want) {
		t.Errorf("the last event is %+v, want the names %q and %s", last, want, res.Root.Digest)
	}
}

// TestWarnings checks the warnings of builds. Each is sent once.
func TestWarnings(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		o          Options
		do         func(*fixture)
		fails      bool
		want       []string // texts in the warnings, in order
		findings   int      // of the result
	}{
		{name: "none", text: "FROM scratch\nRUN say x\n"},
		{name: "a finding", text: "FROM scratch as x\nRUN say x\n",
			want: []string{"Dockerfile:1: 'as'"}, findings: 1},
		{name: "a finding before a mistake in the syntax", fails: true,
			text: "FROM scratch as x\nRUM say x\n", want: []string{"Dockerfile:1: 'as'"},
			findings: 1},
		{name: "a finding before another mistake", fails: true,
			text: "FROM scratch as x\nEXPOSE x\n", want: []string{"Dockerfile:1: 'as'"},
			findings: 1},
		{name: "stages of --no-cache-filter", text: "FROM scratch AS x\nRUN say x\n",
			o: Options{Cache: CacheOptions{NoStages: []string{"X", "0", "1", "y"}}},
			want: []string{"--no-cache-filter 1 has no effect",
				"--no-cache-filter y has no effect"}},
		{name: "a place of --cache-from", text: "FROM scratch\nRUN say x\n",
			o: Options{Cache: CacheOptions{
				From: []remotecache.Place{{Type: "registry", Ref: "gone"}}}},
			want: []string{"the cache at gone is not used: no such artifact"}},
		{name: "a file that no layer can hold", text: "FROM scratch\nRUN write a 1\n",
			do: func(f *fixture) {
				f.change = func(p *Parts) {
					(&sealers{fail: func(*layers.Layer) error { return nil }}).replace(p)
					made := p.NewSealer
					p.NewSealer = func(ctx context.Context,
						o layers.SealerOptions) (Sealer, build.CopySealer) {
						l := &layers.Layer{Lines: parser.Range{Start: 2, End: 2}}
						o.Warn(l, "sock", "a socket")
						return made(ctx, o)
					}
				}
			},
			want: []string{"Dockerfile:2: sock: a socket"}},
		{name: "the state in two contexts", text: "FROM scratch\nCOPY . /\nCOPY --from=x . /\n",
			do: func(f *fixture) {
				f.context = filepath.Dir(f.state.Root)
				f.contexts = map[string]string{"x": f.context}
			},
			want: []string{"the state directory is in the build context"}},
		{name: "--check", text: "FROM scratch as x\nRUN say x\n", o: Options{Check: true,
			Platforms: []ocispec.Platform{linux("amd64"), linux("arm64")}},
			want: []string{"Dockerfile:1: 'as'"}, findings: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			if tt.do != nil {
				tt.do(f)
			}
			res, err := f.build(t.Context(), tt.text, tt.o)
			if (err != nil) != tt.fails {
				t.Errorf("error %v", err)
			}
			got := f.warnings()
			for i, want := range tt.want {
				if i >= len(got) || !strings.Contains(got[i], want) {
					t.Fatalf("warnings %q, want %q", got, tt.want)
				}
			}
			if len(got) != len(tt.want) {
				t.Errorf("warnings %q, want %q", got, tt.want)
			}
			if len(res.Warnings) != tt.findings {
				t.Errorf("the result has the findings %v, want %d", res.Warnings, tt.findings)
			}
		})
	}
}

// TestNothingRuns checks the builds that end before anything runs. A check is for one platform
// only.
func TestNothingRuns(t *testing.T) {
	const text = "FROM base AS x\nRUN write a 1\nFROM scratch AS y\nCOPY --from=x / /\n"
	for name, o := range map[string]Options{
		"--check": {Check: true}, "a list of targets": {ListTargets: true},
	} {
		f := newFixture(t)
		f.images = fakeImages{"base": func(img *image.Image) error {
			if img.Platform.Architecture == "arm64" {
				return errors.New("no image for arm64")
			}
			return nil
		}}
		o.Platforms = []ocispec.Platform{linux("amd64"), linux("arm64")}
		res := f.must(text, o)
		f.want(name)
		if res.Root.Digest != "" || len(res.Targets) != 2 || res.Targets[1].Name != "y" {
			t.Errorf("%s: result %+v", name, res)
		}
		if _, err := f.build(t.Context(), text, Options{Platforms: o.Platforms}); err == nil {
			t.Error("the image is built for a platform that its base does not have")
		}
		f.want("no base for the second platform")
	}
}

// TestCacheExports checks the records in a directory, which are those of all platforms in the order
// of their keys, and those in an image; and that the work is announced: the context, the steps, the
// image and two exports.
func TestCacheExports(t *testing.T) {
	f := newFixture(t)
	dir := filepath.Join(t.TempDir(), "cache")
	o := Options{
		Args: map[string]string{"BUILDKIT_INLINE_CACHE": "1"},
		Cache: CacheOptions{To: []remotecache.Place{{Type: "local", Dir: dir, Max: true}},
			Sync: true},
		Platforms: []ocispec.Platform{linux("amd64"), linux("arm64")},
	}
	res := f.must("FROM scratch\nRUN write a 1\nRUN write b 1\nRUN write c 1\n", o)
	work, finished := 0, 0
	for _, e := range f.events {
		switch e := e.(type) {
		case event.Expect:
			work = e.Work
		case event.Done:
			finished++
		}
	}
	if work != 10 || finished != 9 { // the inline export has no line
		t.Errorf("%d pieces of work were announced and %d done, want 10 and 9", work, finished)
	}
	var config map[string]json.RawMessage
	f.read(res.Config, &config)
	var inline, all remotecache.Document
	if err := json.Unmarshal(config[remotecache.Field], &inline); err != nil ||
		len(inline.Records) != 3 {
		t.Errorf("the image has the records %s, %v", config[remotecache.Field], err)
	}
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range blobs {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if json.Unmarshal(data, &all) == nil && all.Records != nil {
			break
		}
	}
	if len(all.Records) != 6 || !slices.IsSortedFunc(all.Records,
		func(a, b remotecache.Record) int {
			return strings.Compare(string(a.Key), string(b.Key))
		}) {
		t.Errorf("the directory has the records %v, want 6 in order", all.Records)
	}
}

// TestNoCache checks which steps run again.
func TestNoCache(t *testing.T) {
	const text = "FROM scratch AS x\nRUN write a 1\nFROM x AS y\nRUN write b 2\n"
	f := newFixture(t)
	f.must(text, Options{})
	for _, tt := range []struct {
		cache CacheOptions
		want  []string
	}{
		{CacheOptions{}, nil},
		{CacheOptions{NoStages: []string{"Y"}}, []string{"write b 2"}},
		{CacheOptions{NoStages: []string{"1"}}, []string{"write b 2"}},
		{CacheOptions{No: true}, []string{"write a 1", "write b 2"}},
	} {
		f.must(text, Options{Cache: tt.cache})
		f.want(fmt.Sprintf("%+v", tt.cache), tt.want...)
	}
}

// TestRunOptions checks what a command gets from the options of the build.
func TestRunOptions(t *testing.T) {
	f := newFixture(t)
	t.Setenv("LAYERBUILD_TEST_SECRET", "text")
	f.must("FROM scratch\nRUN --mount=type=secret,id=s,env=S say x\n", Options{
		Args:    map[string]string{"BUILDKIT_SANDBOX_HOSTNAME": "box"},
		Run:     job.RunOptions{ShmSize: 1 << 20},
		Secrets: []secret.Secret{{ID: "s", Env: "LAYERBUILD_TEST_SECRET"}},
	})
	p := f.steps.process
	if p.Hostname != "box" || p.ShmSize != 1<<20 || !slices.Contains(p.Env, "S=text") {
		t.Errorf("the command has the host name %q, %d bytes of /dev/shm and the variables %q",
			p.Hostname, p.ShmSize, p.Env)
	}
}

// TestRecord checks the record of an image, which analyze reads: its base, and the line and the
// stage of each entry of the history.
func TestRecord(t *testing.T) {
	base := imageanalysis.RecordedBase{Name: "base", History: 1,
		Digest: digest.FromString("base").String()}
	for from, want := range map[string]imageanalysis.RecordedBase{
		"scratch": {}, "base": base, "named": base,
	} {
		f := newFixture(t)
		f.contexts = map[string]string{"named": "docker-image://base"}
		f.images = fakeImages{"base": func(img *image.Image) error {
			img.Config.History = []ocispec.History{{CreatedBy: "x"}}
			return nil
		}}
		res := f.must("FROM "+from+" AS x\nRUN write a 1\nFROM x\nENV A=1\n", Options{})
		data, err := f.state.ReadKept("builds", res.Config.Digest)
		if err != nil {
			t.Fatal(err)
		}
		var got imageanalysis.Record
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(imageanalysis.Record{Dockerfile: "Dockerfile", Base: want,
			Steps: []imageanalysis.RecordStep{
				{Text: "RUN write a 1", Stage: "x", Line: 2, End: 2, Earlier: true},
				{Text: "ENV A=1", Line: 4, End: 4},
			}}, got); diff != "" {
			t.Errorf("FROM %s: the record differs (-want +got):\n%s", from, diff)
		}
	}
}

// TestCacheMount checks that a cache mount keeps its files, and that it is empty with --no-cache.
func TestCacheMount(t *testing.T) {
	f := newFixture(t)
	file := func() string {
		t.Helper()
		i := slices.IndexFunc(f.steps.process.Mounts,
			func(m executor.Mount) bool { return m.Target == "/c" })
		if i < 0 {
			t.Fatalf("no mount at /c: %+v", f.steps.process.Mounts)
		}
		return filepath.Join(f.steps.process.Mounts[i].Source.(executor.Bind).Source, "file")
	}
	const text = "FROM scratch\nRUN --mount=type=cache,target=/c say %d\n"
	f.must(fmt.Sprintf(text, 1), Options{})
	if err := os.WriteFile(file(), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	f.must(fmt.Sprintf(text, 2), Options{})
	if _, err := os.Stat(file()); err != nil {
		t.Errorf("the next step has lost the file: %v", err)
	}
	f.must(fmt.Sprintf(text, 2), Options{Cache: CacheOptions{No: true}})
	if _, err := os.Stat(file()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("with --no-cache the cache has the file: %v", err)
	}
}
