package inputs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var linux = ocispec.Platform{OS: "linux", Architecture: "amd64"}

// fakeImages has images by name. It counts the requests.
type fakeImages struct {
	images map[string]func(*image.Image)
	// before, if it is set, is called first. Its error is returned.
	before func(ctx context.Context, what string) error
	// top is the snapshot of each image. It does not exist if absent is set.
	top    snapshot.ID
	absent bool

	// outline is the outline of each image.
	outline snapshot.ID

	made []snapshot.ID // the snapshots that UnpackAs made sure of

	mu    sync.Mutex
	asked []string // "resolve NAME ARCHITECTURE" or "unpack …"
}

var errNoImage = errors.New("no such image")

func (f *fakeImages) ask(ctx context.Context, what string) error {
	f.mu.Lock()
	f.asked = append(f.asked, what)
	f.mu.Unlock()
	if f.before == nil {
		return nil
	}
	return f.before(ctx, what)
}

func (f *fakeImages) Resolve(ctx context.Context, ref string,
	o image.ResolveOptions) (*image.Image, error) {
	if err := f.ask(ctx, "resolve "+ref+" "+o.Platform.Architecture); err != nil {
		return nil, err
	}
	set, ok := f.images[ref]
	if !ok {
		return nil, fmt.Errorf("image %s: %w", ref, errNoImage)
	}
	img := &image.Image{Name: ref, Platform: o.Platform}
	img.Config.Platform = o.Platform
	if set != nil {
		set(img)
	}
	return img, nil
}

func (f *fakeImages) Top(context.Context, *image.Image) (snapshot.ID, bool, error) {
	return f.top, !f.absent, nil
}

func (f *fakeImages) Unpack(ctx context.Context, img *image.Image,
	o image.UnpackOptions) (snapshot.ID, bool, error) {
	top := f.top
	cached, err := f.UnpackAs(ctx, img, top, o)
	return top, cached, err
}

func (f *fakeImages) UnpackAs(ctx context.Context, img *image.Image, id snapshot.ID,
	_ image.UnpackOptions) (bool, error) {
	err := f.ask(ctx, "unpack "+img.Name+" "+img.Platform.Architecture)
	f.made = append(f.made, id)
	return err == nil, err
}

func (f *fakeImages) Outline(ctx context.Context, img *image.Image,
	_ image.UnpackOptions) (snapshot.ID, error) {
	return f.outline, f.ask(ctx, "outline "+img.Name+" "+img.Platform.Architecture)
}

// planOf returns the plan of a Dockerfile and the number of its stages.
func planOf(t *testing.T, text string, contexts ...string) (*parser.Plan, int) {
	t.Helper()
	file, err := parser.Parse("Dockerfile", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := file.Plan(parser.PlanOptions{Platform: linux, BuildPlatform: linux,
		Contexts: contexts})
	if err != nil {
		t.Fatal(err)
	}
	return plan, len(file.Targets())
}

// TestCheckPlan checks which images of a Dockerfile are resolved and returned, and the first error.
// The images a and b exist.
func TestCheckPlan(t *testing.T) {
	contexts := map[string]string{"dir": "/nowhere", "img": "docker-image://b",
		"lost": "docker-image://alpin", "layout": "oci-layout://d"}
	for _, tt := range []struct {
		name, file string
		asked      []string // names of images
		uses       []string // "IMAGE LINE"
		err        string
		line       int  // of the error
		step       bool // the error is that of an image that a step takes files from
	}{
		{name: "nothing", file: "FROM scratch\nCOPY a /\n"},
		{name: "bases", file: "FROM a AS x\nFROM b\nCOPY --from=x a /\n", asked: []string{"a", "b"}},
		{name: "a stage that is not needed", file: "FROM a\nFROM b\n", asked: []string{"b"}},
		{name: "images of steps", file: "FROM scratch\nCOPY --from=a x /\nADD x /\n" +
			"RUN --mount=from=b,target=/b --mount=from=a,target=/a --mount=type=tmpfs,target=/t true\n",
			asked: []string{"a", "b"}, uses: []string{"a 2", "a 4", "b 4"}},
		{name: "a cache that begins with an image",
			file:  "FROM scratch\nRUN --mount=type=cache,from=a,target=/a true\n",
			asked: []string{"a"}, uses: []string{"a 2"}},
		{name: "contexts that are images", file: "FROM img\nCOPY --from=layout x /\n" +
			"RUN --mount=from=img,target=/i true\n", asked: []string{"b", "oci-layout://d"},
			uses: []string{"oci-layout://d 2", "b 3"}},
		{name: "contexts that are directories",
			file: "FROM dir\nCOPY --from=dir x /\nRUN --mount=from=dir,target=/d true\n"},
		{name: "a missing base", file: "FROM scratch AS first\nFROM none\nCOPY --from=first a /\n",
			asked: []string{"none"}, err: "image none: no such image", line: 2},
		{name: "a base with a name like that of a stage",
			file: "FROM scratch AS tools\nFROM tool\nCOPY --from=tools a /\n", asked: []string{"tool"},
			err: "image tool: no such image (did you mean tools?)", line: 2},
		{name: "a base with the number of a stage",
			file: "FROM scratch\nFROM 0\n", asked: []string{"0"},
			err: "image 0: no such image (FROM takes the name of a stage, not its number)", line: 2},
		{name: "a base with another number", file: "FROM scratch\nFROM 2\n", asked: []string{"2"},
			err: "image 2: no such image", line: 2},
		{name: "a missing image of a COPY",
			file: "FROM scratch\nCOPY --from=alpin x /\nCOPY --from=none x /\n", asked: []string{"alpin", "none"},
			uses: []string{"alpin 2", "none 3"},
			err:  "image alpin: no such image (did you mean alpine?)", line: 2, step: true},
		{name: "a missing image of a mount", file: "FROM a\nRUN --mount=from=b,target=/b true\n" +
			"RUN --mount=from=none,target=/c true\n", asked: []string{"a", "b", "none"},
			uses: []string{"b 2", "none 3"}, err: "image none: no such image", line: 3, step: true},
		{name: "a missing image of a context", file: "FROM scratch\nCOPY --from=lost x /\n",
			asked: []string{"alpin"}, uses: []string{"alpin 2"},
			err: "image alpin: no such image", line: 2, step: true},
		{name: "a mistake in a later step", file: "FROM scratch\nCOPY --from=a x /\nUSER $X\nEXPOSE x\n",
			uses: []string{"a 2"}, asked: []string{"a"}, err: "invalid", line: 4},
		{name: "a missing image before a mistake",
			file:  "FROM scratch\nCOPY --from=none x /\nEXPOSE x\nCOPY --from=a x /\n",
			asked: []string{"none"}, uses: []string{"none 2"},
			err: "image none: no such image", line: 2, step: true},
		{name: "a missing image before a missing base",
			file: "FROM scratch AS first\nCOPY --from=none x /\n" +
				"FROM zero\nCOPY --from=first x /\nCOPY --from=other x /\n", asked: []string{"none", "zero"},
			uses: []string{"none 2"}, err: "image none: no such image", line: 2, step: true},
		{name: "a finding that is an error", file: "# check=error=true\nFROM a\nMAINTAINER me\n",
			asked: []string{"a"}, err: "MaintainerDeprecated"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeImages{images: map[string]func(*image.Image){"a": nil, "b": nil,
				"oci-layout://d": nil}}
			in := New(Options{Images: f, Contexts: contexts})
			var names []string
			for name := range contexts {
				names = append(names, name)
			}
			plan, stages := planOf(t, tt.file, names...)
			uses, err := in.CheckPlan(t.Context(), plan, stages)
			var got []string
			for _, u := range uses {
				got = append(got, fmt.Sprint(u.Image.Ref, " ", u.Lines.Start))
			}
			if diff := cmp.Diff(tt.uses, got); diff != "" {
				t.Errorf("images of steps: %s", diff)
			}
			slices.Sort(f.asked)
			for i, a := range f.asked {
				f.asked[i] = strings.TrimSuffix(strings.TrimPrefix(a, "resolve "), " amd64")
			}
			if diff := cmp.Diff(tt.asked, f.asked); diff != "" {
				t.Errorf("images that were resolved: %s", diff)
			}
			if tt.err == "" {
				if err != nil {
					t.Errorf("error %v", err)
				}
				return
			}
			line, text := 0, fmt.Sprint(err)
			step, ofStep := errors.AsType[*Error](err)
			if e, ok := errors.AsType[*parser.Error](err); ok {
				line, text = e.Range.Start, e.Err.Error()
			} else if ofStep {
				line = step.Lines.Start
			}
			missing := strings.Contains(tt.err, errNoImage.Error())
			if line != tt.line || ofStep != tt.step || errors.Is(err, errNoImage) != missing ||
				missing && text != tt.err || !strings.Contains(text, tt.err) {
				t.Errorf("error %T %q in line %d, want %q in line %d", err, text, line, tt.err,
					tt.line)
			}
		})
	}
}

// TestCheckPlanParallel has each image answer when all of its kind have been requested: first the
// bases, then the images of steps.
func TestCheckPlanParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := &fakeImages{
			images: map[string]func(*image.Image){"a": nil, "b": nil, "c": nil, "d": nil},
			before: func(context.Context, string) error { <-release; return nil }}
		plan, stages := planOf(t, "FROM a AS x\nFROM b\nCOPY --from=x a /\nCOPY --from=c x /\n"+
			"COPY --from=d x /\n")
		done := make(chan error)
		go func() {
			_, err := New(Options{Images: f}).CheckPlan(t.Context(), plan, stages)
			done <- err
		}()
		for i, want := range [][]string{{"resolve a amd64", "resolve b amd64"},
			{"resolve c amd64", "resolve d amd64"}} {
			synctest.Wait()
			f.mu.Lock()
			slices.Sort(f.asked)
			if !slices.Equal(f.asked, want) {
				t.Errorf("requests of phase %d: %q, want %q", i, f.asked, want)
			}
			f.asked = nil
			f.mu.Unlock()
			release <- struct{}{}
			release <- struct{}{}
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestCheckPlanCanceled ends the context while the images are resolved.
func TestCheckPlanCanceled(t *testing.T) {
	for _, file := range []string{"FROM a\n", "FROM scratch\nCOPY --from=a x /\n"} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeImages{before: func(ctx context.Context, _ string) error {
				<-ctx.Done()
				return context.Cause(ctx)
			}}
			ctx, cancel := context.WithCancel(t.Context())
			plan, stages := planOf(t, file)
			done := make(chan error)
			go func() {
				_, err := New(Options{Images: f}).CheckPlan(ctx, plan, stages)
				done <- err
			}()
			synctest.Wait()
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("%q: error %v, want context.Canceled", file, err)
			}
		})
	}
}

// TestCheckPlanPlatform checks that the rules get the platforms of the images that steps take files
// from, as for bases: not those of named contexts.
func TestCheckPlanPlatform(t *testing.T) {
	other := func(img *image.Image) { img.Platform.Architecture = "s390x" }
	f := &fakeImages{images: map[string]func(*image.Image){"a": other}}
	plan, stages := planOf(t, "FROM scratch\nCOPY --from=a x /\nCOPY --from=c x /\n", "c")
	in := New(Options{Images: f, Contexts: map[string]string{"c": "docker-image://a"}})
	if _, err := in.CheckPlan(t.Context(), plan, stages); err != nil {
		t.Fatal(err)
	}
	if w := plan.Warnings(); len(w) != 1 || w[0].Rule != "InvalidBaseImagePlatform" ||
		w[0].Range.Start != 2 {
		t.Errorf("findings %+v", w)
	}
}

// TestFrom checks the inputs of each kind of action.
func TestFrom(t *testing.T) {
	a, b := parser.ImageInput{Ref: "a"}, parser.ContextInput{Name: "b"}
	for _, tt := range []struct {
		action parser.Action
		want   []parser.Input
	}{
		{&parser.Copy{From: a}, []parser.Input{a}},
		{&parser.Run{Mounts: []parser.RunMount{{From: a}, {Type: parser.MountTmpfs}, {From: b}}},
			[]parser.Input{a, nil, b}},
		{&parser.Run{}, nil},
	} {
		if got := From(tt.action); !cmp.Equal(got, tt.want) {
			t.Errorf("From(%+v) = %v, want %v", tt.action, got, tt.want)
		}
	}
}
