package unpack

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Compression names what a stream is compressed with.
type Compression string

// The kinds of compression that Decompress knows.
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

// Detect says what head, the first bytes of a stream, is compressed with.
func Detect(head []byte) Compression {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.c
		}
	}
	// A zstd stream may begin with a skippable frame (RFC 8878, 3.1.2).
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18" {
		return Zstd
	}
	return None
}

// zstdWindow is the largest window a stream may ask for: what zstd's --ultra and --long use.
const zstdWindow = 128 << 20

var (
	buffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 128<<10) }}
	gzips   sync.Pool // *gzip.Reader
	zstds   sync.Pool // *zstd.Decoder
)

// Decompress reads r, which may be compressed in one of the known ways, several members one after the other
// included, or not at all. The caller closes the result, which does not close r.
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
		d.Reader, err = xz.NewReader(b)
	default:
		d.Reader = b
	}
	if err != nil {
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
	z, _ := gzips.Get().(*gzip.Reader)
	if z == nil {
		z = new(gzip.Reader)
	}
	if err := z.Reset(d.buffer); err != nil {
		return err
	}
	d.Reader, d.done = z, func() { gzips.Put(z) }
	return nil
}

func (d *decompressed) zstd() error {
	z, _ := zstds.Get().(*zstd.Decoder)
	if z == nil {
		var err error
		// One goroutine: layers are unpacked beside each other, and memory is bounded by their number.
		z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderMaxMemory(1<<62))
		if err != nil {
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

// Close gives the decompressor back. It does not say whether the stream was read to its end.
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
