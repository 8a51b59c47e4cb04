package remotecache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var platforms = []ocispec.Platform{{OS: "linux", Architecture: "amd64"},
	{OS: "linux", Architecture: "arm64"}}

// fakeArtifacts has artifacts by "LOCATION ARCHITECTURE". For others it returns the error of fail.
type fakeArtifacts struct {
	found map[string]*image.Artifact
	fail  func(ctx context.Context, ref string) error

	mu    sync.Mutex
	asked []string // "LOCATION ARCHITECTURE", with " pull" if the local store is not searched
}

func (f *fakeArtifacts) Artifact(ctx context.Context, ref string,
	o image.ResolveOptions) (*image.Artifact, error) {
	name := ref + " " + o.Platform.Architecture
	f.mu.Lock()
	asked := name
	if o.Pull {
		asked += " pull"
	}
	f.asked = append(f.asked, asked)
	a := f.found[name]
	f.mu.Unlock()
	if a == nil {
		return nil, f.fail(ctx, ref)
	}
	return a, nil
}

// artifact returns an artifact with records, whose digest is that of its name.
func artifact(t *testing.T, name string, records ...Record) *image.Artifact {
	t.Helper()
	data, err := json.Marshal(Document{Records: records})
	if err != nil {
		t.Fatal(err)
	}
	a := &image.Artifact{Name: name, Config: data,
		Descriptor: ocispec.Descriptor{Digest: digest.FromString(name)}}
	a.Manifest.Config.MediaType = MediaType
	return a
}

// inImage returns an image with a configuration.
func inImage(name, config string) *image.Artifact {
	a := &image.Artifact{Name: name, Config: []byte(config),
		Descriptor: ocispec.Descriptor{Digest: digest.FromString(name)}}
	a.Manifest.Config.MediaType = ocispec.MediaTypeImageConfig
	return a
}

// events keeps events.
type events struct {
	mu   sync.Mutex
	list []event.Event
}

func (e *events) sink(ev event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
}

// lines returns the events of a piece of work, one a line.
func (e *events) lines(id event.ID) []string {
	var list []string
	for _, ev := range e.list {
		switch ev := ev.(type) {
		case event.Start:
			if ev.ID == id {
				list = append(list, "start "+ev.Name)
			}
		case event.Warning:
			if ev.ID == id {
				list = append(list, "warning "+ev.Message)
			}
		case event.Done:
			if ev.ID == id {
				list = append(list, fmt.Sprintf("done %q %v", ev.Note, ev.Err))
			}
		}
	}
	return list
}

func place(t *testing.T, parse func(string) (Place, error), s string) Place {
	t.Helper()
	p, err := parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestImportPlaces imports from one place and checks the names that are looked up, the records that
// are found and the events.
func TestImportPlaces(t *testing.T) {
	missing := errors.New("not found")
	at := time.Unix(5, 0).UTC()
	one := Record{Key: "k", Created: at, Layer: &Layer{DiffID: "sha256:1"}}
	two := Record{Key: "k", Created: at, Layer: &Layer{DiffID: "sha256:2"}}
	inline := `{"os":"linux","` + Field + `":{"records":[{"key":"k",` +
		`"created":"1970-01-01T00:00:05Z","layer":{"descriptor":{"mediaType":"","digest":"","size":0},"diffID":"sha256:1","sealed":""}}]}}`
	for _, tt := range []struct {
		name, from string
		found      map[string]*image.Artifact
		asked      []string
		want       []Record
		events     []string
	}{
		{"a name alone may be in the local store", "app",
			map[string]*image.Artifact{"app amd64": artifact(t, "a", one),
				"app arm64": artifact(t, "b", two)},
			[]string{"app amd64", "app arm64"}, []Record{one, two},
			[]string{"start importing cache from app", `done "2 records" <nil>`}},
		{"a registry", "type=registry,ref=app",
			map[string]*image.Artifact{"app amd64": artifact(t, "a", one, two),
				"app arm64": artifact(t, "a", one, two)},
			[]string{"app amd64 pull", "app arm64 pull"}, []Record{one, two},
			[]string{"start importing cache from app", `done "2 records" <nil>`}},
		{"a layout", "type=local,src=d",
			map[string]*image.Artifact{"oci-layout://d:latest amd64": artifact(t, "a", one),
				"oci-layout://d:latest arm64": artifact(t, "a", one)},
			[]string{"oci-layout://d:latest amd64 pull", "oci-layout://d:latest arm64 pull"},
			[]Record{one}, []string{"start importing cache from d", `done "1 records" <nil>`}},
		{"a tag of a layout", "type=local,src=d,tag=x", nil,
			[]string{"oci-layout://d:x amd64 pull", "oci-layout://d:x arm64 pull"}, nil,
			[]string{"start importing cache from d",
				"warning the cache at d is not used: not found", `done "0 records" <nil>`}},
		{"a digest in a layout", "type=local,src=d,tag=x,digest=" + digest.FromString("").String(),
			nil, []string{"oci-layout://d@" + digest.FromString("").String() + " amd64 pull",
				"oci-layout://d@" + digest.FromString("").String() + " arm64 pull"}, nil,
			[]string{"start importing cache from d",
				"warning the cache at d is not used: not found", `done "0 records" <nil>`}},
		{"records in an image", "app", map[string]*image.Artifact{"app amd64": inImage("a", inline),
			"app arm64": inImage("a", inline)},
			[]string{"app amd64", "app arm64"}, []Record{one},
			[]string{"start importing cache from app", `done "1 records" <nil>`}},
		{"an image without records", "app",
			map[string]*image.Artifact{"app amd64": inImage("a", `{}`),
				"app arm64": inImage("b", `{}`)},
			[]string{"app amd64", "app arm64"}, nil, []string{"start importing cache from app",
				"warning the cache at app is not used: " + errNoRecords.Error(),
				`done "0 records" <nil>`}},
		{"one platform of two", "app",
			map[string]*image.Artifact{"app arm64": artifact(t, "b", two)},
			[]string{"app amd64", "app arm64"}, []Record{two},
			[]string{"start importing cache from app",
				"warning the cache at app is not used: not found", `done "1 records" <nil>`}},
		{"a damaged document", "app",
			map[string]*image.Artifact{"app amd64": inImage("a", `{"`+Field+`":7}`),
				"app arm64": inImage("b", `7`)},
			[]string{"app amd64", "app arm64"}, nil, []string{"start importing cache from app",
				"warning the cache at app is not used: records: json: cannot unmarshal number into " +
					"Go value of type remotecache.Document\nconfiguration: json: cannot unmarshal " +
					"number into Go value of type map[string]json.RawMessage",
				`done "0 records" <nil>`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeArtifacts{found: tt.found,
				fail: func(context.Context, string) error { return missing }}
			var e events
			im, err := Import(t.Context(), f, []Place{place(t, ParseFrom, tt.from)}, platforms,
				e.sink)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(f.asked, tt.asked) {
				t.Errorf("looked up %q, want %q", f.asked, tt.asked)
			}
			if diff := cmp.Diff(tt.events, e.lines("cache-from 0")); diff != "" {
				t.Errorf("events: %s", diff)
			}
			var got []Record
			for _, r := range im.Find(t.Context(), "k") {
				got = append(got, r.Record)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("records: %s", diff)
			}
			if im.Empty() != (len(tt.want) == 0) {
				t.Errorf("Empty() = %v", im.Empty())
			}
		})
	}
}

// TestImportOrder has the places answer in the reverse order: the records of the place that was
// given first are found first.
func TestImportOrder(t *testing.T) {
	list := []string{"a", "b", "c"}
	answered := map[string]chan struct{}{}
	var places []Place
	for _, name := range list {
		places = append(places, place(t, ParseFrom, name))
		answered[name] = make(chan struct{})
	}
	answers := waitingArtifacts{func(ctx context.Context, ref string) (*image.Artifact, error) {
		defer close(answered[ref])
		if i := slices.Index(list, ref); i+1 < len(list) {
			<-answered[list[i+1]]
		}
		return artifact(t, ref, Record{Key: "k", Layer: &Layer{}}), nil
	}}
	im, err := Import(t.Context(), answers, places, platforms[:1], event.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range im.Find(t.Context(), "k") {
		got = append(got, r.From.Name)
	}
	if !slices.Equal(got, list) {
		t.Errorf("records of the places %q, want %q", got, list)
	}
}

// waitingArtifacts calls a function for each name.
type waitingArtifacts struct {
	get func(ctx context.Context, ref string) (*image.Artifact, error)
}

func (w waitingArtifacts) Artifact(ctx context.Context, ref string,
	_ image.ResolveOptions) (*image.Artifact, error) {
	return w.get(ctx, ref)
}

// TestImportCanceled ends the context while one place does not answer.
func TestImportCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		silent := waitingArtifacts{func(ctx context.Context, ref string) (*image.Artifact, error) {
			if ref == "silent" {
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}
			return artifact(t, ref, Record{Key: "k", Layer: &Layer{}}), nil
		}}
		var e events
		done := make(chan error)
		go func() {
			im, err := Import(ctx, silent, []Place{place(t, ParseFrom, "silent"),
				place(t, ParseFrom, "good")}, platforms, e.sink)
			if im != nil {
				t.Errorf("Import returns %v", im)
			}
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context.Canceled", err)
		}
		want := []string{"start importing cache from silent", `done "0 records" context canceled`}
		if diff := cmp.Diff(want, e.lines("cache-from 0")); diff != "" {
			t.Errorf("events: %s", diff)
		}
		want = []string{"start importing cache from good", `done "1 records" <nil>`}
		if diff := cmp.Diff(want, e.lines("cache-from 1")); diff != "" {
			t.Errorf("events: %s", diff)
		}
	})
}

// TestFound checks which records are results with a layer and which have only a time.
func TestFound(t *testing.T) {
	at := time.Unix(5, 0).UTC()
	f := &fakeArtifacts{found: map[string]*image.Artifact{"app amd64": artifact(t, "a",
		Record{Key: "layer", Content: "c", Created: at, Layer: &Layer{Sealed: "gzip 0 epoch 7"}},
		Record{Key: "both", Layer: &Layer{}}, Record{Key: "both", Created: at},
		Record{Key: "config", Created: at})}}
	im, err := Import(t.Context(), f, []Place{place(t, ParseFrom, "app")}, platforms[:1],
		event.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		im      *Imports
		key     cache.Key
		layers  int
		created bool
	}{
		{im, "layer", 1, false}, {im, "both", 1, true}, {im, "config", 0, true},
		{im, "other", 0, false}, {nil, "layer", 0, false},
	} {
		if n := len(tt.im.Find(t.Context(), tt.key)); n != tt.layers {
			t.Errorf("%s: %d layers, want %d", tt.key, n, tt.layers)
		}
		got, ok := tt.im.Created(tt.key)
		if ok != tt.created || ok && !got.Equal(at) {
			t.Errorf("%s: Created = %v, %v", tt.key, got, ok)
		}
	}
	if r := im.Find(t.Context(), "layer")[0]; r.ContentKey() != "c" || *r.Layer.Epoch() != 7 {
		t.Errorf("content key %q, epoch %v", r.ContentKey(), r.Layer.Epoch())
	}
	if r := im.Find(t.Context(), "both")[0]; r.ContentKey() != "both" || r.Layer.Epoch() != nil {
		t.Errorf("content key %q, epoch %v", r.ContentKey(), r.Layer.Epoch())
	}
	if !(*Imports)(nil).Empty() || im.Empty() {
		t.Error("Empty is wrong")
	}
}
