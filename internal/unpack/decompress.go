package unpack

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/layerbuild/layerbuild/internal/gunzip"
)

// Compression is the compression of a stream.
type Compression string

// These are the compressions that Decompress reads.
const (
	None  Compression = ""
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	Bzip2 Compression = "bzip2"
	XZ    Compression = "xz"
)

var magics = []struct {
	magic string
	c     Compression
}{
	{"\x1f\x8b\x08", Gzip}, {"\x28\xb5\x2f\xfd", Zstd}, {"BZh", Bzip2}, {"\xfd7zXZ\x00", XZ},
}

// Detect returns the compression of a stream whose first bytes are head.
func Detect(head []byte) Compression {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.c
		}
	}
	// A zstd stream may begin with a skippable frame (RFC 8878, section 3.1.2).
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18" {
		return Zstd
	}
	return None
}

const (
	// largestWindow is the largest accepted window of a zstd stream, and the largest accepted
	// dictionary of an xz stream. zstd uses such a window with --ultra and --long.
	largestWindow = 128 << 20
	// commonWindow is the largest window that compressors use without such options. Any number of
	// streams with such windows can be read at once. Streams with larger windows are read one at a
	// time, so that memory does not grow with their number.
	commonWindow = 8 << 20
)

// ErrLimit is wrapped by errors about compressed streams that need more memory than allowed.
var ErrLimit = errors.New("the stream needs too much memory")

var (
	buffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 128<<10) }}
	gzips   sync.Pool // *gunzip.Reader
	zstds   sync.Pool // *zstd.Decoder, for common windows

	large = make(chan struct{}, 1) // held by a stream with a large window
)

// Decompress returns a reader of the decompressed content of r. r may be compressed with one of the
// supported compressions, also in several members, or not at all. The caller closes the result,
// which does not close r.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	b := buffers.Get().(*bufio.Reader)
	b.Reset(r)
	head, err := b.Peek(6)
	if err != nil && err != io.EOF {
		release(b)
		return nil, None, err
	}
	d := &decompressed{buffer: b}
	c := Detect(head)
	err = nil
	switch c {
	case Gzip:
		err = d.gzip()
	case Zstd:
		err = d.zstd()
	case Bzip2:
		d.Reader = bzip2.NewReader(b)
	case XZ:
		err = d.xz()
	default:
		d.Reader = b
	}
	if err != nil {
		if d.done != nil {
			d.done()
		}
		release(b)
		return nil, None, fmt.Errorf("%s stream: %w", c, err)
	}
	return d, c, nil
}

func release(b *bufio.Reader) {
	b.Reset(nil)
	buffers.Put(b)
}

type decompressed struct {
	io.Reader
	buffer *bufio.Reader
	done   func()
}

func (d *decompressed) gzip() error {
	z, _ := gzips.Get().(*gunzip.Reader)
	if z == nil {
		z = new(gunzip.Reader)
	}
	if err := z.Reset(d.buffer); err != nil {
		return err
	}
	d.Reader, d.done = z, func() { gzips.Put(z) }
	return nil
}

func (d *decompressed) zstd() error {
	// The header of the first frame has the window. Compressors use the same window for all frames.
	var h zstd.Header
	head, _ := d.buffer.Peek(zstd.HeaderMaxSize)
	err := h.Decode(head)
	window := h.WindowSize
	if h.SingleSegment {
		window = h.FrameContentSize
	}
	switch {
	case err == nil && window > largestWindow:
		return fmt.Errorf("%w: a window of %d MiB, at most %d MiB are supported", ErrLimit,
			window>>20, largestWindow>>20)
	case err != nil || h.Skippable || window > commonWindow:
		return d.largeZstd()
	}
	z, _ := zstds.Get().(*zstd.Decoder)
	if z == nil {
		var err error
		if z, err = newZstd(commonWindow); err != nil {
			return err
		}
	}
	if err := z.Reset(d.buffer); err != nil {
		return err
	}
	d.Reader, d.done = z, func() {
		if z.Reset(nil) == nil {
			zstds.Put(z)
		}
	}
	return nil
}

// largeZstd waits until no other stream with a large window is read. Its decoder is not reused.
func (d *decompressed) largeZstd() error {
	large <- struct{}{}
	z, err := newZstd(largestWindow)
	if err != nil {
		<-large
		return err
	}
	d.done = func() {
		z.Close()
		<-large
	}
	d.Reader = z
	return z.Reset(d.buffer)
}

// newZstd returns a decoder with one goroutine. Layers are unpacked in parallel, so more goroutines
// would only need more memory.
func newZstd(window uint64) (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(window), zstd.WithDecoderMaxMemory(1<<62))
}

// Close makes the decompressor available to other streams. It returns no error if the stream was
// not read to its end.
func (d *decompressed) Close() error {
	if d.buffer == nil {
		return nil
	}
	if d.done != nil {
		d.done()
	}
	release(d.buffer)
	*d = decompressed{Reader: closed{}}
	return nil
}

type closed struct{}

func (closed) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// Compress returns a writer that compresses with zstd what Decompress reads. It uses one thread.
func Compress(w io.Writer) (io.WriteCloser, error) {
	return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
}
