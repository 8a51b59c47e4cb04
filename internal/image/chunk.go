package image

import (
	"context"
	"io"
	"sync"
)

// At most chunkCount chunks of chunkSize bytes are buffered between the goroutine that reads a
// blob and the one that unpacks it. The first waits for the network and computes digests, the
// second decompresses and writes files.
const (
	chunkSize  = 256 << 10
	chunkCount = 4
)

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// readChunks reads r to its end, writes all of it to w (nil: discards it), and calls use with a
// reader of the same bytes. An error of r or w takes precedence over that of use, which is often
// a consequence. When use fails, r is still read to its end, so that w can check the digest of
// the whole content.
func readChunks(ctx context.Context, r io.Reader, w io.Writer, use func(io.Reader) error) error {
	if use == nil {
		buf := chunks.Get().(*[chunkSize]byte)
		defer chunks.Put(buf)
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf[:])
		return err
	}
	p := &chunkReader{full: make(chan []byte, chunkCount), free: make(chan *[chunkSize]byte, chunkCount+1), stop: make(chan struct{})}
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

// chunkReader is the reader that use is called with.
type chunkReader struct {
	full chan []byte
	free chan *[chunkSize]byte
	stop chan struct{} // closed when use returns
	err  error         // set before full is closed

	now  []byte // the unread part of the current chunk
	held *[chunkSize]byte
}

// feed reads r to its end.
func (p *chunkReader) feed(ctx context.Context, r io.Reader, w io.Writer) error {
	for {
		var buf *[chunkSize]byte
		select {
		case buf = <-p.free:
		case <-p.stop:
			buf = chunks.Get().(*[chunkSize]byte)
		}
		n, err := 0, error(nil)
		for n < len(buf) && err == nil { // only a full chunk is worth a hand-over to the other goroutine
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

func (p *chunkReader) Read(b []byte) (int, error) {
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
