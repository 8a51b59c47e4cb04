package outputs

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/store"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sender is an Uploader whose methods call one function.
type sender func(ctx context.Context, name string, spec export.Spec, d ocispec.Descriptor,
	g *store.Growing) error

func (s sender) Send(ctx context.Context, name string, spec export.Spec,
	d ocispec.Descriptor) error {
	return s(ctx, name, spec, d, nil)
}

func (s sender) Stream(ctx context.Context, name string, spec export.Spec,
	g *store.Growing) error {
	return s(ctx, name, spec, ocispec.Descriptor{}, g)
}

func (s sender) Locate(context.Context, string, export.Spec, ocispec.Descriptor) (bool, error) {
	return false, nil
}

// written returns a layer that was watched while it was written to a store.
func written(t *testing.T) (*store.Growing, ocispec.Descriptor) {
	t.Helper()
	s, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var growing *store.Growing
	d, err := s.Watched(func(g *store.Growing) { growing = g }).Ingest(t.Context(),
		ocispec.MediaTypeImageLayer, func(w io.Writer) error {
			_, err := w.Write(make([]byte, 4<<20)) // the size from which a layer is watched
			return err
		})
	if err != nil || growing == nil {
		t.Fatalf("Ingest: error %v; the layer was watched: %v", err, growing != nil)
	}
	return growing, d
}

// TestUploads checks to which names a layer is sent before the image is finished.
func TestUploads(t *testing.T) {
	for _, tt := range []struct {
		name    string
		names   []string
		outputs []string
		want    []string
	}{
		{"no output", []string{"a"}, nil, nil},
		{"an image that is not pushed", []string{"a"}, []string{"type=image"}, nil},
		{"an archive", []string{"a"}, []string{"type=oci,dest=d"}, nil},
		{"a push", []string{"b", "a"}, []string{`type=registry,"name=c,a"`},
			[]string{"a", "b", "c"}},
		{"two pushes", []string{"a"}, []string{"type=registry", "type=image,push=true,name=b"},
			[]string{"a", "a", "b"}},
		{"another compression", nil, []string{"type=registry,name=a",
			"type=registry,name=b,compression=zstd"}, []string{"a"}},
		{"another level", nil, []string{"type=registry,name=a",
			"type=registry,name=b,compression-level=1"}, []string{"a"}},
		{"other documents of the same layers", nil, []string{"type=registry,name=a",
			"type=registry,name=b,oci-mediatypes=false,force-compression=true"}, []string{"a", "b"}},
		{"a pruned image", nil, []string{"type=registry,name=a,prune-dead=true"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{Names: tt.names, Specs: (&bench{T: t}).specs(tt.outputs...)}
			var mu sync.Mutex
			var sent []string
			g, layer := written(t)
			u := NewUploads(sender(func(_ context.Context, name string, spec export.Spec,
				d ocispec.Descriptor, growing *store.Growing) error {
				mu.Lock()
				defer mu.Unlock()
				sent = append(sent, name)
				if growing != g && (growing != nil || d.Digest != layer.Digest) || !spec.Push {
					t.Errorf("sent %v of %s", d, spec)
				}
				return errors.New("the push at the end reports this")
			}), &o, o.StoreRecipe())
			for _, tt2 := range []struct {
				name string
				add  func()
				want []string
			}{
				{"Add", func() { u.Add(t.Context(), layer) }, tt.want},
				// Stream fails, and so each name is sent the complete layer.
				{"Begin", func() { u.Begin(t.Context(), g) }, slices.Concat(tt.want, tt.want)},
				{"Add after Begin", func() { u.Add(t.Context(), layer) }, nil},
			} {
				sent = nil
				tt2.add()
				u.Wait()
				slices.Sort(sent)
				if want := slices.Sorted(slices.Values(tt2.want)); !slices.Equal(sent, want) {
					t.Errorf("%s sends to %q, want %q", tt2.name, sent, want)
				}
			}
			NewUploads(nil, &o, Recipe{}).Add(t.Context(), ocispec.Descriptor{})
		})
	}
}

// TestUploadsWait checks that Add does not wait, that Wait waits for everything that is being sent,
// and that sending ends with the context.
func TestUploadsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Options{Specs: (&bench{T: t}).specs(`type=registry,"name=a,b"`)}
		ended := 0
		var mu sync.Mutex
		u := NewUploads(sender(func(ctx context.Context, _ string, _ export.Spec,
			_ ocispec.Descriptor, _ *store.Growing) error {
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			ended++
			return context.Cause(ctx)
		}), &o, o.StoreRecipe())
		ctx, cancel := context.WithCancel(t.Context())
		u.Add(ctx, ocispec.Descriptor{})
		u.Add(ctx, ocispec.Descriptor{})
		waited := false
		go func() {
			u.Wait()
			waited = true
		}()
		synctest.Wait()
		if waited {
			t.Error("Wait has not waited")
		}
		cancel()
		synctest.Wait()
		if !waited || ended != 4 {
			t.Errorf("after the end of the context: Wait has returned: %v, %d of 4 have ended",
				waited, ended)
		}
	})
}
