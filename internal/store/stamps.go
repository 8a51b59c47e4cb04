package store

import (
	"os"
	"sync"

	digest "github.com/opencontainers/go-digest"
)

// Stamps keeps the stamps of blobs whose content was verified, so that a blob that has not changed
// since can be copied without reading it.
type Stamps interface {
	// Stamp returns a text that differs after each change of the file. It returns "" if a change
	// could go unnoticed, because of the file system. settled is false if the last change is so
	// recent that another one could get the same stamp.
	Stamp(f *os.File) (stamp string, settled bool)
	// Load returns the stamp that Save stored for a blob, or "".
	Load(d digest.Digest) string
	// Save stores the stamp of a verified blob.
	Save(d digest.Digest, stamp string)
}

// minStamped is the size from which blobs are stamped. Reading a smaller blob costs less than its
// stamp.
const minStamped = 64 << 10

// written holds the stamps of the blobs that this process has stored.
type written struct {
	mu     sync.Mutex
	stamps map[digest.Digest]string
}

func (w *written) set(d digest.Digest, stamp string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stamps == nil {
		w.stamps = map[digest.Digest]string{}
	}
	w.stamps[d] = stamp
}

func (w *written) get(d digest.Digest) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stamps[d]
}

// stamp returns the stamp of a blob's file, or "" if the store has no stamps for it.
func (s *Store) stamp(f *os.File, size int64) (stamp string, settled bool) {
	if s.o.Stamps == nil || size < minStamped {
		return "", false
	}
	return s.o.Stamps.Stamp(f)
}

// Unchanged returns the blob's file if its content is known to have the digest: this process has
// written it, or it was verified before, and the file has not changed since. Reading the file does
// not move the reader. The caller must not close the file.
func (r *blobReader) Unchanged() (*os.File, bool) {
	if r.stamp == "" || r.left != r.want.Size {
		return nil, false
	}
	now, _ := r.store.o.Stamps.Stamp(r.file)
	if now != r.stamp {
		return nil, false
	}
	if !r.known {
		r.known = r.store.written.get(r.want.Digest) == now ||
			r.store.o.Stamps.Load(r.want.Digest) == now
	}
	return r.file, r.known
}

// verified stores the stamp of a blob that was read completely and has its digest.
func (r *blobReader) verified() {
	if r.stamp == "" || !r.settled {
		return
	}
	if now, _ := r.store.o.Stamps.Stamp(r.file); now == r.stamp {
		r.store.o.Stamps.Save(r.want.Digest, now)
	}
}
