package layers

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/store"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestRecompress writes a layer in another format, once. The result is the layer that is sealed in
// that format, with the annotations that describe its content.
func TestRecompress(t *testing.T) {
	f := newFixture(t, "copy")
	f.commit("one", "", "file a 0644 1\n")
	f.commit("same", "", "file a 0644 1\n")
	l := &Layer{Snapshot: "one"}
	if _, err := NewSealer(t.Context(), f.options()).ChainID(t.Context(), []*Layer{l}); err != nil {
		t.Fatal(err)
	}
	o := f.options()
	o.Format = Format{Compression: "zstd"}
	want := &Layer{Snapshot: "one"}
	if _, err := NewSealer(t.Context(), o).ChainID(t.Context(), []*Layer{want}); err != nil {
		t.Fatal(err)
	}
	d := l.Descriptor
	d.Annotations = map[string]string{"org.opencontainers.image.title": "t",
		"io.github.containerd.zstd-chunked.manifest-checksum": "x"}
	d.Data = []byte("x")
	// Another source: it has no record in the new format.
	own := &Layer{Snapshot: "same", DiffID: l.DiffID}
	base := &Layer{Base: &image.Image{}, DiffID: l.DiffID}
	for _, tt := range []struct {
		layer  *Layer
		source string // of the record
	}{{own, "same"}, {base, d.Digest.String()}} {
		for range 2 {
			got, err := tt.layer.Recompress(t.Context(), f.state, d, o.Format)
			if err != nil {
				t.Fatal(err)
			}
			if got.Digest != want.Descriptor.Digest || got.Size != want.Descriptor.Size ||
				got.MediaType != ocispec.MediaTypeImageLayerZstd || len(got.Annotations) != 1 ||
				got.Data != nil {
				t.Errorf("Recompress = %+v, want %+v", got, want.Descriptor)
			}
			rec, ok := f.state.SealedLayer(t.Context(), tt.source, o.Format.String())
			if !ok || rec.DiffID != l.DiffID || rec.Size == 0 {
				t.Errorf("the record of %s is %+v, %v", tt.source, rec, ok)
			}
			// The second call does not read the blob.
			if err := os.Rename(f.state.Store.Path(d.Digest), f.state.Root+"/away"); err != nil {
				t.Fatal(err)
			}
			if _, err := tt.layer.Recompress(t.Context(), f.state, d, o.Format); err != nil {
				t.Errorf("the layer is recompressed again: %v", err)
			}
			if err := os.Rename(f.state.Root+"/away", f.state.Store.Path(d.Digest)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestRecompressFails checks the errors of blobs that cannot be recompressed, and that nothing is
// recorded.
func TestRecompressFails(t *testing.T) {
	zstd := Format{Compression: "zstd"}
	for _, tt := range []struct {
		name   string
		format Format
		blob   func(f *fixture) (ocispec.Descriptor, digest.Digest)
		want   error
		text   string
	}{
		{"a missing blob", zstd, func(*fixture) (ocispec.Descriptor, digest.Digest) {
			return ocispec.Descriptor{Digest: digest.FromString("gone")}, digest.FromString("x")
		}, store.ErrNotFound, ""},
		{"a damaged blob", zstd, func(f *fixture) (ocispec.Descriptor, digest.Digest) {
			d := f.ingest(ocispec.MediaTypeImageLayer, "content")
			path := f.state.Store.Path(d.Digest)
			if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
				f.Fatal(err)
			}
			return d, digest.FromString("content")
		}, store.ErrDamaged, ""},
		{"another content", zstd, func(f *fixture) (ocispec.Descriptor, digest.Digest) {
			return f.ingest(ocispec.MediaTypeImageLayer, "content"), digest.FromString("other")
		}, nil, "it is damaged: its content is not " + digest.FromString("other").String()},
		{"an unknown compression", Format{Compression: "none such"},
			func(f *fixture) (ocispec.Descriptor, digest.Digest) {
				d := f.ingest(ocispec.MediaTypeImageLayer, "content")
				return d, d.Digest
			}, nil, "none such"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, "copy")
			d, diffID := tt.blob(f)
			_, err := Recompress(t.Context(), f.state, "source", d, diffID, tt.format)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) ||
				!strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v, want %q and %v", err, tt.text, tt.want)
			}
			if got := f.seals(); len(got) > 0 {
				t.Errorf("records of %q", got)
			}
		})
	}
}

// TestRecompressOtherContent has a record of another layer under the same source: it is not used.
func TestRecompressOtherContent(t *testing.T) {
	f := newFixture(t, "copy")
	for _, content := range []string{"one", "two"} {
		d := f.ingest(ocispec.MediaTypeImageLayer, content)
		got, err := Recompress(t.Context(), f.state, "source", d, d.Digest, Format{})
		if err != nil {
			t.Fatal(err)
		}
		blob, err := f.state.Store.Fetch(t.Context(), got)
		if err != nil {
			t.Fatal(err)
		}
		defer blob.Close()
		if data, err := io.ReadAll(blob); err != nil || slices.Equal(data, []byte(content)) ||
			got.MediaType != ocispec.MediaTypeImageLayerGzip {
			t.Errorf("%s: %q, %v, %+v", content, data, err, got)
		}
		if rec, _ := f.state.SealedLayer(t.Context(), "source", Format{}.String()); rec.DiffID !=
			d.Digest {
			t.Errorf("%s: the record is %+v", content, rec)
		}
	}
}
