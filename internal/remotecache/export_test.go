package remotecache

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
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fakeSealer returns the number of layers as their chain ID.
type fakeSealer struct{ err error }

func (s fakeSealer) ChainID(_ context.Context, list []*layers.Layer) (digest.Digest, error) {
	return digest.Digest(fmt.Sprint(len(list), " layers")), s.err
}

func (fakeSealer) Format() string { return "the format" }

// sealed returns a layer of an image.
func sealed(mediaType, content string) *layers.Layer {
	return &layers.Layer{Base: &image.Image{}, DiffID: digest.FromString("diffID of " + content),
		Descriptor: ocispec.Descriptor{MediaType: mediaType, Size: int64(len(content)),
			Digest: digest.FromString(content)}}
}

// TestCollector adds results and checks the records of the document.
func TestCollector(t *testing.T) {
	const docker = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	a, b := sealed(docker, "a"), sealed(ocispec.MediaTypeImageLayer, "b")
	at := time.Unix(7, 0).In(time.FixedZone("", 3600))
	var c Collector
	if doc, err := c.Document(t.Context(), fakeSealer{}, true); err != nil || doc.Records == nil ||
		len(doc.Records) != 0 {
		t.Errorf("the document of no results is %+v, %v, want an empty list", doc, err)
	}
	c.Add(true, []cache.Key{"def", "", "def", "key"}, at, a, nil)
	c.Add(true, []cache.Key{"key", "key"}, at, a, nil) // again, from another stage
	c.Add(false, []cache.Key{"other"}, at, b, []*layers.Layer{a, a})
	c.Add(true, []cache.Key{"config"}, at, nil, nil)
	utc := at.UTC()
	layer := &Layer{Descriptor: a.Descriptor, DiffID: a.DiffID, Parent: "0 layers",
		Sealed: "the format"}
	layer.Descriptor.MediaType = ocispec.MediaTypeImageLayerGzip
	own := []Record{{Key: "config", Created: utc},
		{Key: "def", Content: "key", Created: utc, Layer: layer},
		{Key: "key", Created: utc, Layer: layer}}
	other := Record{Key: "other", Created: utc, Layer: &Layer{Descriptor: b.Descriptor,
		DiffID: b.DiffID, Parent: "2 layers", Sealed: "the format"}}
	for all, want := range map[bool][]Record{false: own, true: append(slices.Clone(own), other)} {
		doc, err := c.Document(t.Context(), fakeSealer{}, all)
		if diff := cmp.Diff(want, doc.Records); err != nil || diff != "" {
			t.Errorf("all = %v: %v %s", all, err, diff)
		}
		for _, r := range doc.Records {
			if r.Created.Location() != time.UTC {
				t.Errorf("the time of %s is %v, want UTC", r.Key, r.Created)
			}
		}
	}
}

// TestCollectorConcurrent adds results from several goroutines.
func TestCollectorConcurrent(t *testing.T) {
	var c Collector
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			c.Add(true, []cache.Key{cache.Key(fmt.Sprint("def ", i)),
				cache.Key(fmt.Sprint("key ", i))}, time.Time{}, nil, nil)
		})
	}
	wg.Wait()
	doc, err := c.Document(t.Context(), fakeSealer{}, false)
	if err != nil || len(doc.Records) != 100 {
		t.Errorf("%d records, %v, want 100", len(doc.Records), err)
	}
}

// TestDocumentWaits requests the document before the layer of a result is sealed.
func TestDocumentWaits(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name   string
		sealed error // of the layer
		sealer error
		cancel bool
		want   error
	}{
		{"sealed", nil, nil, false, nil},
		{"a layer that cannot be sealed", broken, nil, false, broken},
		{"a layer below that cannot be sealed", nil, broken, false, broken},
		{"canceled", nil, nil, true, context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c Collector
				l := &layers.Layer{}
				end := l.Begin()
				c.Add(true, []cache.Key{"key"}, time.Time{}, l, nil)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var doc Document
				var err error
				returned := false
				go func() {
					doc, err = c.Document(ctx, fakeSealer{tt.sealer}, true)
					returned = true
				}()
				synctest.Wait()
				if returned {
					t.Fatalf("Document has not waited for the layer: %+v, %v", doc, err)
				}
				if tt.cancel {
					cancel()
				} else {
					end(ocispec.Descriptor{Size: 3}, "sha256:1", tt.sealed)
				}
				synctest.Wait()
				if !returned || !errors.Is(err, tt.want) {
					t.Fatalf("error %v, want %v", err, tt.want)
				}
				if tt.want == nil && doc.Records[0].Layer.DiffID != "sha256:1" {
					t.Errorf("the layer is %+v", doc.Records[0].Layer)
				}
			})
		})
	}
}

// fakePusher keeps the roots that were pushed, by name, or returns an error.
type fakePusher struct {
	err    error
	pushed map[string]ocispec.Descriptor
	o      export.PushOptions
}

func (p *fakePusher) Push(_ context.Context, name string, root ocispec.Descriptor,
	_ export.Fetcher, o export.PushOptions) error {
	if p.pushed == nil {
		p.pushed = map[string]ocispec.Descriptor{}
	}
	p.pushed[name], p.o = root, o
	return p.err
}

// exported is a state with two layers in its store, and a document of them.
type exported struct {
	state *state.State
	doc   Document
}

func newExported(t *testing.T) *exported {
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
	e := &exported{state: st}
	for i, content := range []string{"one", "two", "one"} {
		d, err := st.Store.Ingest(t.Context(), ocispec.MediaTypeImageLayer,
			func(w io.Writer) error { _, err := io.WriteString(w, content); return err })
		if err != nil {
			t.Fatal(err)
		}
		e.doc.Records = append(e.doc.Records, Record{Key: cache.Key(fmt.Sprint(i)),
			Created: time.Unix(int64(i), 0).UTC(),
			Layer:   &Layer{Descriptor: d, DiffID: d.Digest, Sealed: "f"}})
	}
	e.doc.Records = append(e.doc.Records, Record{Key: "config", Created: time.Unix(9, 0).UTC()})
	return e
}

// document is an argument of Export.
func (e *exported) document(bool) (Document, error) { return e.doc, nil }

// TestExport exports to a layout and a registry, and imports the layout.
func TestExport(t *testing.T) {
	e := newExported(t)
	dir := filepath.Join(t.TempDir(), "new", "dir")
	pusher := &fakePusher{}
	var ev events
	var asked []bool
	x := Exporter{Store: e.state.Store, Env: export.Env{Pusher: pusher}, Sink: ev.sink}
	places := []Place{place(t, ParseTo, "type=inline"), place(t, ParseTo, "type=local,dest="+dir),
		place(t, ParseTo, "type=local,mode=max,tag=x,dest="+dir),
		place(t, ParseTo, "type=registry,ref=r:1,registry.insecure=true")}
	if err := x.Export(t.Context(), places, func(all bool) (Document, error) {
		asked = append(asked, all)
		return e.doc, nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := []bool{false, true, false}; !slices.Equal(asked, want) {
		t.Errorf("documents with all stages: %v, want %v", asked, want)
	}
	for i, want := range [][]string{nil, {"start exporting cache to " + dir, `done "" <nil>`},
		{"start exporting cache to " + dir, `done "" <nil>`},
		{"start exporting cache to r:1", `done "" <nil>`}} {
		if diff := cmp.Diff(want, ev.lines(event.ID(fmt.Sprint("cache-to ", i)))); diff != "" {
			t.Errorf("events of place %d: %s", i, diff)
		}
	}
	if !pusher.o.Insecure || pusher.o.ByDigest || pusher.o.ID != "cache-to 3" {
		t.Errorf("pushed with %+v", pusher.o)
	}
	root := pusher.pushed["r:1"]
	data, err := e.state.Store.Read(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	two := []ocispec.Descriptor{e.doc.Records[0].Layer.Descriptor,
		e.doc.Records[1].Layer.Descriptor}
	slices.SortFunc(two, func(a, b ocispec.Descriptor) int {
		return strings.Compare(string(a.Digest), string(b.Digest))
	})
	if diff := cmp.Diff(two, m.Layers); diff != "" || m.Config.MediaType != MediaType ||
		m.ArtifactType != "application/vnd.layerbuild.cache.v1" || m.SchemaVersion != 2 ||
		m.MediaType != root.MediaType || root.MediaType != ocispec.MediaTypeImageManifest {
		t.Errorf("manifest %+v of type %s: %s", m, root.MediaType, diff)
	}

	resolver := image.New(image.Options{Store: e.state.Store, Cache: e.state.Cache,
		Snapshots: e.state.Snapshots})
	defer resolver.Close()
	for _, from := range []string{"", ",tag=x", ",digest=" + root.Digest.String()} {
		p := place(t, ParseFrom, "type=local,src="+dir+from)
		im, err := Import(t.Context(), resolver, []Place{p}, platforms, func(ev event.Event) {
			if w, ok := ev.(event.Warning); ok {
				t.Errorf("%q: %s", from, w.Message)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range e.doc.Records {
			got, created := im.Find(t.Context(), want.Key), time.Time{}
			if want.Layer == nil {
				created, _ = im.Created(want.Key)
			} else if len(got) == 1 {
				created = got[0].Created
				if diff := cmp.Diff(want, got[0].Record); diff != "" {
					t.Errorf("%q: %s", from, diff)
				}
			}
			if !created.Equal(want.Created) {
				t.Errorf("%q: %s was created at %v, want %v", from, want.Key, created, want.Created)
			}
		}
	}
	for _, d := range two {
		if _, err := os.Stat(filepath.Join(dir, "blobs/sha256", d.Digest.Encoded())); err != nil {
			t.Error(err)
		}
	}
}

// TestExportFails checks the error of a place that cannot be written, its events, and that nothing
// is left there.
func TestExportFails(t *testing.T) {
	broken := errors.New("broken")
	lose := func(e *exported) {
		d := e.doc.Records[1].Layer.Descriptor.Digest
		if err := os.Remove(e.state.Store.Path(d)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, to string
		damage   func(*exported)
		pusher   export.Pusher
		document func(bool) (Document, error)
		want     error
		text     string // of the error, after "export the cache to PLACE: "
	}{
		{"no document", "type=local,dest=DIR", nil, nil,
			func(bool) (Document, error) { return Document{}, broken }, broken, "broken"},
		{"no registry", "app", nil, nil, nil, nil, "pushing to a registry is not available"},
		{"a registry that fails", "app", nil, &fakePusher{err: broken}, nil, broken, "broken"},
		{"a missing layer", "type=local,dest=DIR", lose, nil, nil, store.ErrNotFound,
			"not in the store"},
		{"a tag that is none", "type=local,dest=DIR,tag=a b", nil, nil, nil, nil, "a b"},
		{"a file in the place of the directory", "type=local,dest=FILE", nil, nil, nil, nil,
			"FILE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newExported(t)
			if tt.damage != nil {
				tt.damage(e)
			}
			document := e.document
			if tt.document != nil {
				document = tt.document
			}
			top := t.TempDir()
			dir, file := filepath.Join(top, "dir"), filepath.Join(top, "file")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			paths := strings.NewReplacer("DIR", dir, "FILE", file)
			to := place(t, ParseTo, paths.Replace(tt.to))
			var ev events
			x := Exporter{Store: e.state.Store, Env: export.Env{Pusher: tt.pusher}, Sink: ev.sink}
			err := x.Export(t.Context(), []Place{to, {Type: "registry", Ref: "next", Max: true}},
				func(all bool) (Document, error) {
					if all {
						t.Error("the place after the error is written")
					}
					return document(all)
				})
			prefix, text := "export the cache to "+to.String()+": ", paths.Replace(tt.text)
			if err == nil || !strings.HasPrefix(err.Error(), prefix) ||
				!strings.Contains(err.Error(), text) ||
				tt.want != nil && !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %s…%s", err, prefix, text)
			}
			want := []string{"start exporting cache to " + to.String(),
				`done "" ` + strings.TrimPrefix(err.Error(), prefix)}
			if diff := cmp.Diff(want, ev.lines("cache-to 0")); diff != "" {
				t.Errorf("events: %s", diff)
			}
			if list, err := os.ReadDir(dir); err == nil {
				t.Errorf("%s has %v", dir, list)
			}
		})
	}
}

// TestExportIgnoresErrors exports to a place that fails, with ignore-error: the error is a warning,
// and the next place is written. The end of the context is an error nevertheless.
func TestExportIgnoresErrors(t *testing.T) {
	e := newExported(t)
	places := []Place{place(t, ParseTo, "type=registry,ref=bad,ignore-error=true"),
		place(t, ParseTo, "type=registry,ref=good")}
	pusher := &fakePusher{err: errors.New("broken")}
	var ev events
	x := Exporter{Store: e.state.Store, Env: export.Env{Pusher: pusher}, Sink: ev.sink}
	err := x.Export(t.Context(), places, func(bool) (Document, error) {
		if pusher.pushed != nil {
			pusher.err = nil // the second place
		}
		return e.doc, nil
	})
	if _, ok := pusher.pushed["good"]; err != nil || !ok {
		t.Errorf("error %v, pushed %v", err, pusher.pushed)
	}
	want := []string{"start exporting cache to bad", "warning the cache is not exported: broken",
		`done "" <nil>`}
	if diff := cmp.Diff(want, ev.lines("cache-to 0")); diff != "" {
		t.Errorf("events: %s", diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = x.Export(ctx, places[:1], func(bool) (Document, error) {
		cancel()
		return Document{}, context.Cause(ctx)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: error %v, want context.Canceled", err)
	}
}
