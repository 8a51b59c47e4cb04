package gunzip

import "math/bits"

const (
	literalBits  = 11 // index bits of the primary table for literals and lengths
	distanceBits = 10 // the same for distances
	maxBits      = 15 // of a code
	codeBits     = 7  // of a code for the length of a code

	numLiterals  = 288
	numDistances = 32
	// Each subtable has at least two codes, and all subtables of a table have the same size.
	literalSubtables  = numLiterals / 2 << (maxBits - literalBits)
	distanceSubtables = numDistances / 2 << (maxBits - distanceBits)
)

// An entry of a table describes the code with which the input continues. The primary table is
// indexed by the next bits of the input. An entry for longer codes refers to a subtable, which is
// indexed by the bits after these.
//
//	bits 0-4    the length of the code; in a subtable, less the index bits of the primary table
//	bits 5-8    the extra bits after the code; for a reference, the index bits of the subtable
//	bits 12-15  the flags below
//	bits 16-31  the literal; the least length or distance; for a reference, the first entry
type entry uint32

const (
	lengthMask = 1<<5 - 1
	extraShift = 5
	valueShift = 16

	isSubtable = 1 << 12 // a reference to a subtable
	isBad      = 1 << 13 // no code begins like this, or the code means nothing
	isSpecial  = 1 << 14 // isSubtable, isBad or the end of the block
	isLiteral  = 1 << 15
)

func (e entry) length() uint { return uint(e & lengthMask) }
func (e entry) extra() uint  { return uint(e >> extraShift & 15) }

// tables holds the codes of a block.
type tables struct {
	literals  [1<<literalBits + literalSubtables]entry // literals, lengths and the end of the block
	distances [1<<distanceBits + distanceSubtables]entry
	codes     [1 << codeBits]entry // the codes for lengths of codes
}

// The entries of the symbols, without the lengths of their codes: RFC 1951, section 3.2.5.
var literalEntries, distanceEntries = symbolEntries()

func symbolEntries() (literals [numLiterals]entry, distances [numDistances]entry) {
	for i := range 256 {
		literals[i] = entry(i)<<valueShift | isLiteral
	}
	literals[256] = isSpecial
	smallest := 3
	for i := range 28 {
		extra := max(0, i/4-1)
		literals[257+i] = entry(smallest)<<valueShift | entry(extra)<<extraShift
		smallest += 1 << extra
	}
	literals[285] = maxMatch << valueShift
	smallest = 1
	for i := range 30 {
		extra := max(0, i/2-1)
		distances[i] = entry(smallest)<<valueShift | entry(extra)<<extraShift
		smallest += 1 << extra
	}
	// These have codes among the fixed ones.
	for _, e := range []*entry{&literals[286], &literals[287], &distances[30], &distances[31]} {
		*e = isSpecial | isBad
	}
	return literals, distances
}

// codeEntries are the entries of the symbols for lengths of codes.
var codeEntries = func() (e [19]entry) {
	for i := range e {
		e[i] = entry(i) << valueShift
	}
	return e
}()

// fixedCodes makes the tables of the fixed codes: RFC 1951, section 3.2.6.
func (z *Reader) fixedCodes() {
	if z.fixed {
		return
	}
	var lengths [numLiterals]uint8
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	makeTable(z.codes.literals[:], literalBits, lengths[:], literalEntries[:])
	for i := range numDistances {
		lengths[i] = 5
	}
	makeTable(z.codes.distances[:], distanceBits, lengths[:numDistances], distanceEntries[:])
	z.fixed = true
}

// dynamicCodes reads the codes of a block and makes their tables: RFC 1951, section 3.2.7.
func (z *Reader) dynamicCodes() error {
	z.fixed = false
	b, err := z.field(14)
	if err != nil {
		return err
	}
	literals, distances, codes := int(b&31)+257, int(b>>5&31)+1, int(b>>10)+4
	if literals > 286 || distances > 30 {
		return ErrCorrupt
	}
	order := [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
	var own [19]uint8 // lengths of the codes for lengths
	for _, symbol := range order[:codes] {
		b, err := z.field(3)
		if err != nil {
			return err
		}
		own[symbol] = uint8(b)
	}
	if !makeTable(z.codes.codes[:], codeBits, own[:], codeEntries[:]) {
		return ErrCorrupt
	}
	var lengths [286 + 30]uint8
	all := lengths[:literals+distances]
	for i := 0; i < len(all); {
		e, err := z.symbol(z.codes.codes[:], codeBits)
		if err != nil {
			return err
		}
		symbol := e >> valueShift
		if symbol < 16 {
			all[i] = uint8(symbol)
			i++
			continue
		}
		value, least, extra := uint8(0), 3, uint(3)
		switch symbol {
		case 16:
			if i == 0 {
				return ErrCorrupt
			}
			value, extra = all[i-1], 2
		case 18:
			least, extra = 11, 7
		}
		more, err := z.field(extra)
		if err != nil {
			return err
		}
		repeat := least + int(more)
		if repeat > len(all)-i {
			return ErrCorrupt
		}
		for range repeat {
			all[i] = value
			i++
		}
	}
	if !makeTable(z.codes.literals[:], literalBits, all[:literals], literalEntries[:]) ||
		!makeTable(z.codes.distances[:], distanceBits, all[literals:], distanceEntries[:]) {
		return ErrCorrupt
	}
	return nil
}

// makeTable makes the table of a code that is given by the length of each symbol's code; 0: the
// symbol has none. primary is the number of index bits of the primary table. makeTable reports
// whether there is such a code. Like other decoders it accepts a code without symbols and a code of
// one symbol, one bit long. These are the only ones that leave bits without a meaning.
func makeTable(table []entry, primary uint, lengths []uint8, symbols []entry) bool {
	var count, next [maxBits + 1]int
	longest := uint(0)
	for _, l := range lengths {
		count[l]++
		longest = max(longest, uint(l))
	}
	code := 0
	for l := uint(1); l <= longest; l++ {
		code <<= 1
		next[l] = code
		code += count[l]
	}
	whole := code == 1<<longest
	if longest == 0 {
		whole = false
	} else if !whole && (longest != 1 || code != 1) {
		return false
	}
	empty := entry(isSpecial | isBad)
	if whole {
		empty = 0 // no entry remains so
	}
	for i := range 1 << primary {
		table[i] = empty
	}
	sub := max(longest, primary) - primary // index bits of the subtables
	free := 1 << primary
	for symbol, l8 := range lengths {
		l := uint(l8)
		if l == 0 {
			continue
		}
		// The first bit of a code is its highest one, and the lowest one of the index.
		index := int(bits.Reverse16(uint16(next[l])) >> (16 - l))
		next[l]++
		part, width := table[:1<<primary], l
		if l > primary {
			reference := &table[index&(1<<primary-1)]
			if *reference == 0 {
				*reference = entry(free)<<valueShift | isSpecial | isSubtable |
					entry(sub)<<extraShift | entry(primary)
				free += 1 << sub
			}
			first := int(*reference >> valueShift)
			part, width = table[first:first+1<<sub], l-primary
			index >>= primary
		}
		for i := index; i < len(part); i += 1 << width {
			part[i] = symbols[symbol] | entry(width)
		}
	}
	return true
}
