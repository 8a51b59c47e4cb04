package build_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestImportThatLies exports results, changes the records or the layers of the export, and checks
// what another machine makes of it: it runs the steps whose records are wrong, and its image is the
// same as without an import.
func TestImportThatLies(t *testing.T) {
	const dockerfile = "FROM scratch\nRUN write a 1\nRUN write b 2\n"
	const more = dockerfile + "RUN write c 3\n"
	other := digest.FromString("other")
	for _, tt := range []struct {
		name string
		// lie changes the record of the step "write b 2".
		lie   func(dir string, r *remotecache.Record)
		ran   []string
		warns string
	}{
		{name: "nothing", lie: func(string, *remotecache.Record) {}},
		{
			name: "the blob has another content",
			lie: func(dir string, r *remotecache.Record) {
				damage(dir, r.Layer.Descriptor)
			},
			ran: []string{"write b 2"}, warns: "is damaged: its digest is",
		},
		{
			name: "the diffID is that of another content",
			lie:  func(_ string, r *remotecache.Record) { r.Layer.DiffID = other },
			ran:  []string{"write b 2"}, warns: "its content has the digest",
		},
		{
			name: "the diffID is no digest",
			lie:  func(_ string, r *remotecache.Record) { r.Layer.DiffID = "other" },
			ran:  []string{"write b 2"}, warns: "invalid checksum digest format",
		},
		{
			name: "the size is wrong",
			lie:  func(_ string, r *remotecache.Record) { r.Layer.Descriptor.Size++ },
			ran:  []string{"write b 2"}, warns: "is damaged: it has",
		},
		{
			name: "the layer is no tar",
			lie: func(dir string, r *remotecache.Record) {
				text := []byte("text that is no tar\n")
				r.Layer.Descriptor = putBlob(dir, ocispec.MediaTypeImageLayer, text)
				r.Layer.DiffID = digest.FromBytes(text)
			},
			ran: []string{"write b 2"}, warns: "read layer: unexpected EOF",
		},
		{
			name: "the parent is another",
			lie:  func(_ string, r *remotecache.Record) { r.Layer.Parent = other },
			ran:  []string{"write b 2"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cache")
			at := int64(1_000_000_000)
			o := imagebuild.Options{Image: imagebuild.ImageOptions{Epoch: &at}}
			first := newBench(t, "copy")
			first.real()
			o.Cache.To = places("type=local,dest=" + dir)
			made, _ := first.must(dockerfile, o)
			layer := first.manifest(made).Layers[1]
			forge(t, dir, func(doc *remotecache.Document) {
				for i, r := range doc.Records {
					if r.Layer != nil && r.Layer.Descriptor.Digest == layer.Digest {
						tt.lie(dir, &doc.Records[i])
					}
				}
			})
			from, err := remotecache.ParseFrom("type=local,src=" + dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, shared := range []bool{false, true} {
				second := newBench(t, "copy")
				second.real()
				o.Cache = importing(second, from, shared)
				res, ran := second.must(dockerfile, o)
				second.want("the other machine", ran, tt.ran...)
				if res.Root.Digest != made.Root.Digest {
					t.Errorf("the other machine makes %s, the first %s",
						res.Root.Digest, made.Root.Digest)
				}
				w := strings.Join(second.warnings(), "\n")
				if (tt.warns == "") != (w == "") || !strings.Contains(w, tt.warns) {
					t.Errorf("warnings %q, want %q", w, tt.warns)
				}
				third := newBench(t, "copy")
				third.real()
				o.Cache = importing(third, from, shared)
				_, ran = third.must(more, o)
				third.want("a step on it", ran, append(slices.Clone(tt.ran), "write c 3")...)
			}
		})
	}
}

// importing returns the options of a build that imports the cache in a layout: by --cache-from, or
// as a shared cache, whose layers are fetched later.
func importing(b *bench, from remotecache.Place, shared bool) imagebuild.CacheOptions {
	if !shared {
		return imagebuild.CacheOptions{From: []remotecache.Place{from}}
	}
	return imagebuild.CacheOptions{Shared: []imagebuild.SharedCache{{
		Place: remotecache.SharedPlace{Ref: from.Dir, ReadOnly: true}, Store: hintOf{b, from.Dir}}}}
}

// hintOf is a remotecache.Store that has only a hint, with the records of a cache in a layout.
type hintOf struct {
	b   *bench
	dir string
}

func (h hintOf) Get(ctx context.Context, name string) ([]byte, *image.Artifact, error) {
	if !strings.Contains(name, "hint") {
		return nil, nil, remotecache.ErrNoDocument
	}
	a, err := h.b.resolver.Artifact(ctx, image.SchemeLayout+h.dir+":latest", image.ResolveOptions{})
	if err != nil {
		return nil, nil, err
	}
	return a.Config, a, nil
}

func (h hintOf) Put(context.Context, string, []byte, []ocispec.Descriptor) error {
	return errors.New("it is read-only")
}

func (h hintOf) Send(context.Context, ocispec.Descriptor) error {
	return errors.New("it is read-only")
}

// TestImportThatCannotBeUnpacked imports a layer that is a valid tar, but has a hard link to a file
// that does not exist. Only unpacking finds this. A build that needs the files fails with an error
// that names the cache and tells what to do, and the build without the cache succeeds.
func TestImportThatCannotBeUnpacked(t *testing.T) {
	const dockerfile = "FROM scratch\nRUN write a 1\nRUN write b 2\n"
	dir := filepath.Join(t.TempDir(), "cache")
	first := newBench(t, "copy")
	first.real()
	made, _ := first.must(dockerfile, imagebuild.Options{
		Cache: imagebuild.CacheOptions{To: places("type=local,dest=" + dir)}})
	layer := first.manifest(made).Layers[1]
	forge(t, dir, func(doc *remotecache.Document) {
		for i, r := range doc.Records {
			if r.Layer != nil && r.Layer.Descriptor.Digest == layer.Digest {
				var b bytes.Buffer
				w := tar.NewWriter(&b)
				h := &tar.Header{Typeflag: tar.TypeLink, Name: "b", Linkname: "missing"}
				if err := errors.Join(w.WriteHeader(h), w.Close()); err != nil {
					t.Fatal(err)
				}
				l := doc.Records[i].Layer
				l.Descriptor = putBlob(dir, ocispec.MediaTypeImageLayer, b.Bytes())
				l.DiffID = digest.FromBytes(b.Bytes())
			}
		}
	})
	from, err := remotecache.ParseFrom("type=local,src=" + dir)
	if err != nil {
		t.Fatal(err)
	}
	more := dockerfile + "RUN write c 3\n"
	second := newBench(t, "copy")
	second.real()
	_, ran, err := second.build(t.Context(), more, imagebuild.Options{
		Cache: importing(second, from, false)})
	if err == nil {
		t.Fatalf("the build succeeded, and ran %q", ran)
	}
	for _, want := range []string{"Dockerfile:4", "hard link to \"missing\"", dir, "without --cache-from"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not contain %q", err, want)
		}
	}
	// A build with a shared cache starts again without the layer.
	second = newBench(t, "copy")
	second.real()
	_, ran = second.must(more, imagebuild.Options{Cache: importing(second, from, true)})
	second.want("with a shared cache", ran, "write b 2", "write c 3")

	third := newBench(t, "copy")
	third.real()
	_, ran = third.must(more, imagebuild.Options{})
	third.want("without the cache", ran, "write a 1", "write b 2", "write c 3")
}

// forge changes the records of a cache in a layout.
func forge(t *testing.T, dir string, change func(*remotecache.Document)) {
	t.Helper()
	read := func(d digest.Digest, v any) {
		data, err := os.ReadFile(blobPath(dir, d))
		if err == nil {
			err = json.Unmarshal(data, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	encode := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	index := filepath.Join(dir, ocispec.ImageIndexFile)
	data, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	var ix ocispec.Index
	if err := json.Unmarshal(data, &ix); err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	read(ix.Manifests[0].Digest, &m)
	var doc remotecache.Document
	read(m.Config.Digest, &doc)
	change(&doc)
	m.Config = putBlob(dir, m.Config.MediaType, encode(doc))
	d := putBlob(dir, ix.Manifests[0].MediaType, encode(m))
	ix.Manifests[0].Digest, ix.Manifests[0].Size = d.Digest, d.Size
	if err := os.WriteFile(index, encode(ix), 0o644); err != nil {
		t.Fatal(err)
	}
}

func blobPath(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded())
}

// putBlob writes a blob of a layout.
func putBlob(dir, mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data),
		Size: int64(len(data))}
	if err := os.WriteFile(blobPath(dir, d.Digest), data, 0o644); err != nil {
		panic(err)
	}
	return d
}

// damage changes a byte of a blob.
func damage(dir string, d ocispec.Descriptor) {
	path := blobPath(dir, d.Digest)
	data, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o644); err != nil {
		panic(err)
	}
}
