package registry

import (
	"context"
	"io"
	"sync"
)

// maxPieces is the number of pieces of a blob that are downloaded at the same time, each over a
// connection of its own: many servers limit the rate of a connection.
const maxPieces = 4

// pieces is the transfer of a blob in pieces. They are read in order: memory holds at most
// maxPieces of them, and the one that is being read.
type pieces struct {
	ctx     context.Context // of the requests, for the cause of their end; Read gets none
	cancel  context.CancelFunc
	first   *download   // read directly; nil once its piece has been read
	queue   chan *piece // the pieces that are being downloaded, in order
	running sync.WaitGroup
	free    sync.Pool // *[]byte

	current *piece // nil: the next one is taken from queue
	rest    []byte // the part of current that has not been read
	err     error
}

// piece is the transfer of a piece to memory.
type piece struct {
	data *[]byte
	done chan struct{} // closed when data or err is set
	err  error
}

// newPieces continues the transfer of which first is the first piece.
func newPieces(ctx context.Context, first *download) *pieces {
	ctx, cancel := context.WithCancel(ctx)
	p := &pieces{ctx: ctx, cancel: cancel, first: first, queue: make(chan *piece, maxPieces-1)}
	size := first.end - first.off
	p.free.New = func() any {
		b := make([]byte, size)
		return &b
	}
	p.running.Go(func() {
		defer close(p.queue)
		for off := first.end; off < first.d.Size; off += size {
			next := &piece{done: make(chan struct{})}
			select {
			case p.queue <- next:
			case <-ctx.Done():
				return
			}
			next.data = p.free.Get().(*[]byte)
			d := &download{ctx: ctx, s: first.s, d: first.d, place: first.place, off: off,
				end: min(off+size, first.d.Size), budget: first.s.waitBudget()}
			p.running.Go(func() { next.fetch(d) })
		}
	})
	return p
}

// fetch downloads a piece.
func (p *piece) fetch(d *download) {
	defer close(p.done)
	buf := (*p.data)[:d.end-d.off]
	*p.data = buf
	if _, p.err = io.ReadFull(d, buf); p.err == nil {
		// Only after io.EOF net/http uses the connection again.
		if _, err := d.Read(make([]byte, 1)); err != io.EOF {
			p.err = err
		}
	}
	if err := d.Close(); p.err == nil {
		p.err = err
	}
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	if p.first != nil {
		n, err := p.first.Read(b)
		if err == nil || err != io.EOF {
			p.err = err
			return n, err
		}
		p.err = p.first.Close()
		p.first = nil
		if n > 0 || p.err != nil {
			return n, p.err
		}
	}
	for len(p.rest) == 0 {
		if p.current != nil {
			*p.current.data = (*p.current.data)[:cap(*p.current.data)]
			p.free.Put(p.current.data)
			p.current = nil
		}
		next, ok := <-p.queue
		if !ok {
			if p.err = context.Cause(p.ctx); p.err == nil {
				p.err = io.EOF
			}
			return 0, p.err
		}
		<-next.done
		if p.err = next.err; p.err != nil {
			return 0, p.err
		}
		p.current, p.rest = next, *next.data
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// Close ends the transfer of all pieces.
func (p *pieces) Close() error {
	p.cancel()
	var err error
	if p.first != nil {
		err = p.first.Close()
	}
	p.running.Wait()
	return err
}
