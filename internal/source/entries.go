package source

import (
	"encoding/binary"
	"iter"
	"slices"

	"github.com/layerbuild/layerbuild/internal/fileentry"
)

// Entries is a list of entries that uses little memory, since a context may have a million of them
// and most builds only need their digest: it stores the part of a path that differs from the one
// before, and the difference between a time and the one before. The zero value is empty.
type Entries struct {
	n      int
	chunks [][]byte // each holds whole records
	path   []byte   // of the last entry
	mtime  int64    // of the last entry
	ino    uint64   // of the last entry
	frozen int      // the number of entries with a private copy
}

const (
	firstChunk = 64 // an item that a wildcard matched is often a list of one entry
	lastChunk  = 64 << 10
	maxNumbers = 8*binary.MaxVarintLen64 + 8 // of a record without its path
)

// Len returns the number of entries.
func (l *Entries) Len() int { return l.n }

// Frozen reports whether an entry has a private copy.
func (l *Entries) Frozen() bool { return l.frozen > 0 }

// oneEntry returns the list of an item that is one file.
func oneEntry(e fileentry.Entry) Entries {
	var l Entries
	l.add([]byte{'.'}, e)
	return l
}

// add appends an entry. Its path is a separate argument so that no string is needed.
func (l *Entries) add(path []byte, e fileentry.Entry) {
	shared := 0
	for shared < min(len(path), len(l.path)) && path[shared] == l.path[shared] {
		shared++
	}
	b := l.room(len(path) - shared + maxNumbers)
	*b = binary.AppendUvarint(*b, uint64(shared))
	*b = binary.AppendUvarint(*b, uint64(len(path)-shared))
	*b = append(*b, path[shared:]...)
	mode := uint64(e.Mode) << 1
	if e.Attrs {
		mode |= 1
	}
	*b = binary.AppendUvarint(*b, mode)
	*b = binary.AppendVarint(*b, e.Size)
	*b = binary.AppendVarint(*b, e.MtimeNs-l.mtime)
	*b = binary.AppendVarint(*b, e.CtimeNs-e.MtimeNs)
	*b = binary.AppendVarint(*b, int64(e.Ino-l.ino))
	*b = binary.AppendUvarint(*b, uint64(e.Frozen))
	*b = binary.LittleEndian.AppendUint64(*b, e.Sum)
	l.n++
	if e.Frozen != 0 {
		l.frozen++
	}
	l.path, l.mtime, l.ino = append(l.path[:shared], path[shared:]...), e.MtimeNs, e.Ino
}

// room returns a chunk to which n bytes can be appended.
func (l *Entries) room(n int) *[]byte {
	size := firstChunk
	if k := len(l.chunks); k > 0 {
		last := &l.chunks[k-1]
		if cap(*last)-len(*last) >= n {
			return last
		}
		size = min(2*cap(*last), lastChunk)
	}
	l.chunks = append(l.chunks, make([]byte, 0, max(size, n)))
	return &l.chunks[len(l.chunks)-1]
}

// All yields the entries. Their paths share memory with each other, but not with the list.
func (l *Entries) All() iter.Seq[fileentry.Entry] {
	return func(yield func(fileentry.Entry) bool) {
		var e fileentry.Entry
		var path []byte
		var paths arena
		for _, b := range l.chunks {
			for len(b) > 0 {
				path = append(path[:uvarint(&b)], cut(&b, uvarint(&b))...)
				e.Path = paths.string(path)
				mode := uvarint64(&b)
				e.Mode, e.Attrs = uint32(mode>>1), mode&1 != 0
				e.Size = varint(&b)
				e.MtimeNs += varint(&b)
				e.CtimeNs = e.MtimeNs + varint(&b)
				e.Ino += uint64(varint(&b))
				e.Frozen = uint32(uvarint(&b))
				e.Sum = binary.LittleEndian.Uint64(cut(&b, 8))
				if !yield(e) {
					return
				}
			}
		}
	}
}

// List returns the entries that All yields. The result is not nil.
func (l *Entries) List() []fileentry.Entry {
	return slices.AppendSeq(make([]fileentry.Entry, 0, l.n), l.All())
}

func uvarint(b *[]byte) int { return int(uvarint64(b)) }

func uvarint64(b *[]byte) uint64 {
	v, n := binary.Uvarint(*b)
	*b = (*b)[n:]
	return v
}

func varint(b *[]byte) int64 {
	v, n := binary.Varint(*b)
	*b = (*b)[n:]
	return v
}

func cut(b *[]byte, n int) []byte {
	head := (*b)[:n]
	*b = (*b)[n:]
	return head
}
