package gunzip

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

const (
	windowSize = 32 << 10 // the largest distance of a match
	outSize    = windowSize + 96<<10
	inSize     = 64 << 10
	maxMatch   = 258
	// room is the space that one round of decodeFast may need: three literals and a match, which
	// is copied in words of eight bytes.
	room = 3 + maxMatch + 16
)

// These errors are returned for streams that are not valid.
var (
	ErrHeader   = errors.New("gzip: invalid header")
	ErrChecksum = errors.New("gzip: invalid checksum")
	ErrCorrupt  = errors.New("gzip: corrupt data")
)

// state names the part of the stream with which the input continues.
type state uint8

const (
	atBlock   state = iota // the header of a block, or the trailer after the last block
	inStored               // the bytes of a stored block
	inCodes                // the codes of a compressed block
	atTrailer              // the trailer of a member
)

// A Reader returns the content of a gzip stream of one or more members. It is not safe for
// concurrent use. It may read beyond the end of the stream from its source.
type Reader struct {
	src    io.Reader
	srcErr error // of src, returned when the input in memory is used up

	in     [inSize]byte
	ip, il int // in[ip:il] is input that is not in bits

	// bits holds the next n bits of the input, the first one lowest. The bits above are 0, except
	// within decodeFast.
	bits uint64
	n    uint

	state  state
	last   bool // the block is the last one of its member
	stored int  // bytes of a stored block that are left
	fixed  bool // the tables hold the fixed codes
	err    error

	crc, size uint32 // of the member's content so far

	out    [outSize]byte
	base   int // the member's content begins here, or before out
	rp, op int // out[rp:op] has not been returned, and out[base:op] may be the source of matches

	codes tables
}

// Reset makes z read from r, and reads the header of the first member. It returns io.EOF if there
// is nothing to read. After an error of Reset, Read returns the same error.
func (z *Reader) Reset(r io.Reader) error {
	z.src, z.srcErr, z.err = r, nil, nil
	z.ip, z.il, z.bits, z.n = 0, 0, 0, 0
	z.base, z.rp, z.op = 0, 0, 0
	z.err = z.header()
	return z.err
}

// Read returns an error after all content before it. An error of the source is returned as it is,
// io.ErrUnexpectedEOF if the stream is truncated.
func (z *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for z.rp == z.op {
		if z.err != nil {
			return 0, z.err
		}
		z.slide()
		from := z.op
		z.err = z.decode()
		z.crc = crc32.Update(z.crc, crc32.IEEETable, z.out[from:z.op])
		z.size += uint32(z.op - from)
		// Only when the content has been returned: the source may not have more yet.
		if z.err == nil && z.state == atTrailer && z.op == from {
			z.err = z.trailer()
		}
	}
	n := copy(p, z.out[z.rp:z.op])
	z.rp += n
	return n, nil
}

// slide moves the last content to the beginning of out, if out has no room for more. All content
// has been returned.
func (z *Reader) slide() {
	if z.op <= outSize-room {
		return
	}
	moved := z.op - windowSize
	copy(z.out[:windowSize], z.out[moved:z.op])
	z.base = max(0, z.base-moved)
	z.rp, z.op = windowSize, windowSize
}

// fill reads input when all is used up. It returns io.ErrUnexpectedEOF at the end of the source.
func (z *Reader) fill() error {
	const maxEmptyReads = 100 // as in package bufio
	z.ip, z.il = 0, 0
	for range maxEmptyReads {
		if z.srcErr == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if z.srcErr != nil {
			return z.srcErr
		}
		var n int
		n, z.srcErr = z.src.Read(z.in[:])
		if n > 0 {
			z.il = n
			return nil
		}
	}
	return io.ErrNoProgress
}

// need reads input until at least want bits are in z.bits. want is at most 48.
func (z *Reader) need(want uint) error {
	for z.n < want {
		if z.ip == z.il {
			if err := z.fill(); err != nil {
				return err
			}
		}
		z.bits |= uint64(z.in[z.ip]) << z.n
		z.ip++
		z.n += 8
	}
	return nil
}

// take removes n bits, which the caller has made sure of with need.
func (z *Reader) take(n uint) uint32 {
	v := uint32(z.bits & (1<<n - 1))
	z.bits >>= n
	z.n -= n
	return v
}

// field reads a number of n bits, at most 32.
func (z *Reader) field(n uint) (uint32, error) {
	if err := z.need(n); err != nil {
		return 0, err
	}
	return z.take(n), nil
}

// header reads the header of a member. It returns io.EOF at the end of the stream.
func (z *Reader) header() error {
	if err := z.need(8); err != nil {
		if z.srcErr == io.EOF {
			return io.EOF
		}
		return err
	}
	var sum uint32
	next := func() (byte, error) {
		b, err := z.field(8)
		sum = crc32.Update(sum, crc32.IEEETable, []byte{byte(b)})
		return byte(b), err
	}
	var h [10]byte
	for i := range h {
		var err error
		if h[i], err = next(); err != nil {
			return err
		}
	}
	if h[0] != 0x1f || h[1] != 0x8b || h[2] != 8 {
		return ErrHeader
	}
	const hasSum, hasExtra, hasName, hasComment = 1 << 1, 1 << 2, 1 << 3, 1 << 4
	flags := h[3]
	if flags&hasExtra != 0 {
		size := 0
		for i := range 2 {
			b, err := next()
			if err != nil {
				return err
			}
			size |= int(b) << (8 * i)
		}
		for range size {
			if _, err := next(); err != nil {
				return err
			}
		}
	}
	for _, text := range []byte{hasName, hasComment} {
		for flags&text != 0 {
			b, err := next()
			if err != nil {
				return err
			}
			if b == 0 {
				break
			}
		}
	}
	if flags&hasSum != 0 {
		want := sum & 0xffff
		got, err := z.field(16)
		if err != nil {
			return err
		}
		if got != want {
			return ErrHeader
		}
	}
	z.crc, z.size = 0, 0
	z.state, z.last = atBlock, false
	z.base = z.op
	return nil
}

// trailer reads the trailer of a member and the header of the next one.
func (z *Reader) trailer() error {
	z.take(z.n % 8)
	for _, want := range []uint32{z.crc, z.size} {
		got, err := z.field(32)
		if err != nil {
			return err
		}
		if got != want {
			return ErrChecksum
		}
	}
	return z.header()
}

// decode decodes until out has no room for more, the member ends (state atTrailer), or an error
// occurs.
func (z *Reader) decode() error {
	for {
		var full bool
		var err error
		switch z.state {
		case atBlock:
			err = z.block()
		case inStored:
			full, err = z.copyStored()
		case inCodes:
			full, err = z.decodeCodes()
		case atTrailer:
			full = true
		}
		if full || err != nil {
			return err
		}
	}
}

// block reads the header of a block.
func (z *Reader) block() error {
	if z.last {
		z.state = atTrailer
		return nil
	}
	b, err := z.field(3)
	if err != nil {
		return err
	}
	z.last = b&1 != 0
	switch b >> 1 {
	case 0:
		z.take(z.n % 8)
		size, err := z.field(32)
		if err != nil {
			return err
		}
		if size&0xffff != ^size>>16 {
			return ErrCorrupt
		}
		z.stored, z.state = int(size&0xffff), inStored
		return nil
	case 1:
		z.fixedCodes()
	case 2:
		if err := z.dynamicCodes(); err != nil {
			return err
		}
	default:
		return ErrCorrupt
	}
	z.state = inCodes
	return nil
}

func (z *Reader) copyStored() (full bool, err error) {
	for z.stored > 0 {
		space := min(z.stored, outSize-z.op)
		switch {
		case z.op > outSize-room:
			return true, nil
		case z.n > 0:
			z.out[z.op] = byte(z.take(8))
			z.op++
			z.stored--
		case z.ip == z.il:
			if err := z.fill(); err != nil {
				return false, err
			}
		default:
			n := copy(z.out[z.op:z.op+space], z.in[z.ip:z.il])
			z.ip += n
			z.op += n
			z.stored -= n
		}
	}
	z.state = atBlock
	return false, nil
}

// decodeCodes decodes a compressed block. Near the end of the input in memory it decodes symbol by
// symbol: it neither decodes bits that are not there nor waits for input that it does not need.
func (z *Reader) decodeCodes() (full bool, err error) {
	for z.state == inCodes {
		switch {
		case z.op > outSize-room:
			return true, nil
		case z.il-z.ip >= 16:
			err = z.decodeFast()
		default:
			err = z.decodeSymbol()
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// decodeSymbol decodes a literal, a match or the end of the block.
func (z *Reader) decodeSymbol() error {
	e, err := z.symbol(z.codes.literals[:], literalBits)
	if err != nil {
		return err
	}
	if e&isLiteral != 0 {
		z.out[z.op] = byte(e >> valueShift)
		z.op++
		return nil
	}
	if e&isSpecial != 0 {
		z.state = atBlock
		return nil
	}
	extra, err := z.field(e.extra())
	if err != nil {
		return err
	}
	length := int(e>>valueShift) + int(extra)
	if e, err = z.symbol(z.codes.distances[:], distanceBits); err != nil {
		return err
	}
	if extra, err = z.field(e.extra()); err != nil {
		return err
	}
	distance := int(e>>valueShift) + int(extra)
	if distance > z.op-z.base {
		return ErrCorrupt
	}
	for range length {
		z.out[z.op] = z.out[z.op-distance]
		z.op++
	}
	return nil
}

// symbol reads the next code, of a table with the given number of primary bits.
func (z *Reader) symbol(table []entry, primary uint) (entry, error) {
	for {
		// Bits that are not there yet are 0. The entry is right if its code is no longer than
		// the bits that are there.
		e := table[z.bits&(1<<primary-1)]
		length := e.length()
		if e&isSubtable != 0 {
			at := uint64(e>>valueShift) + z.bits>>primary&(1<<e.extra()-1)
			e = table[at]
			length = primary + e.length()
		}
		if length <= z.n {
			if e&isBad != 0 {
				return 0, ErrCorrupt
			}
			z.take(length)
			return e, nil
		}
		if err := z.need(z.n + 1); err != nil {
			return 0, err
		}
	}
}

// decodeFast decodes until fewer than eight bytes of input are left in memory, until out has no
// room for another round, or until the block ends. At least 16 bytes of input are there at the
// beginning.
//
// Before each lookup of a literal or length it has at least 56 - 2×15 valid bits, and before that
// of a match's length 56, of which a match needs at most 48: 15 + 5 for its length, 15 + 13 for its
// distance. Its variables are local so that they stay in registers.
func (z *Reader) decodeFast() error {
	in := z.in[:z.il]
	limit := len(in) - 8
	ip, op, base := z.ip, z.op, z.base
	bits, n := z.bits, z.n
	out, literals, distances := &z.out, &z.codes.literals, &z.codes.distances
	var err error

	// Three statements like these add up to eight bytes of input. Some of the bits above n are
	// then already set, to what they will be set to again.
	bits |= binary.LittleEndian.Uint64(in[ip:]) << (n & 63)
	ip += int(63-n) >> 3
	n |= 56
	e := literals[bits&(1<<literalBits-1)]
loop:
	for {
		if e&isLiteral != 0 {
			bits >>= e & lengthMask
			n -= uint(e & lengthMask)
			out[op] = byte(e >> valueShift)
			op++
			e = literals[bits&(1<<literalBits-1)]
			if e&isLiteral != 0 {
				bits >>= e & lengthMask
				n -= uint(e & lengthMask)
				out[op] = byte(e >> valueShift)
				op++
				e = literals[bits&(1<<literalBits-1)]
				if e&isLiteral != 0 {
					bits >>= e & lengthMask
					n -= uint(e & lengthMask)
					out[op] = byte(e >> valueShift)
					op++
					if ip > limit || op > outSize-room {
						break
					}
					bits |= binary.LittleEndian.Uint64(in[ip:]) << (n & 63)
					ip += int(63-n) >> 3
					n |= 56
					e = literals[bits&(1<<literalBits-1)]
					continue
				}
			}
			if ip > limit {
				break
			}
			bits |= binary.LittleEndian.Uint64(in[ip:]) << (n & 63)
			ip += int(63-n) >> 3
			n |= 56
		}
		if e&isSpecial != 0 {
			if e&isSubtable != 0 {
				bits >>= literalBits
				n -= literalBits
				e = literals[uint64(e>>valueShift)+bits&(1<<e.extra()-1)]
			}
			switch {
			case e&isLiteral != 0:
				bits >>= e & lengthMask
				n -= uint(e & lengthMask)
				out[op] = byte(e >> valueShift)
				op++
				if ip > limit || op > outSize-room {
					break loop
				}
				bits |= binary.LittleEndian.Uint64(in[ip:]) << (n & 63)
				ip += int(63-n) >> 3
				n |= 56
				e = literals[bits&(1<<literalBits-1)]
				continue
			case e&isBad != 0:
				err = ErrCorrupt
				break loop
			case e&isSpecial != 0:
				bits >>= e & lengthMask
				n -= uint(e & lengthMask)
				z.state = atBlock
				break loop
			}
		}

		bits >>= e & lengthMask
		extra := e.extra()
		length := int(e>>valueShift) + int(bits&(1<<extra-1))
		bits >>= extra
		n -= uint(e&lengthMask) + extra
		e = distances[bits&(1<<distanceBits-1)]
		if e&isSpecial != 0 {
			if e&isSubtable != 0 {
				bits >>= distanceBits
				n -= distanceBits
				e = distances[uint64(e>>valueShift)+bits&(1<<e.extra()-1)]
			}
			if e&isBad != 0 {
				err = ErrCorrupt
				break
			}
		}
		bits >>= e & lengthMask
		extra = e.extra()
		distance := int(e>>valueShift) + int(bits&(1<<extra-1))
		bits >>= extra
		n -= uint(e&lengthMask) + extra
		from := op - distance
		if from < base {
			err = ErrCorrupt
			break
		}
		// The next lookup needs time until its result is there. The copy needs no result of it.
		more := ip <= limit
		if more {
			bits |= binary.LittleEndian.Uint64(in[ip:]) << (n & 63)
			ip += int(63-n) >> 3
			n |= 56
			e = literals[bits&(1<<literalBits-1)]
		}
		end := op + length
		switch {
		case distance >= 8:
			*(*[8]byte)(out[op:]) = *(*[8]byte)(out[from:])
			*(*[8]byte)(out[op+8:]) = *(*[8]byte)(out[from+8:])
			for at := op + 16; at < end; at += 8 {
				*(*[8]byte)(out[at:]) = *(*[8]byte)(out[at-distance:])
			}
		case distance == 1:
			word := uint64(out[from]) * 0x0101010101010101
			for at := op; at < end; at += 8 {
				binary.LittleEndian.PutUint64(out[at:], word)
			}
		default:
			for at := op; at < end; {
				at += copy(out[at:end], out[from:at])
			}
		}
		op = end
		if !more || op > outSize-room {
			break
		}
	}
	z.ip, z.op, z.n = ip, op, n
	z.bits = bits & (1<<n - 1)
	return err
}
