package store

import (
	"context"
	"io"
	"os"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Growing is a blob that is being written, and can be read meanwhile. It is safe for concurrent
// use.
type Growing struct {
	mu      sync.Mutex
	file    *os.File // nil once it is not needed
	users   int      // the writer and the open readers
	size    int64    // bytes that were written
	done    bool
	desc    ocispec.Descriptor
	err     error
	changed chan struct{} // closed at the next change
}

// watchSize is the size from which a blob can be watched.
const watchSize = 4 << 20

// Watched stores blobs like Ingest of a Store, and reports those that are large while they are
// written.
type Watched struct {
	store *Store
	begun func(*Growing)
}

// Watched returns a Watched that calls begun for each blob that has reached 4 MiB. begun must not
// wait for the rest of the blob.
func (s *Store) Watched(begun func(*Growing)) Watched { return Watched{s, begun} }

// Ingest is like Store.Ingest.
func (w Watched) Ingest(ctx context.Context, mediaType string,
	write func(io.Writer) error) (ocispec.Descriptor, error) {
	var g *Growing
	d, err := w.store.ingest(ctx, mediaType, write, nil, func(f *os.File, size int64) {
		if g == nil && size >= watchSize {
			// Another description of the file, with an offset of its own. Without one the blob
			// is not watched.
			file, err := os.Open(f.Name())
			if err != nil {
				return
			}
			g = &Growing{file: file, users: 1, size: size, changed: make(chan struct{})}
			w.begun(g)
		}
		if g != nil {
			g.change(func() { g.size = size })
		}
	})
	if g != nil {
		g.change(func() { g.done, g.desc, g.err = true, d, err })
		g.release()
	}
	return d, err
}

func (g *Growing) change(do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	do()
	close(g.changed)
	g.changed = make(chan struct{})
}

// release ends a use of the file.
func (g *Growing) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.users--; g.users == 0 {
		g.file.Close() // it was only read
		g.file = nil
	}
}

// Result returns the blob's descriptor and reports whether the blob is in the store.
func (g *Growing) Result() (ocispec.Descriptor, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.desc, g.done && g.err == nil
}

// Wait waits until the blob is in the store and returns its descriptor. It returns the error with
// which writing it ended, or that of ctx.
func (g *Growing) Wait(ctx context.Context) (ocispec.Descriptor, error) {
	for {
		g.mu.Lock()
		done, d, err, changed := g.done, g.desc, g.err, g.changed
		g.mu.Unlock()
		if done {
			return d, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ocispec.Descriptor{}, context.Cause(ctx)
		}
	}
}

// Open returns a reader of the blob from its beginning. It waits for bytes that are not written
// yet, until ctx ends, and returns io.EOF when the blob is complete. Open returns os.ErrClosed if
// the blob has been written and has no open reader. The caller closes the reader.
func (g *Growing) Open(ctx context.Context) (io.ReadCloser, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.file == nil {
		return nil, os.ErrClosed
	}
	g.users++
	return &growingReader{ctx: ctx, g: g, file: g.file}, nil
}

type growingReader struct {
	ctx    context.Context // of Open: Read gets none
	g      *Growing
	file   *os.File
	at     int64
	closed sync.Once
}

func (r *growingReader) Read(p []byte) (int, error) {
	for {
		r.g.mu.Lock()
		size, done, err, changed := r.g.size, r.g.done, r.g.err, r.g.changed
		r.g.mu.Unlock()
		if err != nil {
			return 0, err
		}
		if left := size - r.at; left > 0 {
			n, err := r.file.ReadAt(p[:min(int64(len(p)), left)], r.at)
			r.at += int64(n)
			return n, err
		}
		if done {
			return 0, io.EOF
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
			return 0, context.Cause(r.ctx)
		}
	}
}

func (r *growingReader) Close() error {
	r.closed.Do(r.g.release)
	return nil
}
