package unpack

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/ulikunitz/xz"
)

// xzFile compresses text in blocks of the given size.
func xzFile(t testing.TB, text []byte, c xz.WriterConfig) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := c.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(text)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func xzText(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, n)
	for i := range text {
		text[i] = "abcdefgh"[r.IntN(8)]
		if i/1000%3 == 0 { // chunks that are not compressed, too
			text[i] = byte(r.Uint32())
		}
	}
	return text
}

var xzChecks = map[string]xz.WriterConfig{
	"none":   {DictCap: 1 << 16, NoCheckSum: true},
	"crc32":  {DictCap: 1 << 16, CheckSum: xz.CRC32},
	"crc64":  {DictCap: 1 << 16, CheckSum: xz.CRC64},
	"sha256": {DictCap: 1 << 16, CheckSum: xz.SHA256},
}

func decompressed1(data []byte) ([]byte, error) {
	z, _, err := Decompress(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return io.ReadAll(z)
}

// TestXZ reads files of several blocks and streams, with padding between the streams, and of each
// kind of check.
func TestXZ(t *testing.T) {
	text := xzText(100_000)
	for name, c := range xzChecks {
		c.BlockSize = 7_000
		one := xzFile(t, text, c)
		none := xzFile(t, nil, c)
		pad := make([]byte, 4)
		for _, test := range []struct {
			name  string
			data  [][]byte
			times int // number of texts in the result; -1: an error
		}{
			{"one stream", [][]byte{one}, 1},
			{"two streams", [][]byte{one, one}, 2},
			{"padding", [][]byte{one, pad, pad, one, pad}, 2},
			{"streams without blocks", [][]byte{none, none, one, none}, 1},
			{"another check", [][]byte{one, xzFile(t, text, xz.WriterConfig{CheckSum: xz.SHA256})},
				2},
			{"padding that is too short", [][]byte{one, pad[:3], one}, -1},
			{"garbage at the end", [][]byte{one, []byte("garbage, long enough")}, -1},
			{"the end is missing", [][]byte{one[:len(one)-1]}, -1},
			{"the index is missing", [][]byte{one[:len(one)-60]}, -1},
			{"the second stream is cut", [][]byte{one, one[:len(one)/2]}, -1},
		} {
			data := bytes.Join(test.data, nil)
			got, err := decompressed1(data)
			if test.times < 0 && err == nil || test.times >= 0 &&
				(err != nil || !bytes.Equal(got, bytes.Repeat(text, test.times))) {
				t.Errorf("%s, %s: %d bytes, %v", name, test.name, len(got), err)
			}
			z, err := xz.NewReader(
				&xzGuard{b: bufioReader(iotest.OneByteReader(bytes.NewReader(data)))})
			if err == nil {
				got, err = io.ReadAll(z)
			}
			if test.times >= 0 && (err != nil ||
				!bytes.Equal(got, bytes.Repeat(text, test.times))) {
				t.Errorf("%s, %s, read byte by byte: %d bytes, %v", name, test.name, len(got), err)
			}
		}
	}
}

// TestXZTruncated checks that a truncated file is an error, unless it ends between two streams.
func TestXZTruncated(t *testing.T) {
	for name, c := range xzChecks {
		c.BlockSize = 150
		one := xzFile(t, xzText(400), c)
		data := bytes.Join([][]byte{one, make([]byte, 4), one}, nil)
		for n := 6; n < len(data); n++ {
			if _, err := decompressed1(data[:n]); (err == nil) != (n == len(one) ||
				n == len(one)+4) {
				t.Errorf("%s: %d of %d bytes: %v", name, n, len(data), err)
			}
		}
	}
}

// TestXZDamaged changes each byte of a file of two streams with several blocks: it is refused,
// unless the file has no checks and a byte of the content was changed.
func TestXZDamaged(t *testing.T) {
	text := xzText(400)
	for name, c := range xzChecks {
		c.BlockSize = 150
		one := xzFile(t, text, c)
		data := bytes.Join([][]byte{one, make([]byte, 4), one}, nil)
		want := bytes.Repeat(text, 2)
		for i := range data {
			if name != "crc32" && i%5 != 0 { // the decoder starts slowly
				continue
			}
			bad := bytes.Clone(data)
			bad[i] ^= 0x10
			got, err := decompressed1(bad)
			switch {
			case err != nil || i < 6 && bytes.Equal(got, bad): // not recognized as an xz file
			case name != "none":
				t.Errorf("%s: with another byte at %d of %d there is no error, and the text is "+
					"the same: %v", name, i, len(data), bytes.Equal(got, want))
			}
		}
	}
}

// TestXZLimits checks that a dictionary or a number of blocks that would need too much memory is
// refused in any stream of a file.
func TestXZLimits(t *testing.T) {
	small := xzFile(t, []byte("text"), xz.WriterConfig{DictCap: 1 << 16, CheckSum: xz.CRC32})
	header := int(small[xzStreamHeader]+1) * 4
	large := func(property byte) []byte {
		data := bytes.Clone(small)
		block := data[xzStreamHeader : xzStreamHeader+header]
		i := bytes.Index(block, []byte{0x21, 1})
		block[i+2] = property
		binary.LittleEndian.PutUint32(block[header-4:], crc32.ChecksumIEEE(block[:header-4]))
		return data
	}
	const mib128, mib192, gib4 = 30, 31, 40
	var blocks bytes.Buffer // a stream of empty blocks
	blocks.Write(small[:xzStreamHeader])
	// end, padding, check
	empty := append(bytes.Clone(small[xzStreamHeader:xzStreamHeader+header]),
		0, 0, 0, 0, 0, 0, 0, 0)
	blocks.Write(bytes.Repeat(empty, maxBlocks+1))
	for _, test := range []struct {
		name string
		data []byte
		ok   bool
	}{
		{"128 MiB", large(mib128), true},
		{"128 MiB after a small one", append(bytes.Clone(small), large(mib128)...), true},
		{"128 MiB twice", append(large(mib128), large(mib128)...), true},
		{"192 MiB", large(mib192), false},
		{"192 MiB after a small one", append(bytes.Clone(small), large(mib192)...), false},
		{"4 GiB after padding", append(append(bytes.Clone(small), 0, 0, 0, 0), large(gib4)...),
			false},
		{"4 GiB in a later block", append(append(bytes.Clone(small[:xzStreamHeader]), empty...),
			large(gib4)[xzStreamHeader:]...), false},
		{"blocks", blocks.Bytes(), false},
	} {
		_, err := decompressed1(test.data)
		if test.ok && err != nil || !test.ok && !errors.Is(err, ErrLimit) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	select {
	case largeSlot <- struct{}{}:
		<-largeSlot
	default:
		t.Error("the place of a file with a large dictionary was not given back")
	}
}

// largeSlot is large, for tests in which another variable hides that name.
var largeSlot = large

func bufioReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 4096) }
