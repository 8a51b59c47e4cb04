package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "crypto/sha512" // the other algorithm that the image specification has
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/lock"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/smallfile"
)

// ErrNotFound is returned for an unknown name or a missing blob. It is also an fs.ErrNotExist.
var ErrNotFound error = notFoundError{}

type notFoundError struct{}

func (notFoundError) Error() string        { return "not in the store" }
func (notFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// ErrDamaged is returned for a blob that cannot be read, or whose bytes do not match its digest.
var ErrDamaged = errors.New("damaged")

// BlobError is returned for a missing or damaged blob. It wraps ErrNotFound or ErrDamaged. A
// damaged blob has been removed.
type BlobError struct {
	Digest digest.Digest
	Err    error
	// Remedy is advice for the user, if Repair cannot restore the blob.
	Remedy string
}

// Error returns a message with the blob, its damage and the remedy.
func (e *BlobError) Error() string {
	text := fmt.Sprintf("blob %s %v", e.Digest, e.Err)
	if e.Remedy != "" {
		text += ": " + e.Remedy
	}
	return text
}

// Unwrap returns the cause.
func (e *BlobError) Unwrap() error { return e.Err }

// Retry calls do again if its error is a *BlobError, once for each blob: the damaged blob has been
// removed, and is repaired when it is fetched again.
func Retry(do func() error) error {
	met := map[digest.Digest]bool{}
	for {
		err := do()
		var bad *BlobError
		if !errors.As(err, &bad) || bad.Remedy != "" || met[bad.Digest] {
			return err
		}
		met[bad.Digest] = true
	}
}

// Store is an OCI image layout. It is safe for concurrent use, also by several processes.
type Store struct {
	dir   string
	o     Options
	cache *indexCache

	// Repair is called for a blob that cannot be read, to store it again; nil: there is no repair.
	// It must be set before the store is used. Open cannot have it as an option: it fetches blobs
	// with a resolver, which needs the open store.
	Repair func(ctx context.Context, d ocispec.Descriptor, why *BlobError) error

	written *written
}

// Options are the options of a store. The zero value is a store that no other process collects.
type Options struct {
	// Warn is called with a message about damage; may be nil.
	Warn func(message string)
	// Lease is called with a blob before the blob is looked up or gets its name: from then on no
	// collector may remove it. If image is set, no collector may remove any blob to which it
	// refers, either. Lease may wait for a collector, which locks index.json, so it is not called
	// while index.json is locked. It waits until the context ends. If it returns an error, the blob
	// is not used. If Lease is nil, no collector may run while the store is open.
	Lease func(ctx context.Context, d digest.Digest, image bool) error
	// Owner is a part of the names of this process's temporary files, which identifies them for
	// collectors; may be "".
	Owner string
	// Stamps keeps the stamps of verified blobs; nil: every reader verifies the blob.
	Stamps Stamps
}

// WithoutRepair returns the same store without Repair, for a caller that must not change it.
func (s *Store) WithoutRepair() *Store {
	other := *s
	other.Repair = nil
	return &other
}

func (s *Store) lease(ctx context.Context, d digest.Digest, image bool) error {
	if s.o.Lease == nil {
		return nil
	}
	return s.o.Lease(ctx, d, image)
}

func (s *Store) warn(format string, args ...any) {
	if s.o.Warn != nil {
		s.o.Warn(fmt.Sprintf(format, args...))
	}
}

// Open opens the layout in dir. It makes the layout and the parents of dir if they do not exist,
// and may then wait for the lock of index.json until ctx ends.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	s := &Store{dir: dir, o: o, cache: &indexCache{}, written: &written{}}
	// For an existing layout two calls of lstat(2) are enough, because index.json is made last.
	_, err := os.Lstat(s.index())
	_, err2 := os.Lstat(filepath.Join(dir, ocispec.ImageLayoutFile))
	if err == nil && err2 == nil {
		return s, nil
	}
	for _, d := range []string{s.tmp(), filepath.Join(dir, "blobs", "sha256")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("open the image store: %w", err)
		}
	}
	held, err := s.lock(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the image store: %w", err)
	}
	defer held.Close()
	for _, f := range []struct{ name, data string }{
		{ocispec.ImageLayoutFile, ocidoc.LayoutFile},
		{ocispec.ImageIndexFile, `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex +
			`","manifests":[]}`},
	} {
		if _, err := os.Lstat(filepath.Join(dir, f.name)); err == nil {
			continue
		}
		if f.name == ocispec.ImageIndexFile && !s.fresh() {
			continue // the file is missing: it is recovered when it is read
		}
		if err := s.replace(f.name, []byte(f.data)); err != nil {
			return nil, fmt.Errorf("open the image store: %w", err)
		}
	}
	return s, nil
}

// Dir returns the layout's directory.
func (s *Store) Dir() string { return s.dir }

// lock prevents other processes from changing names until the file is closed. It waits until ctx
// ends.
func (s *Store) lock(ctx context.Context) (*lock.Held, error) {
	return lock.Acquire(ctx, filepath.Join(s.dir, "lock"), true)
}

func (s *Store) tmp() string   { return filepath.Join(s.dir, "tmp") }
func (s *Store) index() string { return filepath.Join(s.dir, ocispec.ImageIndexFile) }

// Path returns the path of the blob, which need not exist. It returns "" for a digest that is not
// valid, so that a digest from an untrusted source never refers to another file.
func (s *Store) Path(d digest.Digest) string {
	if d.Validate() != nil {
		return ""
	}
	return filepath.Join(s.dir, "blobs", d.Algorithm().String(), d.Encoded())
}

// Exists reports whether the store has the blob, with its full size. It does not read the blob. If
// the file at the blob's path has another size or is not a regular file, Exists removes it.
func (s *Store) Exists(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	if err := s.lease(ctx, d.Digest, false); err != nil {
		return false, err
	}
	return s.exists(d)
}

func (s *Store) exists(d ocispec.Descriptor) (bool, error) {
	path := s.Path(d.Digest)
	if path == "" {
		return false, fmt.Errorf("look up blob %q: not a digest", d.Digest)
	}
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || unreadable(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up blob: %w", err)
	}
	switch {
	case !fi.Mode().IsRegular():
		_ = s.damaged(d, nil, errNotFile)
		return false, nil
	case fi.Size() != d.Size:
		_ = s.damaged(d, nil, matches(d, "", fi.Size()))
		return false, nil
	}
	return true, nil
}

// Ingest stores the output of write as a blob and returns its descriptor. It stores nothing if
// write returns an error. It succeeds if the store already has the content.
func (s *Store) Ingest(ctx context.Context, mediaType string,
	write func(io.Writer) error) (ocispec.Descriptor, error) {
	return s.ingest(ctx, mediaType, write, nil, nil)
}

// IngestAs is like Ingest for known content. If write writes different content, IngestAs stores
// nothing and returns ErrDamaged.
func (s *Store) IngestAs(ctx context.Context, want ocispec.Descriptor,
	write func(io.Writer) error) error {
	if err := want.Digest.Validate(); err != nil {
		return fmt.Errorf("store blob %q: %w", want.Digest, err)
	}
	_, err := s.ingest(ctx, want.MediaType, write, &want, nil)
	return err
}

// Push stores the content of r with the given descriptor. With Fetch and Exists the store is a
// destination for copying graphs.
func (s *Store) Push(ctx context.Context, want ocispec.Descriptor, r io.Reader) error {
	return s.IngestAs(ctx, want, func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// ingest stores the output of write. It returns an error if that is not the content of want, which
// may be nil. wrote, if it is not nil, is called after each write to the file, with the size of the
// file.
func (s *Store) ingest(ctx context.Context, mediaType string, write func(io.Writer) error,
	want *ocispec.Descriptor, wrote func(*os.File, int64)) (_ ocispec.Descriptor, err error) {
	f, err := s.createTemp()
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("store a blob: %w", err)
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	w := &hashingWriter{ctx: ctx, w: f, hash: sha256.New(), wrote: wrote}
	if want != nil {
		w.limit = want.Size
		w.limited = true
		if want.Digest.Algorithm() != digest.SHA256 {
			w.hash = want.Digest.Algorithm().Hash()
		}
	}
	if err := write(w); err != nil {
		// write may also parse the content, and fail because the content is damaged. Then return
		// the damage as the error.
		if want != nil && w.err == nil && w.n == want.Size {
			if bad := mismatch(*want, w.sum(want.Digest.Algorithm()), w.n); bad != nil {
				return ocispec.Descriptor{}, bad
			}
		}
		return ocispec.Descriptor{}, err
	}
	if w.err != nil { // write ignored an error of its writer
		return ocispec.Descriptor{}, w.err
	}
	got := ocispec.Descriptor{MediaType: mediaType, Size: w.n}
	if want == nil {
		got.Digest = w.sum(digest.SHA256)
	} else {
		got.Digest = w.sum(want.Digest.Algorithm())
		if err := mismatch(*want, got.Digest, got.Size); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	return got, s.adopt(ctx, f, got)
}

// tempPrefix begins the names of temporary files of this process.
func (s *Store) tempPrefix() string { return atomicfile.OwnedPrefix(tempPrefix, s.o.Owner) }

// createTemp makes a temporary file on the store's file system. A layout of another tool has no
// directory for it yet.
func (s *Store) createTemp() (*os.File, error) { return atomicfile.Temp(s.tmp(), s.tempPrefix()) }

// tempPrefix is the kind of the temporary files: see atomicfile.OwnedPrefix.
const tempPrefix = "blob-"

// Temp makes a file without a name on the store's file system. It is removed when the caller closes
// it.
func (s *Store) Temp() (*os.File, error) {
	f, err := s.createTemp()
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	return f, nil
}

// adopt renames a complete temporary file to a blob. It replaces an existing blob of that name,
// which may be damaged. Readers that have the old file open are not affected.
func (s *Store) adopt(ctx context.Context, f *os.File, d ocispec.Descriptor) error {
	if err := s.lease(ctx, d.Digest, false); err != nil {
		return fmt.Errorf("store blob %s: %w", d.Digest, err)
	}
	path := s.Path(d.Digest)
	// CreateTemp uses the mode 0600, but other users' tools should be able to read the layout
	if err := f.Chmod(0o644); err != nil {
		return fmt.Errorf("store blob %s: %w", d.Digest, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("store blob %s: %w", d.Digest, err)
	}
	var same *os.File // f, open for its stamp: the renaming changes it
	if s.o.Stamps != nil && d.Size >= minStamped {
		if same, _ = os.Open(f.Name()); same != nil {
			defer same.Close()
		}
	}
	// the first blob of an algorithm has no directory yet
	if err := atomicfile.Place(f.Name(), path); err != nil {
		return fmt.Errorf("store blob %s: %w", d.Digest, err)
	}
	if same != nil {
		if stamp, _ := s.o.Stamps.Stamp(same); stamp != "" {
			s.written.set(d.Digest, stamp)
		}
	}
	return nil
}

// unreadable reports whether an error means that a file exists and is permanently unreadable, for
// every user.
func unreadable(err error) bool {
	for _, is := range []error{syscall.EIO, syscall.EACCES, syscall.EPERM, syscall.EISDIR,
		syscall.ENOTDIR, syscall.ELOOP, syscall.ENXIO, syscall.EUCLEAN, syscall.EBADMSG} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// Fetch opens a blob. The reader returns an error (ErrDamaged) instead of io.EOF if size or digest
// do not match the descriptor. Fetch returns a *BlobError when there is no such blob, or when
// damage can be detected without reading it, unless Repair restores it. The caller closes the
// reader.
func (s *Store) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if err := s.lease(ctx, d.Digest, false); err != nil {
		return nil, err
	}
	r, err := s.fetch(d)
	var bad *BlobError
	if err == nil {
		return r, nil
	}
	if errors.As(err, &bad) && s.Repair != nil {
		if err = s.Repair(ctx, d, bad); err == nil {
			r, err = s.fetch(d)
		}
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (s *Store) fetch(d ocispec.Descriptor) (*blobReader, error) {
	path := s.Path(d.Digest)
	if path == "" {
		return nil, fmt.Errorf("read blob %q: not a digest", d.Digest)
	}
	f, size, err := openBlob(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &BlobError{Digest: d.Digest, Err: fmt.Errorf("is %w", ErrNotFound)}
	case unreadable(err), errors.Is(err, errNotFile):
		return nil, s.damaged(d, nil, err)
	case err != nil:
		return nil, fmt.Errorf("read blob: %w", err)
	}
	r := &blobReader{file: f, left: d.Size, want: d, hash: d.Digest.Algorithm().Hash(), store: s}
	r.stamp, r.settled = s.stamp(f, d.Size)
	if size != d.Size {
		defer f.Close()
		return nil, s.damaged(d, f, matches(d, "", size))
	}
	return r, nil
}

// errNotFile is returned for a directory, a fifo or the like in the place of a blob.
var errNotFile = errors.New("it is not a file")

// OpenBlob opens the file of a blob, whose content is not checked. The caller closes it.
func (s *Store) OpenBlob(d digest.Digest) (*os.File, error) {
	f, _, err := openBlob(s.Path(d))
	return f, err
}

// openBlob opens the regular file at a path, and returns its size. Any type of file may be there:
// openBlob does not follow a link or wait for a fifo.
func openBlob(path string) (_ *os.File, size int64, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errNotFile
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

// damaged removes a damaged blob, so that it is not treated as present the next time, and returns
// the error. It does not remove a blob that another process has meanwhile stored under its name, or
// a good blob, whose descriptor was wrong.
func (s *Store) damaged(d ocispec.Descriptor, open *os.File, why error) *BlobError {
	path := s.Path(d.Digest)
	if !errors.Is(why, ErrDamaged) {
		why = fmt.Errorf("is %w: %w", ErrDamaged, why)
	}
	bad := &BlobError{Digest: d.Digest, Err: why}
	if open != nil {
		held, err := open.Stat()
		now, err1 := os.Lstat(path)
		if err != nil || err1 != nil || !os.SameFile(held, now) {
			return bad
		}
	}
	if good(path, d.Digest) {
		return bad
	}
	if err := os.RemoveAll(path); err != nil {
		bad.Err = errors.Join(why, err)
		return bad
	}
	s.warn("%v; it was removed and is made or fetched again when it is needed", bad)
	return bad
}

// good reports whether the content of a file has the blob's digest.
func good(path string, want digest.Digest) bool {
	f, _, err := openBlob(path)
	if err != nil {
		return false
	}
	defer f.Close()
	h := want.Algorithm().Hash()
	if _, err := io.Copy(h, f); err != nil {
		return false
	}
	return hex.EncodeToString(h.Sum(nil)) == want.Encoded()
}

// Read returns a document: a manifest, an index or a config. Like Fetch, it checks size and digest,
// and calls Repair for a damaged document.
func (s *Store) Read(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if err := s.lease(ctx, d.Digest, true); err != nil {
		return nil, err
	}
	data, err := s.read(d)
	var bad *BlobError
	if errors.As(err, &bad) && s.Repair != nil {
		if err = s.Repair(ctx, d, bad); err == nil {
			data, err = s.read(d)
		}
	}
	return data, err
}

func (s *Store) read(d ocispec.Descriptor) ([]byte, error) {
	if d.Size > ocidoc.MaxDocument {
		return nil, fmt.Errorf("read blob %s: %d bytes are too many for a document", d.Digest,
			d.Size)
	}
	r, err := s.fetch(d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data := make([]byte, d.Size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF { // check the digest
		return nil, err
	}
	return data, nil
}

// Write stores a document.
func (s *Store) Write(ctx context.Context, mediaType string,
	data []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data),
		Size: int64(len(data))}
	if err := s.lease(ctx, d.Digest, true); err != nil {
		return ocispec.Descriptor{}, err
	}
	if have, err := smallfile.Read(s.Path(d.Digest)); err == nil {
		if bytes.Equal(have, data) {
			now := time.Now()
			if os.Chtimes(s.Path(d.Digest), now, now) == nil { // so that Collect treats it as new
				return d, nil
			}
		} else {
			s.warn("blob %s was damaged and is written again", d.Digest)
		}
	}
	return s.Ingest(ctx, mediaType, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// WriteJSON stores a value as a document in JSON.
func (s *Store) WriteJSON(ctx context.Context, mediaType string,
	v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("write %s: %w", mediaType, err)
	}
	return s.Write(ctx, mediaType, data)
}

// replace replaces a file of the layout atomically.
func (s *Store) replace(name string, data []byte) error {
	own := atomicfile.Own{Dir: s.tmp(), Prefix: s.tempPrefix(), Perm: 0o644}
	return own.Replace(filepath.Join(s.dir, name), func(f *os.File) error {
		if _, err := f.Write(data); err != nil {
			return err
		}
		// The kernel takes the times of new files from a clock that ticks every few milliseconds. A
		// tool that replaces index.json within the same tick would leave a file with the same time.
		// With an exact time, the two can be distinguished: see identity.
		return os.Chtimes(f.Name(), time.Time{}, time.Now())
	})
}

// matches returns an error if the content does not match a descriptor. An empty digest was not
// computed, and is not compared.
func matches(want ocispec.Descriptor, got digest.Digest, size int64) error {
	if size != want.Size {
		return fmt.Errorf("is %w: it has %d bytes, not %d", ErrDamaged, size, want.Size)
	}
	if got != "" && got != want.Digest {
		return fmt.Errorf("is %w: its digest is %s", ErrDamaged, got)
	}
	return nil
}

// mismatch is like matches, for content that will become a blob.
func mismatch(want ocispec.Descriptor, got digest.Digest, size int64) error {
	if err := matches(want, got, size); err != nil {
		return fmt.Errorf("blob %s %w", want.Digest, err)
	}
	return nil
}

// hashingWriter writes to a file and records the digest, the size and the first error.
type hashingWriter struct {
	// ctx is that of Ingest, which gives the writer to its caller's function. Write, which gets
	// none, returns an error when it has ended.
	ctx     context.Context
	w       *os.File
	hash    hash.Hash
	n       int64
	limit   int64
	limited bool
	wrote   func(*os.File, int64) // called after each write; may be nil
	err     error
}

func (w *hashingWriter) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = context.Cause(w.ctx)
	}
	if w.err == nil && w.limited && w.n+int64(len(p)) > w.limit {
		// Stop early: a sender of more data than announced may never stop.
		w.err = fmt.Errorf("blob is %w: it has more than %d bytes", ErrDamaged, w.limit)
	}
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.w.Write(p)
	w.hash.Write(p[:n])
	w.n += int64(n)
	w.err = err
	if w.wrote != nil {
		w.wrote(w.w, w.n)
	}
	return n, err
}

func (w *hashingWriter) sum(a digest.Algorithm) digest.Digest {
	return digest.NewDigestFromEncoded(a, hex.EncodeToString(w.hash.Sum(nil)))
}

// blobReader is an open blob that is checked while it is read.
type blobReader struct {
	file  *os.File
	left  int64
	want  ocispec.Descriptor
	hash  hash.Hash
	store *Store
	err   error

	stamp   string // of the file before it was read; "": there is none
	settled bool   // see Stamps
	known   bool   // stamp is that of a verified file
}

func (r *blobReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if r.left == 0 {
		r.err = r.check()
		return 0, r.err
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.file.Read(p)
	r.hash.Write(p[:n])
	r.left -= int64(n)
	switch {
	case err == io.EOF: // the file was truncated while it was read
		err = r.store.damaged(r.want, r.file, matches(r.want, "", r.want.Size-r.left))
	case unreadable(err):
		err = r.store.damaged(r.want, r.file, err)
	}
	r.err = err
	return n, err
}

// check compares the digest at the end.
func (r *blobReader) check() error {
	got := digest.NewDigestFromEncoded(r.want.Digest.Algorithm(),
		hex.EncodeToString(r.hash.Sum(nil)))
	if err := matches(r.want, got, r.want.Size); err != nil {
		return r.store.damaged(r.want, r.file, err)
	}
	r.verified()
	return io.EOF
}

func (r *blobReader) Close() error { return r.file.Close() }
