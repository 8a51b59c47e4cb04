package blocks

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// Format is a compression and its level.
type Format struct {
	Compression string // "gzip" or "zstd"
	Level       int    // gzip: 1 to 9, zstd: as numbered by the zstd program
}

// Version is the version of the compressed form. It is increased when the bytes of a stream change,
// as TestGolden shows.
const Version = 2

// codec compresses the blocks of a stream. It is safe for concurrent use.
type codec interface {
	// limits returns the sizes of blocks, and dict the number of bytes before a block on which the
	// block's compressed form depends.
	limits() limits
	dict() int
	// room limits the number of large blocks of all streams together. One block of each stream does
	// not count.
	room() chan struct{}
	// begin and end return what precedes the first block and follows the last one. The stream has
	// the given size and CRC-32, which is 0 unless checked returns true.
	begin() []byte
	end(size int64, crc uint32) []byte
	checked() bool
	// compress appends the compressed form of a block to dst. The bytes before the block are dict.
	// last is set for the last block of a stream.
	compress(dst, dict, block []byte, last bool) ([]byte, error)
}

// MaxLevel returns the highest level of a compression, whose lowest level is 1. It returns 0 for an
// unknown compression.
func MaxLevel(compression string) int {
	switch compression {
	case "gzip":
		return 9
	case "zstd":
		return 22
	}
	return 0
}

var codecs sync.Map // Format → codec: an encoder has megabytes of tables

func (f Format) codec() (codec, error) {
	if c, ok := codecs.Load(f); ok {
		return c.(codec), nil
	}
	highest := MaxLevel(f.Compression)
	if highest > 0 && (f.Level < 1 || f.Level > highest) {
		return nil, fmt.Errorf("%s level %d: use 1 to %d", f.Compression, f.Level, highest)
	}
	var c codec
	switch f.Compression {
	case "gzip":
		c = &gzipCodec{level: f.Level}
	case "zstd":
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(f.Level)),
			zstd.WithWindowSize(zstdLimits.max), zstd.WithZeroFrames(true),
			zstd.WithEncoderConcurrency(min(runtime.GOMAXPROCS(0), zstdCores)))
		if err != nil {
			return nil, fmt.Errorf("zstd level %d: %w", f.Level, err)
		}
		c = &zstdCodec{e}
	default:
		return nil, fmt.Errorf("unknown compression %q", f.Compression)
	}
	got, _ := codecs.LoadOrStore(f, c)
	return got.(codec), nil
}

// gzipCodec writes one gzip member. Each block is compressed with the 32 KiB before it as a
// dictionary. Each but the last ends with an empty stored deflate block (RFC 1951, section 3.2.4),
// which fills its last byte. So blocks can be compressed independently and joined. A stream of one
// block has the bytes that the library's gzip.Writer writes.
type gzipCodec struct {
	level int
	pool  sync.Pool // of *flate.Writer
}

var gzipLimits = limits{min: 512 << 10, max: 2 << 20, mask: 1<<10 - 1}

var gzipRoom = sync.OnceValue(func() chan struct{} {
	return make(chan struct{}, runtime.GOMAXPROCS(0)+1)
})

func (*gzipCodec) limits() limits      { return gzipLimits }
func (*gzipCodec) room() chan struct{} { return gzipRoom() }
func (*gzipCodec) dict() int           { return 32 << 10 } // the largest distance of deflate
func (*gzipCodec) checked() bool       { return true }

func (c *gzipCodec) begin() []byte {
	// RFC 1952, section 2.3. There is no name. The time is constant, so that equal layers have
	// equal bytes: it is the low half of the zero time.Time, which the library's gzip.Writer
	// writes.
	var flags byte // XFL
	switch c.level {
	case 1:
		flags = 4 // fastest
	case 9:
		flags = 2 // slowest
	}
	return []byte{0x1f, 0x8b, 8, 0, 0, 0x09, 0x6e, 0x88, flags, 255}
}

func (*gzipCodec) end(size int64, crc uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, crc)
	return binary.LittleEndian.AppendUint32(b, uint32(size))
}

func (c *gzipCodec) compress(dst, dict, block []byte, last bool) ([]byte, error) {
	out := bytes.NewBuffer(dst)
	w, ok := c.pool.Get().(*flate.Writer)
	if !ok {
		var err error
		if w, err = flate.NewWriter(nil, c.level); err != nil {
			return nil, err
		}
	}
	w.ResetDict(out, dict)
	_, err := w.Write(block)
	if err == nil && last {
		err = w.Close()
	} else if err == nil {
		err = w.Flush()
	}
	w.ResetDict(nil, nil)
	c.pool.Put(w)
	return out.Bytes(), err
}

// zstdCodec writes one zstd frame for each block (RFC 8878, section 3.1: a stream is one or more
// frames).
type zstdCodec struct{ e *zstd.Encoder }

var zstdLimits = limits{min: 3 << 20, max: 8 << 20, mask: 1<<12 - 1}

// zstdCores is the number of cores that compress zstd at most: a block and its encoder take about
// 30 MB of memory.
const zstdCores = 8

var zstdRoom = sync.OnceValue(func() chan struct{} {
	return make(chan struct{}, min(runtime.GOMAXPROCS(0), zstdCores)+1)
})

func (*zstdCodec) limits() limits           { return zstdLimits }
func (*zstdCodec) room() chan struct{}      { return zstdRoom() }
func (*zstdCodec) dict() int                { return 0 }
func (*zstdCodec) checked() bool            { return false } // each frame has its checksum
func (*zstdCodec) begin() []byte            { return nil }
func (*zstdCodec) end(int64, uint32) []byte { return nil }

func (c *zstdCodec) compress(dst, _, block []byte, _ bool) ([]byte, error) {
	return c.e.EncodeAll(block, dst), nil
}

// crcOf returns the CRC-32 of a block, if the codec needs it.
func crcOf(c codec, block []byte) uint32 {
	if !c.checked() {
		return 0
	}
	return crc32.ChecksumIEEE(block)
}
