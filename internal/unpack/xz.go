package unpack

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// maxBlocks is the number of blocks that a stream of an xz file may have: the decoder keeps a
// record of each until the stream's end. xz -T makes blocks of some megabytes.
const maxBlocks = 1 << 20

// xz returns a decoder of an xz file. It verifies the check of each block of each stream. A stream
// may have no checks.
func (d *decompressed) xz() error {
	g := &xzGuard{b: d.buffer}
	d.done = g.release
	// Return an error in the first block as an error of the file.
	head, _ := d.buffer.Peek(xzStreamHeader + 1)
	if len(head) > xzStreamHeader && head[xzStreamHeader] != 0 {
		head, _ = d.buffer.Peek(xzStreamHeader + (int(head[xzStreamHeader])+1)*4)
		if err := g.dictionary(head[xzStreamHeader:]); err != nil {
			return err
		}
	}
	var err error
	d.Reader, err = xz.NewReader(g)
	return err
}

const (
	xzStreamHeader = 12
	xzStreamFooter = 12
)

// xzGuard reads an xz file and parses its structure (The .xz File Format 1.1.0; LZMA2 chunks as in
// xz-embedded). It returns an error before the header of a block for which the decoder would
// allocate too large a dictionary. The only damage that it detects is a missing end. If it cannot
// parse the file, it returns the rest unchanged. The decoder then returns an error, because it
// accepts less.
type xzGuard struct {
	b    *bufio.Reader
	held bool // it holds large

	left   int64 // bytes to pass on before the next call of look; -1: the rest
	next   func(*xzGuard) error
	check  int64 // size of the check of each block
	blocks int64 // number of blocks of this stream
	size   int64 // size so far: of the block without its header, or of the index
	values int64 // number of values left in the index
	whole  bool  // set at a clean end of the input, after a complete stream
}

func (g *xzGuard) release() {
	if g.held {
		<-large
	}
	g.held = false
}

// Read reads from the file, up to the next position that look must parse.
func (g *xzGuard) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := g.look(); err != nil {
		return 0, err
	}
	if g.left >= 0 && int64(len(p)) > g.left {
		p = p[:g.left]
	}
	n, err := g.b.Read(p)
	g.passed(n)
	return n, g.end(err)
}

// ReadByte reads a byte. The decoder reads most of the file with it.
func (g *xzGuard) ReadByte() (byte, error) {
	if err := g.look(); err != nil {
		return 0, err
	}
	c, err := g.b.ReadByte()
	if err == nil {
		g.passed(1)
	}
	return c, g.end(err)
}

// end returns the error for a file that ends before the end of its stream. The decoder accepts a
// file that ends between two blocks, or inside the header of a block.
func (g *xzGuard) end(err error) error {
	if err == io.EOF && !g.whole {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (g *xzGuard) passed(n int) {
	if g.left >= 0 {
		g.left -= int64(n)
	}
}

// look parses the next part of the file if left is 0, and sets left.
func (g *xzGuard) look() error {
	for g.left == 0 {
		if g.next == nil {
			g.next = (*xzGuard).stream
		}
		if err := g.next(g); err != nil {
			return err
		}
	}
	return nil
}

// rest makes the guard return the rest of the file unchanged.
func (g *xzGuard) rest() error {
	g.left = -1
	return nil
}

func (g *xzGuard) stream() error {
	head, _ := g.b.Peek(xzStreamHeader)
	g.whole = len(head) == 0
	switch {
	case len(head) >= 4 && binary.LittleEndian.Uint32(head) == 0: // padding between streams
		g.left = 4
		return nil
	case len(head) < xzStreamHeader:
		return g.rest()
	}
	g.left, g.blocks, g.next = xzStreamHeader, 0, (*xzGuard).block
	g.check = [16]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[head[7]&15]
	return nil
}

func (g *xzGuard) block() error {
	head, _ := g.b.Peek(1)
	if len(head) == 0 {
		return g.rest()
	}
	if head[0] == 0 {
		return g.index()
	}
	if g.blocks++; g.blocks > maxBlocks {
		return fmt.Errorf("%w: more than %d blocks", ErrLimit, maxBlocks)
	}
	head, _ = g.b.Peek((int(head[0]) + 1) * 4)
	if err := g.dictionary(head); err != nil {
		return err
	}
	g.left, g.size, g.next = int64(len(head)), 0, (*xzGuard).chunk
	return nil
}

// dictionary checks the size of the dictionary in the header of a block. Files with large ones are
// read one at a time.
func (g *xzGuard) dictionary(head []byte) error {
	size, err := xzDictionary(head)
	if err != nil {
		return err
	}
	if size > largestWindow {
		return fmt.Errorf("%w: a dictionary of %d MiB, at most %d MiB are supported", ErrLimit,
			size>>20, largestWindow>>20)
	}
	if size > commonWindow && !g.held {
		large <- struct{}{}
		g.held = true
	}
	return nil
}

// xzDictionary returns the size of a block's dictionary; 0 for a header that the decoder does not
// accept.
func xzDictionary(block []byte) (int64, error) {
	if len(block) < 2 {
		return 0, nil
	}
	flags, block := block[1], block[2:]
	// compressed and uncompressed size
	for _, there := range []bool{flags&0x40 != 0, flags&0x80 != 0} {
		for there && len(block) > 0 {
			there, block = block[0]&0x80 != 0, block[1:]
		}
	}
	// One filter, LZMA2: its id, the length of its properties, and a byte of them.
	if flags&3 != 0 || len(block) < 3 || block[0] != 0x21 || block[1] != 1 {
		return 0, nil
	}
	return lzma.DecodeDictCap(block[2])
}

// chunk handles a part of a block's content: a control byte, sizes, and a number of bytes that the
// sizes determine.
func (g *xzGuard) chunk() error {
	head, _ := g.b.Peek(5)
	switch {
	case len(head) > 0 && head[0] == 0: // the end of the content; padding and check follow
		g.left = 1 + -(g.size+1)&3 + g.check
		g.next = (*xzGuard).block
		return nil
	case len(head) >= 3 && head[0] <= 2:
		g.left = 3 + int64(binary.BigEndian.Uint16(head[1:])) + 1
	case len(head) == 5 && head[0] >= 0x80:
		g.left = 5 + int64(binary.BigEndian.Uint16(head[3:])) + 1
		if head[0] >= 0xc0 { // new properties
			g.left++
		}
	default:
		return g.rest()
	}
	g.size += g.left
	return nil
}

// index handles the beginning of the index: a zero byte, the number of blocks, two numbers for each
// block, padding, and a checksum.
func (g *xzGuard) index() error {
	head, _ := g.b.Peek(1 + binary.MaxVarintLen64)
	count, n := binary.Uvarint(head[min(1, len(head)):])
	if n <= 0 || count != uint64(g.blocks) {
		return g.rest()
	}
	g.left, g.values, g.next = 1+int64(n), 2*g.blocks, (*xzGuard).record
	g.size = g.left
	return nil
}

func (g *xzGuard) record() error {
	if g.values == 0 {
		g.left, g.next = -g.size&3+4+xzStreamFooter, (*xzGuard).stream
		return nil
	}
	head, _ := g.b.Peek(binary.MaxVarintLen64)
	_, n := binary.Uvarint(head)
	if n <= 0 {
		return g.rest()
	}
	g.left = int64(n)
	g.size += g.left
	g.values--
	return nil
}

var _ io.ByteReader = (*xzGuard)(nil)
