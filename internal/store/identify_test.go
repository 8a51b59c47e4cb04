package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestIsShortID(t *testing.T) {
	hex := digest.FromString("x").Encoded()
	for s, want := range map[string]bool{
		"abcd": true, "0123": true, hex[:12]: true, hex: true, "sha256:" + hex: true,
		"sha256:" + hex[:7]: true,
		"":                  false, "abc": false, "sha256:": false,
		"sha256:abc": false, "ABCD": false,
		"abcg": false, hex + "0": false, "app": false, "sha512:abcd": false,
	} {
		if got := IsShortID(s); got != want {
			t.Errorf("IsShortID(%q) = %v, want %v", s, got, want)
		}
	}
}

// manifestOf reads an image's manifest.
func manifestOf(t testing.TB, s *Store, d ocispec.Descriptor) *ocidoc.Document {
	t.Helper()
	var doc *ocidoc.Document
	s.walk(t.Context(), d, map[digest.Digest]bool{}, func(at ocispec.Descriptor,
		got *ocidoc.Document) {
		if at.Digest == d.Digest {
			doc = got
		}
	})
	if doc == nil {
		t.Fatalf("no document %s", d.Digest)
	}
	return doc
}

func TestResolveID(t *testing.T) {
	s := openTest(t)
	ctx := t.Context()
	a, b, base := putImage(t, s, "a"), putImage(t, s, "b"), putImage(t, s, "base")
	index := putJSON(t, s, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{b},
	})
	for name, d := range map[string]ocispec.Descriptor{"app": a, "other": a, "two": index, "": a} {
		if err := s.Tag(ctx, name, d); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		what string
		id   digest.Digest
		want digest.Digest
	}{
		{"manifest", a.Digest, a.Digest},
		{"configuration", manifestOf(t, s, a).Config.Digest, a.Digest},
		{"index", index.Digest, index.Digest},
		{"manifest in an index", b.Digest, b.Digest},
		{"configuration in an index", manifestOf(t, s, b).Config.Digest, b.Digest},
		{"base without an entry", base.Digest, base.Digest},
	} {
		hex := tt.id.Encoded()
		for _, id := range []string{tt.id.String(), hex, hex[:12], "sha256:" + hex[:12], hex[:20]} {
			if got, err := s.ResolveID(ctx, id, []ocispec.Descriptor{base}); err != nil ||
				got.Digest != tt.want {
				t.Errorf("%s: ResolveID(%s) = %s, %v, want %s", tt.what, id,
					got.Digest, err, tt.want)
			}
		}
	}
	layer := manifestOf(t, s, a).Layers[0].Digest
	diffID := digest.FromString("diffID")
	c := putJSON(t, s, ocispec.MediaTypeImageConfig, ocispec.Image{
		RootFS: ocispec.RootFS{DiffIDs: []digest.Digest{diffID}}})
	gzipped := putJSON(t, s, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: c, Layers: []ocispec.Descriptor{
			{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: layer, Size: 1}}})
	if err := s.Tag(ctx, "docker.io/library/gzipped:latest", gzipped); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{layer.String(), layer.Encoded()[:12], diffID.String()} {
		if _, err := s.ResolveID(ctx, id, nil); err == nil ||
			!strings.Contains(err.Error(), "is a layer of docker.io/library/") {
			t.Errorf("ResolveID of a layer: %v, want an error that says so", err)
		}
	}
	if _, err := s.ResolveID(ctx, strings.Repeat("0", 12), nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("ResolveID of nothing: %v, want ErrNotFound", err)
	}
}

// If several images' digests have the same beginning, resolving it returns an error that lists
// them.
func TestResolveIDAmbiguous(t *testing.T) {
	s := openTest(t)
	ctx := t.Context()
	names := map[string][]string{} // by the beginnings of digests
	for i := range 600 {
		name := fmt.Sprintf("image%d", i)
		config := putJSON(t, s, ocispec.MediaTypeImageConfig, map[string]int{"n": i})
		d := putJSON(t, s, ocispec.MediaTypeImageManifest,
			ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
				MediaType: ocispec.MediaTypeImageManifest, Config: config})
		short := d.Digest.Encoded()[:MinShortID]
		names[short] = append(names[short], name)
		if err := s.Tag(ctx, name, d); err != nil {
			t.Fatal(err)
		}
		if len(names[short]) < 2 {
			continue
		}
		_, err := s.ResolveID(ctx, short, nil)
		var ambiguous *AmbiguousError
		if !errors.As(err, &ambiguous) || len(ambiguous.Candidates) < 2 {
			t.Fatalf("ResolveID(%s) = %v, want an AmbiguousError", short, err)
		}
		for _, name := range names[short] {
			if !strings.Contains(err.Error(), "docker.io/library/"+name+":latest") {
				t.Errorf("ResolveID(%s): %v, want it to name %s", short, err, name)
			}
		}
		if got, err := s.ResolveID(ctx, d.Digest.Encoded()[:12], nil); err != nil ||
			got.Digest != d.Digest {
			t.Errorf("ResolveID with more digits = %v, %v", got.Digest, err)
		}
		return
	}
	t.Fatal("no two digests begin alike")
}
