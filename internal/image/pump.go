package image

import (
	"context"
	"io"
	"sync"
)

// A pump holds so many chunks of so many bytes between who reads a blob and who unpacks it. Both work at the same time:
// one waits for the network and digests, the other decompresses and writes files.
const (
	chunkSize  = 256 << 10
	chunkCount = 4
)

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// pump reads r to its end, writes everything to w (nil: nowhere) and lets use read it too. It returns r's or w's error
// before that of use, which is often a consequence. When use fails r is still read to its end, so that w can tell whether
// the content was at fault.
func pump(ctx context.Context, r io.Reader, w io.Writer, use func(io.Reader) error) error {
	if use == nil {
		buf := chunks.Get().(*[chunkSize]byte)
		defer chunks.Put(buf)
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf[:])
		return err
	}
	p := &pipe{full: make(chan []byte, chunkCount), free: make(chan *[chunkSize]byte, chunkCount+1), stop: make(chan struct{})}
	for range chunkCount {
		p.free <- chunks.Get().(*[chunkSize]byte)
	}
	var used error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(p.stop)
		used = use(p)
	})
	err := p.feed(ctx, r, w)
	p.err = err
	close(p.full)
	wg.Wait()
	for len(p.free) > 0 {
		chunks.Put(<-p.free)
	}
	if err == nil {
		err = used
	}
	return err
}

// pipe is what use reads from.
type pipe struct {
	full chan []byte
	free chan *[chunkSize]byte
	stop chan struct{} // closed when use has returned
	err  error         // set before full is closed

	now  []byte // what is left of the chunk being read
	held *[chunkSize]byte
}

// feed reads r to its end.
func (p *pipe) feed(ctx context.Context, r io.Reader, w io.Writer) error {
	for {
		var buf *[chunkSize]byte
		select {
		case buf = <-p.free:
		case <-p.stop:
			buf = chunks.Get().(*[chunkSize]byte)
		}
		n, err := 0, error(nil)
		for n < len(buf) && err == nil { // a chunk is worth a hand-over when it is full
			var m int
			m, err = r.Read(buf[n:])
			n += m
		}
		if n > 0 && w != nil {
			if _, err1 := w.Write(buf[:n]); err1 != nil {
				return err1
			}
		}
		if n > 0 {
			select {
			case p.full <- buf[:n]:
			case <-p.stop:
				chunks.Put(buf)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

func (p *pipe) Read(b []byte) (int, error) {
	if len(p.now) == 0 {
		if p.held != nil {
			p.free <- p.held
			p.held = nil
		}
		chunk, ok := <-p.full
		if !ok {
			if p.err != nil {
				return 0, p.err
			}
			return 0, io.EOF
		}
		p.now, p.held = chunk, (*[chunkSize]byte)(chunk[:chunkSize])
	}
	n := copy(b, p.now)
	p.now = p.now[n:]
	return n, nil
}
