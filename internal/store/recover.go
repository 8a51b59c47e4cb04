package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerbuild/layerbuild/internal/smallfile"
)

// indexError is returned for an index.json that is not valid.
type indexError struct{ error }

// Unwrap returns the reason.
func (e indexError) Unwrap() error { return e.error }

// readIndex reads index.json. It accepts a file that another tool has written. A file that this
// program has written must still have the same bytes.
func (s *Store) readIndex() (index, error) {
	data, err := smallfile.Read(s.index())
	if errors.Is(err, fs.ErrNotExist) && s.fresh() {
		return index{fields: map[string]json.RawMessage{}}, nil
	}
	if err != nil {
		return index{}, fmt.Errorf("read index.json: %w", err)
	}
	ix, err := parseIndex(data)
	if err != nil {
		return index{}, err
	}
	if c, err := s.readCopy(); err == nil && c.madeFrom(s.index()) && !bytes.Equal(c.data, data) {
		return index{}, indexError{errors.New(
			"read index.json: its bytes have changed since it was written")}
	}
	return ix, nil
}

// fresh reports whether the layout has never had an image. If it has had one, a missing index.json
// was lost.
func (s *Store) fresh() bool {
	for _, path := range []string{s.oldIndex(), s.indexCopy()} {
		if _, err := os.Lstat(path); err == nil {
			return false
		}
	}
	dir, err := os.Open(filepath.Join(s.dir, "blobs", "sha256"))
	if err != nil {
		return true
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(1)
	return len(names) == 0
}

// oldIndex returns the path of the version of index.json before the last change.
func (s *Store) oldIndex() string { return s.index() + ".old" }

// indexCopy returns the path of a copy of index.json with a checksum.
func (s *Store) indexCopy() string { return s.index() + ".copy" }

// copied is the content of indexCopy: a line that identifies the copied version of index.json, and
// its bytes.
type copied struct {
	file string
	data []byte
}

// identity returns the attributes of a file that change when the file is written or replaced.
// Damage on the disk does not change them, and they are the same in a copy of the whole state
// directory that keeps times.
func identity(path string) (string, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("mtime %d size %d", fi.ModTime().UnixNano(), fi.Size()), nil
}

// madeFrom reports whether the file at path is the version that was copied.
func (c copied) madeFrom(path string) bool {
	now, err := identity(path)
	return err == nil && now == c.file
}

func (s *Store) readCopy() (copied, error) {
	all, err := smallfile.Read(s.indexCopy())
	if err != nil {
		return copied{}, err
	}
	head, data, ok := bytes.Cut(all, []byte("\n"))
	file, sum, ok2 := strings.Cut(string(head), " sha256 ")
	if !ok || !ok2 || sum != fmt.Sprintf("%x", sha256.Sum256(append([]byte(file+"\n"), data...))) {
		return copied{}, indexError{errors.New("read index.json.copy: it is damaged")}
	}
	return copied{file, data}, nil
}

// writeIndex replaces index.json. The caller holds the lock.
func (s *Store) writeIndex(data []byte) error {
	// The old version is only for recovery, so ignore errors.
	if os.RemoveAll(s.oldIndex()) == nil {
		_ = os.Link(s.index(), s.oldIndex())
	}
	if err := s.replace(ocispec.ImageIndexFile, data); err != nil {
		return err
	}
	return s.writeCopy(data)
}

// writeCopy writes in place: a partly written copy has a wrong checksum.
func (s *Store) writeCopy(data []byte) error {
	file, err := identity(s.index())
	if err != nil {
		return err
	}
	sum := sha256.Sum256(append([]byte(file+"\n"), data...))
	all := append(fmt.Appendf(nil, "%s sha256 %x\n", file, sum), data...)
	err = os.WriteFile(s.indexCopy(), all, 0o644)
	if unreadable(err) && os.RemoveAll(s.indexCopy()) == nil {
		err = os.WriteFile(s.indexCopy(), all, 0o644)
	}
	return err
}

// recovered takes the lock and calls recover. It waits for the lock until ctx ends.
func (s *Store) recovered(ctx context.Context, why error) (index, error) {
	held, err := s.lock(ctx)
	if err != nil {
		return index{}, errors.Join(why, err)
	}
	defer held.Close()
	return s.recover(ctx, why)
}

// lockedIndex reads index.json, and recovers it if it is damaged. The caller holds the lock.
func (s *Store) lockedIndex(ctx context.Context) (index, error) {
	ix, err := s.readIndex()
	if err != nil {
		return s.recover(ctx, err)
	}
	return ix, nil
}

// recover replaces a damaged index.json by its copy. Without a copy of the same version, names may
// be lost. Therefore it adds a name for each image in the store to which no name refers: garbage
// collections keep images with names. It keeps the damaged file beside index.json. The caller holds
// the lock.
func (s *Store) recover(ctx context.Context, why error) (index, error) {
	if ix, err := s.readIndex(); err == nil {
		return ix, nil // another process has recovered it
	}
	var content indexError
	if !errors.As(why, &content) && !errors.Is(why, fs.ErrNotExist) && !unreadable(why) {
		return index{}, why
	}
	ix, note, whole := s.lastIndex()
	if !whole {
		n, err := s.nameUnknown(ctx, &ix)
		if err != nil {
			return index{}, errors.Join(why, err)
		}
		if n > 0 {
			note += fmt.Sprintf(", and %d images without a name are now named %s:DIGEST "+
				"('layerbuild tag' adds names, 'layerbuild rm' removes them)", n, recoveredName)
		}
	}
	aside := s.index() + ".damaged"
	if err := os.RemoveAll(aside); err != nil {
		return index{}, errors.Join(why, err)
	}
	switch err := os.Rename(s.index(), aside); {
	case err == nil:
		note += "; the damaged file is kept as " + aside
	case !errors.Is(err, fs.ErrNotExist):
		return index{}, errors.Join(why, err)
	}
	data, err := ix.encode()
	if err == nil {
		err = s.replace(ocispec.ImageIndexFile, data)
	}
	if err == nil {
		err = s.writeCopy(data)
	}
	if err != nil {
		return index{}, errors.Join(why, err)
	}
	s.warn("%v: %s", why, note)
	return ix, nil
}

// lastIndex returns the newest version of index.json that can be read, and a note for the warning.
// whole reports whether it is the same version as the damaged one.
func (s *Store) lastIndex() (ix index, note string, whole bool) {
	if c, err := s.readCopy(); err == nil {
		if ix, err := parseIndex(c.data); err == nil {
			if c.madeFrom(s.index()) {
				return ix, "it was restored from its copy, and no name is lost", true
			}
			return ix, "the names are those that layerbuild wrote last", false
		}
	}
	if data, err := smallfile.Read(s.oldIndex()); err == nil {
		if ix, err := parseIndex(data); err == nil {
			return ix, "the names are those before the last change", false
		}
	}
	return index{fields: map[string]json.RawMessage{}}, "the names of all images are lost", false
}

// recoveredName is the repository of images whose names may be lost. The tag is the beginning of
// the digest.
const recoveredName = "localhost/recovered"

// nameUnknown adds names for the images in the store that the index does not refer to, and returns
// their number. It returns the cause when ctx ends: it may then have missed references.
func (s *Store) nameUnknown(ctx context.Context, ix *index) (int, error) {
	known := map[digest.Digest]bool{}
	for _, d := range ix.manifests {
		s.walk(ctx, d, known, func(ocispec.Descriptor, *ocidoc.Document) {})
	}
	blobs, err := s.Blobs()
	if err = errors.Join(err, context.Cause(ctx)); err != nil {
		return 0, err
	}
	found := map[digest.Digest]ocispec.Descriptor{}
	below := map[digest.Digest]bool{}
	for d, size := range blobs {
		if known[d] || size > ocidoc.MaxDocument {
			continue
		}
		if mediaType, doc := s.image(d, size); doc != nil {
			found[d] = ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: size}
			for _, c := range doc.Children() {
				below[c.Digest] = true
			}
		}
	}
	n := 0
	for _, key := range slices.Sorted(maps.Keys(found)) {
		d := found[key]
		if below[key] {
			continue
		}
		name := recoveredName + ":" + d.Digest.Encoded()[:12]
		d.Annotations = map[string]string{
			ocispec.AnnotationRefName: name, ocidoc.AnnotationName: name,
			annotationTagged: time.Now().UTC().Format(time.RFC3339Nano),
		}
		ix.manifests = append(ix.manifests, d)
		n++
	}
	return n, nil
}

// image reads a blob as the manifest or index of an image. It returns nil for other blobs and for a
// damaged one.
func (s *Store) image(d digest.Digest, size int64) (mediaType string, doc *ocidoc.Document) {
	f, err := s.OpenBlob(d)
	if err != nil {
		return "", nil
	}
	var first [1]byte
	n, _ := f.Read(first[:])
	f.Close()
	if n == 0 || first[0] != '{' { // most blobs are compressed, and need not be read
		return "", nil
	}
	data, err := s.read(ocispec.Descriptor{Digest: d, Size: size})
	if err != nil {
		return "", nil
	}
	if mediaType, err = ocidoc.TypeOf(data); err != nil {
		return "", nil
	}
	if doc, err = ocidoc.Parse(data); err != nil {
		return "", nil
	}
	return mediaType, doc
}
