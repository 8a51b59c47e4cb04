package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/sorting"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// annotationTagged is the annotation with the time when the image got its name, in RFC 3339. Other
// tools ignore it.
const annotationTagged = "com.github.layerbuild.tagged"

// Name returns the full form of an image name, under which the store has the image: see
// reference.Full.
func Name(s string) (string, error) {
	n, err := reference.Full(s)
	if err != nil {
		return "", err
	}
	return n.String(), nil
}

// Entry is one entry of the store's index.
type Entry struct {
	Name       string // full name; "" for an image without a name
	Descriptor ocispec.Descriptor
	Tagged     time.Time // when the image got its name; zero if another tool wrote the entry
}

// Tag gives a name to an image, and removes the name from the image that had it before. If the name
// is "", the image is stored without a name. The blob must be in the store.
func (s *Store) Tag(ctx context.Context, name string, d ocispec.Descriptor) error {
	full := ""
	if name != "" {
		var err error
		if full, err = Name(name); err != nil {
			return err
		}
		if strings.Contains(full, "@") {
			return fmt.Errorf("image name %q: a name that is given to an image has no digest", name)
		}
	}
	if err := s.lease(ctx, d.Digest, true); err != nil {
		return err
	}
	if ok, err := s.Exists(ctx, d); err != nil || !ok {
		return errors.Join(fmt.Errorf("name image %s %q: blob: %w", d.Digest, name, ErrNotFound),
			err)
	}
	entry := ocispec.Descriptor{
		MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform,
		ArtifactType: d.ArtifactType,
		Annotations: map[string]string{
			annotationTagged: time.Now().UTC().Format(time.RFC3339Nano)},
	}
	if full != "" {
		entry.Annotations[ocispec.AnnotationRefName] = full
		entry.Annotations[ocidoc.AnnotationName] = full
	}
	return s.update(ctx, func(list []ocispec.Descriptor) []ocispec.Descriptor {
		list = slices.DeleteFunc(list, func(e ocispec.Descriptor) bool {
			n := entryName(e)
			return n == full && (full != "" || e.Digest == d.Digest)
		})
		return append(list, entry)
	})
}

// Untag removes a name, or all names of the image with that digest, and returns the entries that
// were removed. The image's blobs are kept until Collect finds that they are not needed. It returns
// ErrNotFound when there is no such name.
func (s *Store) Untag(ctx context.Context, name string) ([]Entry, error) {
	match, err := matcher(name)
	if err != nil {
		return nil, err
	}
	var removed []ocispec.Descriptor
	err = s.update(ctx, func(list []ocispec.Descriptor) []ocispec.Descriptor {
		return slices.DeleteFunc(list, func(e ocispec.Descriptor) bool {
			hit := match(e)
			if hit {
				removed = append(removed, e)
			}
			return hit
		})
	})
	if err == nil && len(removed) == 0 {
		err = fmt.Errorf("image %s: %w", name, ErrNotFound)
	}
	return entries(removed), err
}

// matcher returns a function that reports whether an entry has the name or digest.
func matcher(name string) (func(ocispec.Descriptor) bool, error) {
	if d := digest.Digest(name); d.Validate() == nil {
		return func(e ocispec.Descriptor) bool { return e.Digest == d }, nil
	}
	full, err := Name(name)
	if err != nil {
		return nil, err
	}
	return func(e ocispec.Descriptor) bool { return entryName(e) == full }, nil
}

// Resolve returns the image with that name: "app", "app:latest" and "docker.io/library/app:latest"
// are the same name. A name may also be a digest or end with one ("app@sha256:…"): the digest of a
// manifest or an index in the store, or of a config (docker's image ID). It returns ErrNotFound
// when there is none. See ResolveID for the beginning of a digest.
func (s *Store) Resolve(ctx context.Context, name string) (ocispec.Descriptor, error) {
	list, err := s.list(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if d := digest.Digest(name); d.Validate() == nil {
		return s.resolveDigest(ctx, list, d)
	}
	full, err := Name(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	// Another tool may have written two entries; use the last one.
	for _, e := range slices.Backward(list) {
		if entryName(e) == full {
			return plain(e), nil
		}
	}
	if _, d, ok := strings.Cut(full, "@"); ok {
		return s.resolveDigest(ctx, list, digest.Digest(d))
	}
	return ocispec.Descriptor{}, fmt.Errorf("image %s: %w", full, ErrNotFound)
}

// resolveDigest looks for a digest first among the entries, and then among the documents below
// them.
func (s *Store) resolveDigest(ctx context.Context, list []ocispec.Descriptor,
	want digest.Digest) (ocispec.Descriptor, error) {
	for _, e := range list {
		if e.Digest == want {
			return plain(e), nil
		}
	}
	return s.identify(ctx, list, want.String(), func(d digest.Digest) bool { return d == want })
}

// Names returns the entries of the store, sorted by name. Images without a name come first.
func (s *Store) Names(ctx context.Context) ([]Entry, error) {
	list, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	return entries(list), nil
}

// entries returns the entries for descriptors of the index, in the order of their names.
func entries(list []ocispec.Descriptor) []Entry {
	out := make([]Entry, 0, len(list))
	for _, e := range list {
		t, _ := time.Parse(time.RFC3339Nano, e.Annotations[annotationTagged])
		out = append(out, Entry{Name: entryName(e), Descriptor: plain(e), Tagged: t})
	}
	sorting.StableFunc(out, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// entryName returns the full name of an entry that any tool wrote; "" if it has no valid name.
func entryName(e ocispec.Descriptor) string {
	if e.Annotations[annotationTagged] != "" {
		return e.Annotations[ocidoc.AnnotationName] // written by Tag, so it is a full name
	}
	for _, a := range []string{ocidoc.AnnotationName, ocispec.AnnotationRefName} {
		n := e.Annotations[a]
		if n == "" {
			continue
		}
		if full, err := Name(n); err == nil {
			return full
		}
	}
	return ""
}

// plain returns an entry without the annotations that only concern the index.
func plain(e ocispec.Descriptor) ocispec.Descriptor {
	var kept map[string]string
	for k, v := range e.Annotations {
		switch k {
		case ocispec.AnnotationRefName, ocidoc.AnnotationName, annotationTagged:
		default:
			if kept == nil {
				kept = map[string]string{}
			}
			kept[k] = v
		}
	}
	e.Annotations = kept
	return e
}

// index is the content of index.json. An update keeps fields that are not in the specification
// (yet).
type index struct {
	fields    map[string]json.RawMessage
	manifests []ocispec.Descriptor
}

// parseIndex does not use ocijson: this program writes the file itself, and ocijson.MaxValues would
// limit the number of names to some 20,000.
func parseIndex(data []byte) (index, error) {
	ix := index{fields: map[string]json.RawMessage{}}
	if err := json.Unmarshal(data, &ix.fields); err != nil {
		return index{}, indexError{fmt.Errorf("read index.json: %w", err)}
	}
	if ix.fields == nil { // "null"
		ix.fields = map[string]json.RawMessage{}
	}
	if m := ix.fields["manifests"]; m != nil {
		if err := json.Unmarshal(m, &ix.manifests); err != nil {
			return index{}, indexError{fmt.Errorf("read index.json: manifests: %w", err)}
		}
	}
	for i, d := range ix.manifests {
		if err := d.Digest.Validate(); err != nil {
			return index{}, indexError{fmt.Errorf("read index.json: manifest %d: digest %q: %w", i,
				d.Digest, err)}
		}
		if d.Size < 0 {
			return index{}, indexError{fmt.Errorf("read index.json: manifest %s: size %d", d.Digest,
				d.Size)}
		}
	}
	return ix, nil
}

func (ix index) encode() ([]byte, error) {
	fields := make(map[string]json.RawMessage, len(ix.fields)+3)
	for k, v := range ix.fields {
		fields[k] = v
	}
	fields["schemaVersion"] = json.RawMessage("2")
	if fields["mediaType"] == nil {
		fields["mediaType"] = json.RawMessage(`"` + ocispec.MediaTypeImageIndex + `"`)
	}
	if ix.manifests == nil {
		ix.manifests = []ocispec.Descriptor{}
	}
	m, err := json.Marshal(ix.manifests)
	if err != nil {
		return nil, err
	}
	fields["manifests"] = m
	return json.Marshal(fields)
}

// indexCache keeps the parsed index.json, so that a build that resolves several names parses it
// once.
type indexCache struct {
	mu   sync.Mutex
	file fs.FileInfo
	list []ocispec.Descriptor
}

// list returns the current entries of index.json. The caller must not change them.
func (s *Store) list(ctx context.Context) ([]ocispec.Descriptor, error) {
	fi, err := os.Stat(s.index())
	if err == nil {
		s.cache.mu.Lock()
		c := s.cache.file
		list, known := s.cache.list, c != nil && os.SameFile(c, fi) &&
			c.ModTime().Equal(fi.ModTime()) && c.Size() == fi.Size()
		s.cache.mu.Unlock()
		if known {
			return list, nil
		}
	}
	ix, err := s.readIndex()
	if err != nil {
		if ix, err = s.recovered(ctx, err); err != nil {
			return nil, err
		}
		fi = nil
	}
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	s.cache.file, s.cache.list = fi, ix.manifests
	return ix.manifests, nil
}

// update changes index.json under the lock.
func (s *Store) update(ctx context.Context,
	change func([]ocispec.Descriptor) []ocispec.Descriptor) error {
	held, err := s.lock(ctx)
	if err != nil {
		return fmt.Errorf("lock index.json: %w", err)
	}
	defer held.Close()
	ix, err := s.lockedIndex(ctx)
	if err != nil {
		return err
	}
	ix.manifests = change(ix.manifests)
	data, err := ix.encode()
	if err != nil {
		return fmt.Errorf("write index.json: %w", err)
	}
	if err := s.writeIndex(data); err != nil {
		return fmt.Errorf("write index.json: %w", err)
	}
	return nil
}
