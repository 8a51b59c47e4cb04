package imageanalysis

import (
	"archive/tar"
	"encoding/json"
	"io"
	"path/filepath"
	"slices"
	"testing"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/state/ledger"
	"github.com/layerbuild/layerbuild/internal/store"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageStore is a store with images made by hand.
type imageStore struct {
	t *testing.T
	*store.Store
}

func (s imageStore) json(mediaType string, v any) ocispec.Descriptor {
	s.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.blob(mediaType, data)
}

func (s imageStore) blob(mediaType string, data []byte) ocispec.Descriptor {
	s.t.Helper()
	d, err := s.Ingest(s.t.Context(), mediaType,
		func(w io.Writer) error { _, err := w.Write(data); return err })
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s imageStore) read(d ocispec.Descriptor, v any) {
	s.t.Helper()
	data, err := s.Read(s.t.Context(), d)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		s.t.Fatal(err)
	}
}

// image makes an image of layers. Each layer is a list of entries "name=content", or "name" for a
// whiteout.
func (s imageStore) image(p ocispec.Platform, layers ...[][2]string) ocispec.Descriptor {
	s.t.Helper()
	c := ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest}
	for _, files := range layers {
		var entries []imagetest.Entry
		for _, f := range files {
			entries = append(entries, imagetest.TarFile(tar.Header{Name: f[0], Mode: 0o644}, f[1]))
		}
		raw := imagetest.Tar(s.t, entries...)
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(raw))
		l := s.blob(ocispec.MediaTypeImageLayer, raw)
		l.Annotations = map[string]string{
			"containerd.io/snapshot/stargz/toc.digest":            "sha256:old",
			"io.github.containers.zstd-chunked.manifest-checksum": "sha256:old",
			"org.opencontainers.image.title":                      "a layer",
		}
		l.URLs, l.Data = []string{"https://example.com/old"}, []byte("old")
		m.Layers = append(m.Layers, l)
	}
	m.Config = s.json(ocispec.MediaTypeImageConfig, c)
	d := s.json(m.MediaType, m)
	d.Platform = &p
	return d
}

// attestation makes an attestation like those of BuildKit.
func (s imageStore) attestation(of ocispec.Descriptor) ocispec.Descriptor {
	s.t.Helper()
	p := ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	d := s.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: s.json(ocispec.MediaTypeImageConfig,
			ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers"}}),
		Layers: []ocispec.Descriptor{s.blob("application/vnd.in-toto+json",
			[]byte("about "+of.Digest))},
	})
	d.Platform = &p
	d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest",
		"vnd.docker.reference.digest": string(of.Digest)}
	return d
}

// newImageStore makes a state with an empty store, and a resolver.
func newImageStore(t *testing.T) (imageStore, *state.State, *image.Resolver) {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(t.Context(), filepath.Join(dir, "oci"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := cache.Open(filepath.Join(dir, "cache"), ledger.OpenBoot(dir, "boot"), cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return imageStore{t, st}, &state.State{Root: dir, Store: st, Cache: c},
		image.New(image.Options{Store: st, Cache: c})
}

// TestPruneIndex checks that an index stays an index, that each of its images is pruned, and that
// annotations about the old bytes are removed.
func TestPruneIndex(t *testing.T) {
	s, st, images := newImageStore(t)
	wasted := [][][2]string{{{"a", "dead"}, {"b", "live"}}, {{".wh.a", ""}}}
	amd := s.image(ocispec.Platform{OS: "linux", Architecture: "amd64"}, wasted...)
	arm := s.image(ocispec.Platform{OS: "linux", Architecture: "arm64"}, wasted...)
	clean := s.image(ocispec.Platform{OS: "linux", Architecture: "s390x"}, wasted[0])
	amd.Annotations = map[string]string{"com.example.note": "kept"}
	entries := []ocispec.Descriptor{amd, arm, clean, s.attestation(amd), s.attestation(arm),
		s.attestation(clean)}
	root := s.json(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex, Manifests: entries,
		Annotations: map[string]string{"org.opencontainers.image.title": "the index"},
	})
	if err := s.Tag(t.Context(), "app", root); err != nil {
		t.Fatal(err)
	}
	img, err := images.Resolve(t.Context(), "app", image.ResolveOptions{Any: true})
	if err != nil {
		t.Fatal(err)
	}
	dry, err := PruneIndex(t.Context(), st, images, img, PruneOptions{Base: noBase, DryRun: true})
	if err != nil || dry.Root.Digest != root.Digest || len(dry.Images) != 3 ||
		dry.Images[0].Bytes != 4 {
		t.Fatalf("a dry run: %+v, %v", dry, err)
	}
	res, err := PruneIndex(t.Context(), st, images, img, PruneOptions{Base: noBase})
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	s.read(res.Root, &index)
	var kept []string
	for _, d := range index.Manifests {
		kept = append(kept, d.Platform.Architecture)
	}
	if !slices.Equal(kept, []string{"amd64", "arm64", "s390x", "unknown"}) ||
		index.Annotations["org.opencontainers.image.title"] != "the index" {
		t.Fatalf("the index has %q, %v", kept, index.Annotations)
	}
	if d := index.Manifests[3]; d.Digest != entries[5].Digest {
		t.Errorf("attestation %s stays, want that of the image that did not change, %s",
			d.Digest, entries[5].Digest)
	}
	if len(res.Dropped) != 2 || index.Manifests[2].Digest != clean.Digest ||
		index.Manifests[0].Annotations["com.example.note"] != "kept" {
		t.Errorf("dropped %v, entries %+v", res.Dropped, index.Manifests)
	}
	for i := range 2 {
		var m ocispec.Manifest
		s.read(index.Manifests[i], &m)
		for k, l := range m.Layers {
			if len(l.Annotations) != 1 || l.Annotations["org.opencontainers.image.title"] == "" ||
				l.URLs != nil || l.Data != nil {
				t.Errorf("layer %d, written anew, says of the old bytes %+v", k, l)
			}
			if ok, err := s.Exists(t.Context(), l); !ok || err != nil {
				t.Errorf("layer %d is not in the store: %v", k, err)
			}
		}
	}
	var m ocispec.Manifest
	s.read(index.Manifests[2], &m)
	if len(m.Layers[0].Annotations) != 3 {
		t.Errorf("a layer that stays loses annotations: %+v", m.Layers[0])
	}
	if again, err := PruneIndex(t.Context(), st, images, img,
		PruneOptions{Base: noBase}); err != nil || again.Root.Digest != res.Root.Digest {
		t.Errorf("again: %v, %v, want %s", again.Root.Digest, err, res.Root.Digest)
	}
}
