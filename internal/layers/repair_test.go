package layers

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/registrytest"
	"github.com/layerbuild/layerbuild/internal/store"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// repairs makes the store of a fixture repair its blobs.
func (f *fixture) repairs(client *registry.Client) *image.Resolver {
	images := image.New(image.Options{Store: f.state.Store, Cache: f.state.Cache,
		Snapshots: f.state.Snapshots, Registry: client})
	f.Cleanup(func() { images.Close() })
	f.state.Store.Repair = Repair(f.state, images)
	return images
}

// TestRepair loses or damages the blobs of layers, and reads them.
func TestRepair(t *testing.T) {
	drivers(t, func(t *testing.T, f *fixture) {
		f.repairs(nil)
		f.commit("one", "", "file a 0644 1\n")
		f.commit("two", "one", "remove a\nfile b 0644 1\n")
		seven := int64(7)
		for _, format := range []Format{{}, {Compression: "zstd", Level: 3},
			{Compression: "none", Epoch: &seven}} {
			o := f.options()
			o.Format = format
			list := []*Layer{{Snapshot: "one"}, {Snapshot: "two"}, {NoOp: true}}
			if _, err := NewSealer(t.Context(), o).ChainID(t.Context(), list); err != nil {
				t.Fatal(err)
			}
			for i, l := range list {
				want := f.entries(l.Descriptor)
				for name, damage := range map[string]func(string) error{"lost": os.Remove,
					"short": func(path string) error { return os.Truncate(path, 3) }} {
					if err := damage(f.state.Store.Path(l.Descriptor.Digest)); err != nil {
						t.Fatal(err)
					}
					if got := f.entries(l.Descriptor); got != want {
						t.Errorf("%s, layer %d, %s: entries\n%s\nwant\n%s", format, i, name, got,
							want)
					}
				}
			}
		}
		if left, err := os.ReadDir(f.state.Root); err != nil || len(left) == 0 ||
			strings.Contains(fmt.Sprint(left), "empty-") {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}

// TestRepairImpossible checks the error for a blob that cannot be made again: its reason and the
// remedy.
func TestRepairImpossible(t *testing.T) {
	const snapshot = "and the state has no snapshot to make it from"
	for _, tt := range []struct {
		name   string
		record func(f *fixture, d ocispec.Descriptor) error // nil: there is no record
		reason string
	}{
		{"no record", nil, snapshot},
		{"no snapshot", func(f *fixture, d ocispec.Descriptor) error {
			return f.state.Cache.PutSealed(f.Context(), "gone", Format{}.String(),
				cache.Layer{Descriptor: d, DiffID: d.Digest})
		}, snapshot},
		{"another content of the snapshot", func(f *fixture, d ocispec.Descriptor) error {
			return f.state.Cache.PutSealed(f.Context(), "one", Format{}.String(),
				cache.Layer{Descriptor: d, DiffID: d.Digest})
		}, snapshot},
		{"a format of another version", func(f *fixture, d ocispec.Descriptor) error {
			return f.state.Cache.PutSealed(f.Context(), "one", " 0",
				cache.Layer{Descriptor: d, DiffID: d.Digest})
		}, snapshot},
		{"a layer of a base image in another format", func(f *fixture, d ocispec.Descriptor) error {
			return f.state.Cache.PutSealed(f.Context(), d.Digest.String(), Format{}.String(),
				cache.Layer{Descriptor: d, DiffID: d.Digest})
		}, snapshot},
		{"a snapshot that cannot be sealed", func(f *fixture, d ocispec.Descriptor) error {
			return f.state.Cache.PutSealed(f.Context(), "one", Format{Compression: "nonesuch"}.String(),
				cache.Layer{Descriptor: d, DiffID: d.Digest})
		}, "and cannot be made or fetched again (seal layer: unknown compression"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, "copy")
			f.repairs(nil)
			f.commit("one", "", "file a 0644 1\n")
			d := f.ingest(ocispec.MediaTypeImageLayer, "content")
			if err := os.Remove(f.state.Store.Path(d.Digest)); err != nil {
				t.Fatal(err)
			}
			if tt.record != nil {
				if err := tt.record(f, d); err != nil {
					t.Fatal(err)
				}
			}
			_, err := f.state.Store.Fetch(t.Context(), d)
			bad, ok := errors.AsType[*store.BlobError](err)
			if !ok || bad.Digest != d.Digest || bad.Remedy != "build or pull the image again" ||
				!strings.Contains(err.Error(), tt.reason) || !errors.Is(err, store.ErrNotFound) {
				t.Errorf("error %v, want the reason %q", err, tt.reason)
			}
		})
	}
}

// TestRepairPulled downloads a blob again, also if there is a snapshot that cannot be sealed.
func TestRepairPulled(t *testing.T) {
	f := newFixture(t, "copy")
	reg := registrytest.New(t)
	made, err := imagetest.Make(dockerspec.DockerOCIImageConfig{},
		[]imagetest.Entry{imagetest.TarFile(tar.Header{Name: "a", Mode: 0o644}, "1")})
	if err != nil {
		t.Fatal(err)
	}
	reg.Add("app", "latest", made)
	images := f.repairs(registry.New(registry.Options{}))
	img, err := images.Pull(t.Context(), reg.Host+"/app:latest", image.ResolveOptions{Any: true},
		image.UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d := img.Manifest.Layers[0]
	f.commit("one", "", "file a 0644 1\n")
	for _, record := range []bool{false, true} {
		if record {
			if err := f.state.Cache.PutSealed(t.Context(), "one",
				Format{Compression: "nonesuch"}.String(), cache.Layer{Descriptor: d,
					DiffID: d.Digest}); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(f.state.Store.Path(d.Digest)); err != nil {
			t.Fatal(err)
		}
		if blob, err := f.state.Store.Fetch(t.Context(), d); err != nil {
			t.Errorf("with a record of a snapshot: %v: %v", record, err)
		} else {
			blob.Close()
		}
	}
}

// TestRepairCanceledDownload ends the context while a blob is downloaded again.
func TestRepairCanceledDownload(t *testing.T) {
	f := newFixture(t, "copy")
	reg := registrytest.New(t)
	download := make(chan func(), 1) // what a download of a blob calls, if there is anything
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case call := <-download:
			call()
			<-r.Context().Done()
		default:
			reg.ServeHTTP(w, r)
		}
	}))
	defer srv.Close()
	made, err := imagetest.Make(dockerspec.DockerOCIImageConfig{},
		[]imagetest.Entry{imagetest.TarFile(tar.Header{Name: "a", Mode: 0o644}, "1")})
	if err != nil {
		t.Fatal(err)
	}
	reg.Add("app", "latest", made)
	images := f.repairs(registry.New(registry.Options{}))
	img, err := images.Pull(t.Context(), strings.TrimPrefix(srv.URL, "http://")+"/app:latest",
		image.ResolveOptions{Any: true}, image.UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d := img.Manifest.Layers[0]
	if err := os.Remove(f.state.Store.Path(d.Digest)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	download <- func() { cancel(stop) }
	if _, err := f.state.Store.Fetch(ctx, d); err != stop {
		t.Errorf("error %v, want the cause", err)
	}
}

// TestRepairCanceled ends the context before a blob is repaired.
func TestRepairCanceled(t *testing.T) {
	f := newFixture(t, "copy")
	f.repairs(nil)
	f.commit("one", "", "file a 0644 1\n")
	l := &Layer{Snapshot: "one"}
	if _, err := NewSealer(t.Context(), f.options()).ChainID(t.Context(), []*Layer{l}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(f.state.Store.Path(l.Descriptor.Digest)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if err := f.state.Store.Repair(ctx, l.Descriptor, &store.BlobError{}); err != stop {
		t.Errorf("error %v, want the cause", err)
	}
}
