package blocks

import (
	"encoding/binary"
	"math/bits"
)

// limits determine the sizes of blocks. A block ends at the first cut after min bytes, or after max
// bytes.
type limits struct {
	min, max int
	mask     uint64 // a piece whose hash has none of these bits set ends a block
}

// pieceSize is the size of a tar record. Insertions into and removals from a tar stream have a
// multiple of this size.
const pieceSize = 512

// next returns how many bytes of p belong to a block that has size bytes already, and reports
// whether the block ends after them. tail has the block's last bytes: at least size modulo
// pieceSize.
//
// A block ends after a piece whose bytes have a certain hash, not at a fixed distance from its
// beginning. So after an insertion or a removal the blocks soon end at the same content as before.
func (l limits) next(size int, tail, p []byte) (n int, end bool) {
	// Complete the piece that the block ends with.
	if have := size % pieceSize; have > 0 {
		need := pieceSize - have
		if len(p) < need {
			return len(p), false
		}
		n = need
		if size+n >= l.min {
			var piece [pieceSize]byte
			copy(piece[copy(piece[:], tail[len(tail)-have:]):], p)
			if l.ends(size+n, &piece) {
				return n, true
			}
		}
	}
	if skip := (l.min - pieceSize - size - n) / pieceSize * pieceSize; skip > 0 {
		n += skip
	}
	for ; n+pieceSize <= len(p); n += pieceSize {
		if l.ends(size+n+pieceSize, (*[pieceSize]byte)(p[n:])) {
			return n + pieceSize, true
		}
	}
	return len(p), false
}

// ends reports whether a block of the given size ends after the piece.
func (l limits) ends(size int, piece *[pieceSize]byte) bool {
	return size >= l.min && (size >= l.max || hash(piece)&l.mask == 0)
}

// hash mixes the bytes of a piece. Digests of layers depend on it. It is not a cryptographic hash:
// content can be chosen so that blocks end anywhere within their limits.
func hash(piece *[pieceSize]byte) uint64 {
	const k0, k1 = 0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f
	var a, b uint64 = k0, k1
	for i := 0; i < pieceSize; i += 32 {
		p := piece[i : i+32 : i+32]
		hi, lo := bits.Mul64(binary.LittleEndian.Uint64(p)^a, binary.LittleEndian.Uint64(p[8:])^k1)
		a = hi ^ lo
		hi, lo = bits.Mul64(binary.LittleEndian.Uint64(p[16:])^b,
			binary.LittleEndian.Uint64(p[24:])^k0)
		b = hi ^ lo
	}
	hi, lo := bits.Mul64(a^k0, b^k1)
	return hi ^ lo
}
