package remotecache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/image"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobStore is a Store with the bytes of blobs.
type blobStore struct {
	*memory
	data  map[digest.Digest]string
	opens []ocispec.Descriptor
}

func newBlobStore() *blobStore {
	return &blobStore{memory: newMemory(), data: map[digest.Digest]string{}}
}

func (b *blobStore) Get(ctx context.Context, name string) ([]byte, *image.Artifact, error) {
	data, _, err := b.memory.Get(ctx, name)
	return data, image.ArtifactOf("memory", func(_ context.Context,
		d ocispec.Descriptor) (io.ReadCloser, error) {
		b.opens = append(b.opens, d)
		text, ok := b.data[d.Digest]
		if !ok {
			return nil, errors.New("no such blob")
		}
		return io.NopCloser(strings.NewReader(text)), nil
	}), err
}

// archive returns the copy of a mount with a content. Its diffID is that of the same bytes.
func (b *blobStore) archive(content string) MountCopy {
	d := digest.FromString(content)
	b.data[d] = content
	return MountCopy{ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerZstd, Digest: d,
		Size: int64(len(content))}, d}
}

// save saves the copy of a mount.
func save(t *testing.T, s *Shared, c MountCopy) bool {
	t.Helper()
	saved, err := s.SaveMount(t.Context(), goMount, func() (MountCopy, error) { return c, nil })
	if err != nil {
		t.Error(err)
	}
	return saved
}

// sharedMounts returns a Shared of a test on a store, with the warnings that it sends.
func sharedMounts(store Store, place string, key *Key) (*Shared, *[]string) {
	s, warnings := shared(nil, place)
	s.store, s.place.Key = store, key
	return s, warnings
}

// fetch fetches a mount and returns its content; "-" if there is none.
func fetch(t *testing.T, s *Shared, m Mount, limit int64) string {
	t.Helper()
	var got bytes.Buffer
	if !s.FetchMount(t.Context(), m, limit, func(_ context.Context,
		r io.Reader) (digest.Digest, error) {
		_, err := io.Copy(&got, r)
		return digest.FromBytes(got.Bytes()), err
	}) {
		return "-"
	}
	return got.String()
}

var goMount = Mount{Name: "name", ID: "/go", Platform: "linux/amd64"}

// TestMounts saves a mount and fetches it on other machines. The last one that is saved is fetched.
func TestMounts(t *testing.T) {
	store := newBlobStore()
	a, warnings := sharedMounts(store, "r.example.com/c", nil)
	if got := fetch(t, a, goMount, 100); got != "-" {
		t.Errorf("an empty cache has %q", got)
	}
	for _, content := range []string{"one", "two"} {
		if !save(t, a, store.archive(content)) {
			t.Error("not saved")
		}
		b, more := sharedMounts(store, "r.example.com/c,ro", nil)
		if got := fetch(t, b, goMount, 100); got != content {
			t.Errorf("fetched %q, want %q", got, content)
		}
		for _, other := range []Mount{{"name", "/go", "linux/arm64"}, {"other", "/go", "linux/amd64"}} {
			if got := fetch(t, b, other, 100); got != "-" {
				t.Errorf("%+v has %q", other, got)
			}
		}
		if save(t, b, store.archive("three")) {
			t.Error("saved to a read-only cache")
		}
		*warnings = append(*warnings, *more...)
	}
	if len(*warnings) > 0 || a.PlaceName() != "r.example.com/c" {
		t.Errorf("warnings %q, place %q", *warnings, a.PlaceName())
	}
}

// TestMountsRefused fetches mounts from documents and blobs that do not fit. Each is one warning.
func TestMountsRefused(t *testing.T) {
	key, err := ParseKey(bytes.Repeat([]byte("k"), 32))
	if err != nil {
		t.Fatal(err)
	}
	other, err := ParseKey(bytes.Repeat([]byte("o"), 32))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		key    *Key
		change func(b *blobStore, r *Record)
		want   string // a part of the warning
	}{
		{"nothing", nil, func(*blobStore, *Record) {}, ""},
		{"a signature", key, func(_ *blobStore, r *Record) { r.Signature = key.sign(*r) }, ""},
		{"no signature", key, func(*blobStore, *Record) {}, "without a signature"},
		{"another key", key, func(_ *blobStore, r *Record) { r.Signature = other.sign(*r) },
			"without a signature"},
		{"the signature of another mount", key, func(_ *blobStore, r *Record) {
			arm := *r
			arm.Key = Mount{goMount.Name, goMount.ID, "linux/arm64"}.key()
			r.Signature = key.sign(arm)
		}, "without a signature"},
		{"the document of another mount", nil, func(_ *blobStore, r *Record) {
			r.Key = Mount{goMount.Name, goMount.ID, "linux/arm64"}.key()
		}, "another cache mount"},
		{"no layer", nil, func(_ *blobStore, r *Record) { r.Layer = nil }, "another cache mount"},
		{"no blob", nil, func(b *blobStore, _ *Record) { clear(b.data) }, "no such blob"},
		{"another blob", nil, func(b *blobStore, r *Record) {
			b.data[r.Layer.Descriptor.Digest] = "uno"
		}, "another digest"},
		{"a blob that is too short", nil, func(b *blobStore, r *Record) {
			b.data[r.Layer.Descriptor.Digest] = "on"
		}, "it does not have 3 bytes"},
		{"a blob that is too long", nil, func(b *blobStore, r *Record) {
			b.data[r.Layer.Descriptor.Digest] = "one and more"
		}, "it does not have 3 bytes"},
		{"a digest that is none", nil, func(_ *blobStore, r *Record) {
			r.Layer.Descriptor.Digest = "sha256:../../x"
		}, "invalid"},
		{"a negative size", nil, func(_ *blobStore, r *Record) { r.Layer.Descriptor.Size = -1 },
			"-1 bytes"},
		{"a size above the limit", nil, func(_ *blobStore, r *Record) {
			r.Layer.Descriptor.Size = 101
		}, "its size is 101B, which is more than 100B"},
		{"another content", nil, func(_ *blobStore, r *Record) {
			r.Layer.DiffID = digest.FromString("two")
		}, "its content has another digest"},
		{"addresses", nil, func(_ *blobStore, r *Record) {
			r.Layer.Descriptor.URLs = []string{"http://169.254.169.254/"}
			r.Layer.Descriptor.MediaType = ocispec.MediaTypeImageManifest
			r.Layer.Descriptor.Data = []byte("one")
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := newBlobStore()
			c := store.archive("one")
			r := Record{Key: goMount.key(), Created: time.Now(), Written: time.Now(),
				Layer: &Layer{Descriptor: c.Descriptor, DiffID: c.DiffID}}
			tt.change(store, &r)
			data, err := json.Marshal(Document{Records: []Record{r}})
			if err != nil {
				t.Fatal(err)
			}
			store.docs[goMount.document()] = data
			s, warnings := sharedMounts(store, "r.example.com/c", tt.key)
			got := fetch(t, s, goMount, 100)
			if (got == "one") != (tt.want == "") {
				t.Errorf("fetched %q", got)
			}
			if tt.want == "" && len(*warnings) > 0 || tt.want != "" && (len(*warnings) != 1 ||
				!strings.Contains((*warnings)[0], tt.want)) {
				t.Errorf("warnings %q, want one with %q", *warnings, tt.want)
			}
			for _, d := range store.opens {
				if len(d.URLs) > 0 || len(d.Data) > 0 ||
					d.MediaType != ocispec.MediaTypeImageLayerZstd {
					t.Errorf("opened %+v", d)
				}
			}
		})
	}
}

// TestMountsSigned checks that what a Shared with a key saves, one with its public part fetches.
func TestMountsSigned(t *testing.T) {
	key, err := ParseKey(bytes.Repeat([]byte("k"), 32))
	if err != nil {
		t.Fatal(err)
	}
	store := newBlobStore()
	a, _ := sharedMounts(store, "r.example.com/c", key)
	save(t, a, store.archive("one"))
	b, warnings := sharedMounts(store, "r.example.com/c,ro", key)
	if got := fetch(t, b, goMount, 100); got != "one" || len(*warnings) > 0 {
		t.Errorf("fetched %q, warnings %q", got, *warnings)
	}
}

// TestMountsFail checks that a store that refuses a mount is one warning, and that the following
// mounts are not sent. Steps are still written.
func TestMountsFail(t *testing.T) {
	store := newBlobStore()
	store.putErr = errors.New("too large")
	s, warnings := sharedMounts(store, "r.example.com/c", nil)
	for range 2 {
		if save(t, s, store.archive("one")) {
			t.Error("saved")
		}
	}
	if want := []string{"cache mounts are not saved to r.example.com/c: too large"}; !slices.Equal(
		*warnings, want) || s.unwritable {
		t.Errorf("warnings %q, want %q; steps are not written: %t", *warnings, want, s.unwritable)
	}

	broken := errors.New("changed")
	s, warnings = sharedMounts(store, "r.example.com/c", nil)
	if saved, err := s.SaveMount(t.Context(), goMount, func() (MountCopy, error) {
		return MountCopy{}, broken
	}); saved || !errors.Is(err, broken) || len(*warnings) > 0 {
		t.Errorf("SaveMount = %t, %v, warnings %q, want the error of seal", saved, err, *warnings)
	}

	store.getErr = errors.New("broken")
	s, warnings = sharedMounts(store, "r.example.com/c", nil)
	for range 2 {
		if got := fetch(t, s, goMount, 100); got != "-" {
			t.Errorf("fetched %q", got)
		}
	}
	if len(*warnings) != 1 || !strings.Contains((*warnings)[0], "is not read: broken") {
		t.Errorf("warnings %q", *warnings)
	}
}

// TestMountsRefreshed checks that a document that is used is written again when it is old, so that
// prune does not delete it, and not to a read-only cache.
func TestMountsRefreshed(t *testing.T) {
	store := newBlobStore()
	a, _ := sharedMounts(store, "r.example.com/c", nil)
	c := store.archive("one")
	save(t, a, c)
	old := Record{Key: goMount.key(), Created: time.Now(), Written: time.Now().Add(-refreshAge),
		Layer: &Layer{Descriptor: c.Descriptor, DiffID: c.DiffID}}
	data, err := json.Marshal(Document{Records: []Record{old}})
	if err != nil {
		t.Fatal(err)
	}
	store.docs[goMount.document()] = data
	for _, tt := range []struct {
		place string
		puts  int
	}{{"r.example.com/c,ro", 1}, {"r.example.com/c", 2}, {"r.example.com/c", 2}} {
		s, warnings := sharedMounts(store, tt.place, nil)
		if got := fetch(t, s, goMount, 100); got != "one" || store.puts != tt.puts ||
			len(*warnings) > 0 {
			t.Errorf("%s: fetched %q, written %d times, want %d; warnings %q", tt.place, got,
				store.puts, tt.puts, *warnings)
		}
	}
}
