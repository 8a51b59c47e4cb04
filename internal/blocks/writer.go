package blocks

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
)

// Options are the options of a Writer.
type Options struct {
	Format
	// Earlier finds compressed blocks of earlier streams; nil: all blocks are compressed, and the
	// table of the stream is empty. It is not used for a stream of one block.
	Earlier Earlier
}

// Earlier finds compressed blocks of earlier streams. It is safe for concurrent use.
type Earlier interface {
	// Keys returns the Keys with which the keys of earlier blocks were computed; nil: there are no
	// earlier blocks.
	Keys() *Keys
	// Find returns the compressed form of the block with a key, and reports whether there is one.
	Find(Key) (Piece, bool)
}

// Writer compresses what is written to it. Its output depends on the bytes and the format only: not
// on the sizes of the writes, the number of cores or the blocks that Options.Earlier finds. A
// stream of one block is compressed by the caller's goroutine, when it calls Close. Longer ones are
// compressed by up to GOMAXPROCS goroutines.
type Writer struct {
	ctx   context.Context // of the whole stream: a Writer is used by one function
	dst   io.Writer
	codec codec
	sizes limits
	o     Options

	filling *block
	room    chan struct{} // has an element while one large block does not count in codec.room
	begun   bool          // the codec's beginning was written
	size    int64
	crc     uint32
	table   Table
	dict    []byte // the dictionary of the next block

	// These are used if there is more than one block.
	workers int
	keys    *Keys       // nil: not used
	stopped bool        // work and order are closed
	work    chan *block // for the workers
	order   chan *block // the same blocks, for the goroutine that writes them
	running sync.WaitGroup
	written chan struct{} // closed when the goroutine that writes has ended
	failed  atomic.Bool   // err is set: nothing more is compressed
	err     error         // of the goroutine that writes; read after written is closed
}

// block is a part of the stream.
type block struct {
	buf  []byte // room for a key's head, the dictionary, and the content
	dict int    // size of the dictionary
	last bool   // the last block of the stream
	out  []byte // the compressed form
	crc  uint32
	key  Key
	done chan error    // receives the result of the compression
	room chan struct{} // the limit that the block counts for; nil: none
}

func (b *block) content() []byte    { return b.buf[headSize+b.dict:] }
func (b *block) dictionary() []byte { return b.buf[headSize : headSize+b.dict] }

// smallBlock is the size of the buffer with which a stream begins: most layers fit into it.
const smallBlock = 72 << 10

var (
	small = sync.Pool{New: func() any {
		return &block{buf: make([]byte, 0, smallBlock), done: make(chan error, 1)}
	}}
	large = sync.Pool{New: func() any { return &block{done: make(chan error, 1)} }}
)

// NewWriter returns a Writer that writes to dst. The caller calls Close at the end of the stream,
// and Abandon in any case. Writing ends with the error of ctx when ctx is done.
func NewWriter(ctx context.Context, dst io.Writer, o Options) (*Writer, error) {
	c, err := o.codec()
	if err != nil {
		return nil, err
	}
	return newWriter(ctx, dst, o, c), nil
}

func newWriter(ctx context.Context, dst io.Writer, o Options, c codec) *Writer {
	w := &Writer{ctx: ctx, dst: dst, codec: c, sizes: c.limits(), o: o,
		filling: small.Get().(*block), room: make(chan struct{}, 1)}
	w.filling.reset(nil)
	return w
}

// reset makes the block empty. The bytes of its dictionary are the last bytes of the block before.
func (b *block) reset(dict []byte) {
	b.buf = append(b.buf[:headSize], dict...)
	b.dict, b.crc, b.last = len(dict), 0, false
	b.out = b.out[:0]
}

// newBlock returns an empty large block. If there are as many as the limits allow, it waits until a
// block of this stream, or of another one, has been written.
func (w *Writer) newBlock(dict []byte) *block {
	room := w.room
	select {
	case room <- struct{}{}:
	default:
		select {
		case room <- struct{}{}:
		case w.codec.room() <- struct{}{}:
			room = w.codec.room()
		}
	}
	b := large.Get().(*block)
	if need := headSize + w.codec.dict() + w.sizes.max; cap(b.buf) < need {
		b.buf = make([]byte, 0, need)
		b.out = make([]byte, 0, w.sizes.max/2)
	}
	b.room = room
	b.reset(dict)
	return b
}

// release returns a block to the pool that it came from.
func (b *block) release() {
	if b.room == nil {
		small.Put(b)
		return
	}
	<-b.room
	b.room = nil
	large.Put(b)
}

// Write appends p to the stream.
func (w *Writer) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		content := w.filling.content()
		n, end := w.sizes.next(len(content), content, p)
		w.append(p[:n])
		p = p[n:]
		if end {
			if err := w.submit(); err != nil {
				return total - len(p), err
			}
		}
	}
	return total, nil
}

func (w *Writer) append(p []byte) {
	b := w.filling
	if len(b.buf)+len(p) > cap(b.buf) {
		w.filling = w.newBlock(nil)
		w.filling.buf = append(w.filling.buf, b.content()...)
		b.release()
		b = w.filling
	}
	b.buf = append(b.buf, p...)
}

// submit passes the block that is full to the workers, and begins the next one.
func (w *Writer) submit() error {
	if w.failed.Load() {
		return w.stop()
	}
	full := w.filling
	known := full.buf[headSize:]
	w.dict = append(w.dict[:0], known[max(0, len(known)-w.codec.dict()):]...)
	w.filling = nil // Abandon does not release the block
	w.pass(full)
	w.filling = w.newBlock(w.dict)
	return nil
}

// pass passes a block to the workers.
func (w *Writer) pass(b *block) {
	most := runtime.GOMAXPROCS(0)
	if w.order == nil {
		w.work, w.order = make(chan *block, most), make(chan *block, most)
		w.written = make(chan struct{})
		if w.o.Earlier != nil {
			w.keys = w.o.Earlier.Keys()
		}
		go w.write()
	}
	if w.workers < most {
		w.workers++
		w.running.Go(func() {
			for b := range w.work {
				b.done <- w.compress(b)
			}
		})
	}
	w.order <- b
	w.work <- b
}

// write writes the compressed blocks in order. It receives all blocks, even after an error, so that
// pass never blocks for good.
func (w *Writer) write() {
	defer close(w.written)
	for b := range w.order {
		err := <-b.done
		if err == nil && w.err == nil {
			err = w.emit(b)
		}
		if err != nil && w.err == nil {
			w.err = err
			w.failed.Store(true)
		}
		b.release()
	}
}

// compress sets the compressed form of a block.
func (w *Writer) compress(b *block) (err error) {
	if w.failed.Load() {
		return nil
	}
	if err := w.ctx.Err(); err != nil {
		return context.Cause(w.ctx)
	}
	if w.keys != nil {
		b.key = w.keys.of(w.o.Format, b)
		if p, ok := w.o.Earlier.Find(b.key); ok && p.read(b) {
			return nil
		}
	}
	b.crc = crcOf(w.codec, b.content())
	b.out, err = w.codec.compress(b.out, b.dictionary(), b.content(), b.last)
	return err
}

// emit writes a compressed block.
func (w *Writer) emit(b *block) error {
	if !w.begun {
		w.begun = true
		begin := w.codec.begin()
		w.table.Offset = int64(len(begin))
		if _, err := w.dst.Write(begin); err != nil {
			return err
		}
	}
	n := int64(len(b.content()))
	w.size += n
	if w.codec.checked() {
		w.crc = combineCRC(w.crc, b.crc, n)
	}
	if w.keys != nil {
		w.table.add(b)
	}
	_, err := w.dst.Write(b.out)
	return err
}

// stop waits for the goroutines, and returns the error of the one that writes.
func (w *Writer) stop() error {
	if w.order == nil {
		return nil
	}
	if !w.stopped {
		w.stopped = true
		close(w.work)
		close(w.order)
	}
	w.running.Wait()
	<-w.written
	return w.err
}

// Close compresses the rest of the stream and writes its end. It does not close dst.
func (w *Writer) Close() error {
	if w.filling == nil {
		return errors.New("the stream has ended")
	}
	if w.stopped { // a Write has failed
		return w.err
	}
	b := w.filling
	w.filling = nil
	b.last = true
	if w.order != nil {
		w.pass(b)
		if err := w.stop(); err != nil {
			return err
		}
	} else {
		defer b.release()
		if err := w.compress(b); err != nil {
			return err
		}
		if err := w.emit(b); err != nil {
			return err
		}
	}
	_, err := w.dst.Write(w.codec.end(w.size, w.crc))
	return err
}

// Abandon ends the goroutines of a Writer whose stream will not be completed, and releases its
// memory. It does nothing after a Close without an error.
func (w *Writer) Abandon() {
	w.failed.Store(true)
	_ = w.stop()
	if w.filling != nil {
		w.filling.release()
		w.filling = nil
	}
}

// Table returns the table of the stream's blocks. It is called after Close.
func (w *Writer) Table() Table { return w.table }
