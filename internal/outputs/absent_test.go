package outputs

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/store"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// located is an Uploader that only locates blobs: those of the names in it.
type located map[string]error

func (located) Send(context.Context, string, export.Spec, ocispec.Descriptor) error { return nil }

func (located) Stream(context.Context, string, export.Spec, *store.Growing) error { return nil }

func (l located) Locate(_ context.Context, name string, _ export.Spec, _ ocispec.Descriptor) (bool,
	error) {
	err, ok := l[name]
	return ok && err == nil, err
}

// TestWriteAbsent writes images on a base image whose layer registries have. It is fetched unless
// all of them have it, and nothing else needs it.
func TestWriteAbsent(t *testing.T) {
	const push = "type=image,push=true"
	all := located{"r.test/a": nil, "r.test/b": nil}
	for _, tt := range []struct {
		name   string
		remote Uploader
		o      Options
		specs  []string
		absent bool
	}{
		{"a push", all, Options{}, []string{push}, true},
		{"a push by digest", all, Options{},
			[]string{"type=image,push=true,push-by-digest=true,name=r.test/a"}, true},
		{"two pushes", all, Options{}, []string{push, push + ",name=r.test/b"}, true},
		{"one registry lacks it", located{"r.test/a": nil}, Options{},
			[]string{push, push + ",name=r.test/b"}, false},
		{"a registry fails", located{"r.test/a": errors.New("no answer")}, Options{},
			[]string{push}, false},
		{"layers are needed", nil, Options{}, []string{push}, false},
		{"no output", all, Options{}, nil, false},
		{"an image in the store", all, Options{}, []string{"type=image"}, false},
		{"an archive, too", all, Options{}, []string{push, "type=oci,dest=a"}, false},
		{"files, too", all, Options{}, []string{push, "type=local,dest=a"}, false},
		{"another compression of the base", all, Options{},
			[]string{push + ",compression=zstd,force-compression=true"}, false},
		{"other layers without dead bytes", all, Options{}, []string{push + ",prune-dead=true"},
			false},
		{"two images", all, Options{}, []string{push, push + ",name=r.test/b,compression=zstd"},
			false},
	} {
		b := newBench(t)
		base := b.base(filepath.Join(t.TempDir(), "layout"))
		d := base.Manifest.Layers[0]
		own := b.layers(Recipe{}, nil, "file own 0644 1\n")[0]
		tt.o.Names, tt.o.Specs = []string{"r.test/a"}, b.specs(tt.specs...)
		w, exporters := b.writer(tt.o)
		w.Remote = tt.remote
		old := map[string]ocispec.Descriptor{"r.test/a:latest": own.Descriptor,
			"r.test/other:1": own.Descriptor}
		for name, d := range old {
			if err := b.state.Store.Tag(t.Context(), name, d); err != nil {
				t.Fatal(err)
			}
		}
		of := &layers.Layer{Base: base, Descriptor: d, DiffID: base.Config.RootFS.DiffIDs[0]}
		res := b.write(w, built(amd64, of, own))
		has, err := b.state.Store.Exists(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		if has == tt.absent || (res.Absent > 0) != tt.absent {
			t.Errorf("%s: the layer is in the store: %v; %d are absent", tt.name, has, res.Absent)
		}
		for _, e := range exporters {
			if e.got.Absent != tt.absent {
				t.Errorf("%s: an output has Absent %v", tt.name, e.got.Absent)
			}
		}
		// the tests' exporters give no names
		names := slices.Sorted(maps.Keys(b.names()))
		want := []string{"r.test/a:latest", "r.test/other:1"}
		if tt.absent {
			want = want[1:]
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s: the store has %q, want %q", tt.name, names, want)
		}
	}
}
