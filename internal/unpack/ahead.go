package unpack

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
)

// Ahead reads a stream ahead in a goroutine of its own, so that reading (from a network, a disk or
// a decompressor) and using the data run concurrently. It implements Chunker and io.Reader; a
// caller uses one of them. A stream of less than 256 KiB needs one chunk.
type Ahead struct {
	// Size is the number of bytes that have been returned.
	Size int64

	ctx    context.Context // of the reading goroutine, which ends when ctx ends
	r      io.Reader
	o      AheadOptions
	ready  chan aheadPiece
	toSide chan *aheadChunk // nil: there is no Side
	free   chan *aheadChunk
	done   chan struct{}
	wait   sync.WaitGroup

	taken *aheadChunk
	rest  []byte // the part of taken that Read has not returned
	err   error
}

// AheadOptions has the other users of the stream. Both are called with each chunk, in order.
type AheadOptions struct {
	// Tee is called before a chunk is returned. Its error is returned as an error of the stream.
	Tee func([]byte) error
	// Side is called in another goroutine, while the chunk is in use.
	Side func([]byte)
}

const (
	// aheadSize is a multiple of the tar's block size, as Chunker requires.
	aheadSize  = 256 << 10
	aheadCount = 6
)

type aheadChunk struct {
	data [aheadSize]byte
	n    int
	refs atomic.Int32 // number of users that have not released the chunk yet
}

type aheadPiece struct {
	c   *aheadChunk
	err error
}

var aheadChunks = sync.Pool{New: func() any { return new(aheadChunk) }}

// ReadAhead begins to read r. The caller must call Stop.
func ReadAhead(ctx context.Context, r io.Reader, o AheadOptions) *Ahead {
	a := &Ahead{
		ctx: ctx, r: r, o: o, ready: make(chan aheadPiece, aheadCount+1),
		free: make(chan *aheadChunk, aheadCount), done: make(chan struct{}),
	}
	for range aheadCount {
		a.free <- aheadChunks.Get().(*aheadChunk)
	}
	if o.Side != nil {
		a.toSide = make(chan *aheadChunk, aheadCount)
		a.wait.Go(func() {
			for c := range a.toSide {
				o.Side(c.data[:c.n])
				a.release(c)
			}
		})
	}
	a.wait.Go(a.read)
	return a
}

func (a *Ahead) read() {
	defer close(a.ready)
	if a.toSide != nil {
		defer close(a.toSide)
	}
	for {
		var c *aheadChunk
		select {
		case c = <-a.free:
		case <-a.done:
			return
		case <-a.ctx.Done():
			// there is room for one more than the number of chunks
			a.ready <- aheadPiece{err: context.Cause(a.ctx)}
			return
		}
		var err error
		c.n, err = Fill(a.r, c.data[:])
		if a.o.Tee != nil && c.n > 0 {
			if err1 := a.o.Tee(c.data[:c.n]); err1 != nil {
				c.n, err = 0, err1
			}
		}
		c.refs.Store(1)
		if a.toSide != nil {
			c.refs.Store(2)
			a.toSide <- c
		}
		a.ready <- aheadPiece{c, err}
		if err != nil {
			return
		}
	}
}

// release is called by each of a chunk's users.
func (a *Ahead) release(c *aheadChunk) {
	if c.refs.Add(-1) == 0 {
		a.free <- c
	}
}

// Chunk implements Chunker.
func (a *Ahead) Chunk() ([]byte, error) {
	a.releaseTaken()
	if a.err != nil {
		return nil, a.err
	}
	p := <-a.ready
	a.err, a.taken = p.err, p.c
	if p.c == nil || p.c.n == 0 {
		return nil, a.err
	}
	a.Size += int64(p.c.n)
	return p.c.data[:p.c.n], nil
}

func (a *Ahead) releaseTaken() {
	if a.taken != nil {
		a.release(a.taken)
		a.taken = nil
	}
}

// Read implements io.Reader.
func (a *Ahead) Read(b []byte) (int, error) {
	if len(a.rest) == 0 && len(b) > 0 {
		var err error
		if a.rest, err = a.Chunk(); err != nil {
			return 0, err
		}
	}
	n := copy(b, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Drain reads the rest of the stream, because the digest includes the bytes after an archive's end.
// It returns the stream's error, or nil at its end.
func (a *Ahead) Drain() error {
	a.rest = nil
	for {
		if _, err := a.Chunk(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Stop ends the reading at any point and waits for the goroutine. Reading from the stream must not
// block forever.
func (a *Ahead) Stop() {
	close(a.done)
	a.releaseTaken()
	a.rest = nil
	for p := range a.ready {
		if p.c != nil {
			a.release(p.c)
		}
	}
	a.wait.Wait()
	close(a.free)
	for c := range a.free {
		aheadChunks.Put(c)
	}
}

var _ Chunker = (*Ahead)(nil)
