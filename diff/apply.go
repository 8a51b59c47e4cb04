package diff

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/unpack"
)

// ErrNeedsParent is wrapped by errors about layers that can only be applied to a directory that
// shows the layers below (Full), because they contain a hard link to a file there or a name that
// leads through a link there.
var ErrNeedsParent = unpack.ErrNeedsParent

// Apply unpacks a layer, with any supported compression, into dir. It reads r to its end and
// returns the layer's digests and sizes, which the caller compares. After an error, dir contains a
// part of the layer.
func Apply(ctx context.Context, r io.Reader, dir string, o ApplyOptions) (Applied, error) {
	root, err := openRoot(dir)
	if err != nil {
		return Applied{}, err
	}
	defer unix.Close(root)
	z, _, err := unpack.Decompress(r)
	if err != nil {
		return Applied{}, fmt.Errorf("unpack layer: %w", err)
	}
	s := startSource(z)
	stats, err := unpack.Tar(ctx, s, root, o.unpack())
	if err == nil {
		err = s.drain(ctx)
	}
	s.stop()
	z.Close()
	if err != nil {
		return Applied{}, err
	}
	return Applied{
		DiffID: digest.NewDigest(digest.SHA256, s.hash), Size: s.size,
		Entries: stats.Entries, Implied: stats.Implied, Whiteouts: stats.Whiteouts,
	}, nil
}

func (o ApplyOptions) unpack() unpack.Options {
	u := unpack.Options{OnOwnerError: o.OnOwnerError, OnSkip: o.OnSkip, OnWhiteoutDevice: o.OnWhiteoutDevice, OnStandIn: o.OnStandIn, Whiteouts: unpack.Overlay}
	switch {
	case o.Full:
		u.Whiteouts = unpack.Delete
	case o.UserXattr:
		u.Whiteouts = unpack.OverlayUser
	}
	return u
}

// source reads a stream ahead in one goroutine and digests it in another, while its consumer takes
// it chunk by chunk.
type source struct {
	hash hash.Hash
	size int64

	ready  chan piece
	toHash chan *aheadChunk
	free   chan *aheadChunk
	done   chan struct{}
	wait   sync.WaitGroup
	taken  *aheadChunk
	err    error
}

type piece struct {
	c   *aheadChunk
	err error
}

type aheadChunk struct {
	data [256 << 10]byte
	n    int
	refs atomic.Int32 // users that have not released it yet: the digest and the consumer
}

const ahead = 6

var aheadChunks = sync.Pool{New: func() any { return new(aheadChunk) }}

func startSource(r io.Reader) *source {
	s := &source{
		hash: sha256.New(), ready: make(chan piece, ahead), toHash: make(chan *aheadChunk, ahead),
		free: make(chan *aheadChunk, ahead), done: make(chan struct{}),
	}
	for range ahead {
		s.free <- aheadChunks.Get().(*aheadChunk)
	}
	s.wait.Go(func() { s.read(r) })
	s.wait.Go(func() {
		for c := range s.toHash {
			s.hash.Write(c.data[:c.n])
			s.release(c)
		}
	})
	return s
}

func (s *source) read(r io.Reader) {
	defer close(s.toHash)
	defer close(s.ready)
	for {
		var c *aheadChunk
		select {
		case c = <-s.free:
		case <-s.done:
			return
		}
		var err error
		c.n, err = unpack.Fill(r, c.data[:])
		s.size += int64(c.n)
		c.refs.Store(2)
		s.toHash <- c
		s.ready <- piece{c, err}
		if err != nil {
			return
		}
	}
}

// release is called by each of a chunk's two users.
func (s *source) release(c *aheadChunk) {
	if c.refs.Add(-1) == 0 {
		s.free <- c
	}
}

// Chunk implements unpack.Reader.
func (s *source) Chunk() ([]byte, error) {
	if s.taken != nil {
		s.release(s.taken)
		s.taken = nil
	}
	for s.err == nil {
		p, ok := <-s.ready
		if !ok {
			s.err = io.EOF
			break
		}
		s.err = p.err
		s.taken = p.c
		if p.c.n > 0 {
			return p.c.data[:p.c.n], nil
		}
		s.release(p.c)
		s.taken = nil
	}
	return nil, s.err
}

// Read makes a source an io.Reader, which unpack.Tar requires. It is not called.
func (s *source) Read([]byte) (int, error) { panic("unreachable") }

// drain reads the bytes after the archive's end: they belong to the blob and its digests.
func (s *source) drain(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := s.Chunk(); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("unpack layer: %w", err)
		}
	}
}

// stop ends the goroutines at any point and returns the chunks to the pool.
func (s *source) stop() {
	close(s.done)
	if s.taken != nil {
		s.release(s.taken)
	}
	for p := range s.ready {
		s.release(p.c)
	}
	s.wait.Wait()
	close(s.free)
	for c := range s.free {
		aheadChunks.Put(c)
	}
}

// Entries iterates over the entries of an uncompressed layer. It stops after an error.
func Entries(r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		rd := unpack.NewReader(r)
		for {
			h, err := rd.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(Entry{}, fmt.Errorf("read layer: %w", err))
				return
			}
			e := Entry{
				Path: unpack.CleanName(h.Name), Type: h.Type, Mode: h.Mode, UID: int(h.UID), GID: int(h.GID),
				Size: h.Size, ModTime: time.Unix(h.Sec, h.Nsec), Link: string(h.Link), Major: h.Major, Minor: h.Minor,
				Content: rd,
			}
			if h.Type == unpack.TypeHardlink {
				e.Link = unpack.CleanName(h.Link)
			}
			for _, x := range h.Xattrs {
				if e.Xattrs == nil {
					e.Xattrs = map[string]string{}
				}
				e.Xattrs[x.Name] = string(x.Value)
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}
