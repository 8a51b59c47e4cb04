package inputs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// movingTag is a registry whose tag refers to another index at each request.
type movingTag struct {
	asked  []string
	index  bool
	origin image.Origin
}

func (m *movingTag) Resolve(_ context.Context, ref string,
	o image.ResolveOptions) (*image.Image, error) {
	m.asked = append(m.asked, ref)
	root := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest,
		Digest: digest.FromString(fmt.Sprint(len(m.asked)))}
	if m.index {
		root.MediaType = ocispec.MediaTypeImageIndex
	}
	return &image.Image{Name: "example.com/" + ref, Origin: m.origin, Root: root,
		Platform: o.Platform}, nil
}

func (*movingTag) Top(context.Context, *image.Image) (snapshot.ID, bool, error) {
	return "", true, nil
}

func (*movingTag) Unpack(context.Context, *image.Image,
	image.UnpackOptions) (snapshot.ID, bool, error) {
	return "", true, nil
}

func (*movingTag) UnpackAs(context.Context, *image.Image, snapshot.ID,
	image.UnpackOptions) (bool, error) {
	return true, nil
}

func (*movingTag) Outline(context.Context, *image.Image,
	image.UnpackOptions) (snapshot.ID, error) {
	return "", nil
}

// TestResolveOneIndex checks that the images of all platforms come from the index that a name
// referred to when it was resolved first.
func TestResolveOneIndex(t *testing.T) {
	d := digest.FromString("1").String()
	for _, tt := range []struct {
		name   string
		index  bool
		origin image.Origin
		ref    string
		want   []string
	}{
		{"an index", true, image.FromRegistry, "a:1", []string{"a:1", "example.com/a:1@" + d}},
		{"a manifest", false, image.FromRegistry, "a:1", []string{"a:1", "a:1"}},
		{"a layout", true, image.FromLayout, "a:1", []string{"a:1", "a:1"}},
		{"a name with a digest", true, image.FromRegistry, "a@" + d, []string{"a@" + d, "a@" + d}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &movingTag{index: tt.index, origin: tt.origin}
			in := New(Options{Images: m})
			for range 2 {
				for _, arch := range []string{"amd64", "arm64"} {
					img, err := in.Resolve(t.Context(), parser.ImageInput{Ref: tt.ref,
						Platform: ocispec.Platform{OS: "linux", Architecture: arch}})
					if err != nil || img.Name != "example.com/"+tt.ref ||
						img.Platform.Architecture != arch {
						t.Errorf("%s: %+v, %v", arch, img, err)
					}
				}
			}
			if !slices.Equal(m.asked, tt.want) {
				t.Errorf("asked for %q, want %q", m.asked, tt.want)
			}
		})
	}
}

// TestAgain checks that the inputs of a build that starts again have the same contexts and ask for
// images again, and that those of the first start are as they were.
func TestAgain(t *testing.T) {
	images := &movingTag{}
	first, second := &layers.Lazy{}, &layers.Lazy{}
	in := New(Options{Images: images, Lazy: first, Secrets: &secret.Store{},
		Index: func() (source.IndexPlace, error) {
			return source.IndexPlace{Dir: t.TempDir()}, nil
		},
		Contexts: map[string]string{"named": t.TempDir()}})
	defer in.Close()
	main, err := in.Main(t.Context(), t.TempDir(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	named, err := in.Named(t.Context(), "named")
	if err != nil {
		t.Fatal(err)
	}
	ref := parser.ImageInput{Ref: "a:1"}
	before, err := in.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	again := in.Again(second)
	if again.open.main != main {
		t.Error("the context of the build is another one")
	}
	if got, err := again.Named(t.Context(), "named"); got != named || err != nil {
		t.Errorf("the named context is another one, or the error %v", err)
	}
	if got, err := again.Resolve(t.Context(), ref); err != nil ||
		got.Root.Digest == before.Root.Digest {
		t.Errorf("the image was not resolved again: %+v, %v", got, err)
	}
	if got, err := in.Resolve(t.Context(), ref); got != before || err != nil {
		t.Errorf("the first inputs resolve the image again: %+v, %v", got, err)
	}
	if in.o.Lazy != first || again.o.Lazy != second {
		t.Error("each value has its own lazy snapshots")
	}
}

// TestUnpackLater checks that an image without a snapshot is unpacked when it is needed, once, and
// that each image has one line in the progress.
func TestUnpackLater(t *testing.T) {
	for _, tt := range []struct {
		name         string
		absent, need bool
		asked        []string
		line         string
	}{
		{"it exists", false, false, []string{"unpack a amd64"}, "cached"},
		{"not needed", true, false, nil, "no step needs its files"},
		{"needed", true, true, []string{"unpack a amd64"}, "cached"}, // as the fake reports
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeImages{images: map[string]func(*image.Image){"a": nil}, top: "snapshot",
				absent: tt.absent}
			lazy := &layers.Lazy{}
			var lines []string
			in := New(Options{Images: f, Lazy: lazy, Sink: func(e event.Event) {
				if d, ok := e.(event.Done); ok && d.Cached {
					d.Note = "cached"
					e = d
				}
				if d, ok := e.(event.Done); ok {
					lines = append(lines, d.Note)
				}
			}})
			ref := parser.ImageInput{Ref: "a", Platform: linux}
			got, err := in.UnpackLater(t.Context(), ref, "FROM a")
			if err != nil || got.Top != "snapshot" {
				t.Fatalf("UnpackLater = %+v, %v", got, err)
			}
			for range 2 {
				if !tt.need {
					break
				}
				if err := lazy.Materialize(t.Context(), got.Top); err != nil {
					t.Fatal(err)
				}
			}
			in.Unneeded()
			in.Unneeded()
			asked := slices.DeleteFunc(f.asked, func(s string) bool {
				return strings.HasPrefix(s, "resolve")
			})
			if !slices.Equal(asked, tt.asked) {
				t.Errorf("asked for %q, want %q", asked, tt.asked)
			}
			if !slices.Equal(lines, []string{tt.line}) {
				t.Errorf("lines %q, want %q", lines, tt.line)
			}
		})
	}
	failing := errors.New("no registry")
	f := &fakeImages{images: map[string]func(*image.Image){"a": nil}, top: "snapshot", absent: true}
	lazy := &layers.Lazy{}
	in := New(Options{Images: f, Lazy: lazy, Sink: func(event.Event) {}})
	ref := parser.ImageInput{Ref: "a", Platform: linux}
	if _, err := in.UnpackLater(t.Context(), ref, ""); err != nil {
		t.Fatal(err)
	}
	f.before = func(context.Context, string) error { return failing }
	if err := lazy.Materialize(t.Context(), "snapshot"); !errors.Is(err, failing) {
		t.Errorf("error %v, want %v", err, failing)
	}
}

// TestOutline checks that an image that is unpacked later has an outline, with one line in the
// progress, and that it can be unpacked afterwards.
func TestOutline(t *testing.T) {
	for _, tt := range []struct {
		name    string
		outline snapshot.ID
		note    string
	}{
		{"an outline", "outline", "its directories are unpacked"},
		{"none", "", "its files are needed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeImages{images: map[string]func(*image.Image){"a": nil}, top: "snapshot",
				absent: true, outline: tt.outline}
			lazy := &layers.Lazy{}
			started := 0
			var notes []string
			in := New(Options{Images: f, Lazy: lazy, Sink: func(e event.Event) {
				switch e := e.(type) {
				case event.Start:
					started++
				case event.Done:
					notes = append(notes, e.Note)
				}
			}})
			ref := parser.ImageInput{Ref: "a", Platform: linux}
			got, err := in.UnpackLater(t.Context(), ref, "FROM a")
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if id, err := lazy.Outline(t.Context(), got.Top); id != tt.outline || err != nil {
					t.Errorf("outline %q, %v; want %q", id, err, tt.outline)
				}
			}
			in.Unneeded()
			if want := []string{tt.note}; started != 1 || !slices.Equal(notes, want) {
				t.Errorf("started %d times, notes %q, want %q", started, notes, want)
			}
			if err := lazy.Materialize(t.Context(), got.Top); err != nil {
				t.Fatal(err)
			}
			if started != 2 || len(notes) != 2 {
				t.Errorf("started %d times, notes %q, want two of each", started, notes)
			}
		})
	}
}

// TestUnpackLaterAs checks that a snapshot that was named before it existed is made under this
// name, although another process has recorded another snapshot of the same layers since.
func TestUnpackLaterAs(t *testing.T) {
	f := &fakeImages{images: map[string]func(*image.Image){"a": nil}, top: "named", absent: true}
	lazy := &layers.Lazy{}
	in := New(Options{Images: f, Lazy: lazy, Sink: event.Discard})
	got, err := in.UnpackLater(t.Context(), parser.ImageInput{Ref: "a", Platform: linux}, "")
	if err != nil || got.Top != "named" {
		t.Fatalf("UnpackLater = %+v, %v", got, err)
	}
	f.top, f.absent = "recorded", false
	if err := lazy.Materialize(t.Context(), "named"); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(f.made, "named") {
		t.Errorf("made %q, want also %q", f.made, "named")
	}
}

// TestUnneededOnce checks that an image has one line in the progress if several stages are based on
// it, and none about being unneeded if one of them needed it first.
func TestUnneededOnce(t *testing.T) {
	for _, tt := range []struct {
		name string
		need bool
		want []string
	}{
		{"not needed", false, []string{"a: no step needs its files"}},
		{"needed by another stage", true, []string{"c: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeImages{images: map[string]func(*image.Image){"i": nil}, top: "snapshot",
				absent: true}
			name := ""
			var lines []string
			in := New(Options{Images: f, Lazy: &layers.Lazy{}, Sink: func(e event.Event) {
				switch e := e.(type) {
				case event.Start:
					name = e.Name
				case event.Done:
					lines = append(lines, name+": "+e.Note)
				}
			}})
			ref := parser.ImageInput{Ref: "i", Platform: linux}
			if tt.need {
				if _, err := in.Unpack(t.Context(), ref, "c"); err != nil {
					t.Fatal(err)
				}
			}
			for _, stage := range []string{"a", "b"} {
				if _, err := in.UnpackLater(t.Context(), ref, stage); err != nil {
					t.Fatal(err)
				}
			}
			in.Unneeded()
			if !slices.Equal(lines, tt.want) {
				t.Errorf("lines %q, want %q", lines, tt.want)
			}
		})
	}
}
