package blocks

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Key identifies a block's compressed form: it depends on the block, the bytes before it on which
// its compressed form depends, and the format.
type Key [16]byte

// SecretSize is the size of the secret of Keys.
const SecretSize = 16

// Keys computes the keys of blocks with a secret. It is a message authentication code (GMAC, NIST
// SP 800-38D), since it takes a quarter of the time of SHA-256 (0.17 ms a MiB instead of 0.69).
// Two blocks with the same key can only be made with the secret.
type Keys struct{ mac cipher.AEAD }

// NewKeys returns Keys with the secret, which is random.
func NewKeys(secret [SecretSize]byte) (*Keys, error) {
	b, err := aes.NewCipher(secret[:])
	if err != nil {
		return nil, err
	}
	mac, err := cipher.NewGCM(b)
	return &Keys{mac}, err
}

// encoder names the program that compresses: other versions of it may compress differently.
const encoder = "klauspost/compress v1.20.3"

// headSize is the size of what precedes a block when its key is computed.
const headSize = 48

// of returns the key of a block.
func (k *Keys) of(f Format, b *block) Key {
	head := b.buf[:headSize]
	clear(head)
	head[0] = byte(b.dict >> 16)
	binary.LittleEndian.PutUint16(head[1:], uint16(b.dict))
	head[3] = byte(f.Level)
	if b.last {
		head[4] = 1
	}
	head[5] = byte(len(f.Compression))
	copy(head[6+copy(head[6:], f.Compression):], encoder)
	// With one nonce for all blocks the code is a universal hash under a secret key, encrypted with
	// a constant. That suffices here: the keys are as secret as the secret.
	var nonce [12]byte
	return Key(k.mac.Seal(nil, nonce[:], nil, b.buf))
}

// Table describes the compressed blocks of a stream.
type Table struct {
	Offset  int64 // of the first block in the compressed stream
	Entries []Entry
}

// Entry describes a block.
type Entry struct {
	Key  Key
	Size uint32 // of the compressed form
	CRC  uint32 // of the block, or 0
	Sum  uint32 // the CRC-32C of the compressed form
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (t *Table) add(b *block) {
	t.Entries = append(t.Entries, Entry{Key: b.key, Size: uint32(len(b.out)), CRC: b.crc,
		Sum: crc32.Checksum(b.out, castagnoli)})
}

// Piece is a compressed block in a file.
type Piece struct {
	Entry
	File   io.ReaderAt
	Offset int64
}

// read reads the compressed form into the block. It reports whether the bytes are those that were
// written.
func (p Piece) read(b *block) bool {
	n := int(p.Size)
	if n > len(b.buf)+len(b.buf)/64+1024 { // an incompressible block is stored, with short headers
		return false
	}
	if cap(b.out) < n {
		b.out = make([]byte, 0, n)
	}
	out := b.out[:n]
	if _, err := p.File.ReadAt(out, p.Offset); err != nil ||
		crc32.Checksum(out, castagnoli) != p.Sum {
		return false
	}
	b.out, b.crc = out, p.CRC
	return true
}

const (
	tableMagic = "layerbuild blocks 1\n"
	entrySize  = len(Key{}) + 12
)

// Encode returns the table as bytes.
func (t Table) Encode() []byte {
	out := make([]byte, 0, len(tableMagic)+8+len(t.Entries)*entrySize)
	out = append(out, tableMagic...)
	out = binary.LittleEndian.AppendUint64(out, uint64(t.Offset))
	for _, e := range t.Entries {
		out = append(out, e.Key[:]...)
		for _, v := range []uint32{e.Size, e.CRC, e.Sum} {
			out = binary.LittleEndian.AppendUint32(out, v)
		}
	}
	return out
}

var errTable = errors.New("not a table of blocks")

// DecodeTable returns the table that Encode has returned as bytes.
func DecodeTable(data []byte) (Table, error) {
	if len(data) < len(tableMagic)+8 || string(data[:len(tableMagic)]) != tableMagic {
		return Table{}, errTable
	}
	data = data[len(tableMagic):]
	t := Table{Offset: int64(binary.LittleEndian.Uint64(data))}
	data = data[8:]
	if len(data)%entrySize != 0 || t.Offset < 0 {
		return Table{}, fmt.Errorf("%w: it has %d bytes too many", errTable, len(data)%entrySize)
	}
	for ; len(data) > 0; data = data[entrySize:] {
		e := Entry{Key: Key(data[:len(Key{})])}
		for i, v := range []*uint32{&e.Size, &e.CRC, &e.Sum} {
			*v = binary.LittleEndian.Uint32(data[len(e.Key)+4*i:])
		}
		t.Entries = append(t.Entries, e)
	}
	return t, nil
}
