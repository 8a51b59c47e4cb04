package analyze

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Table holds the entries of a layer without their contents, in the order of its tar. It is kept in
// its stored form, which takes about sixty bytes per entry.
type Table struct {
	// Tar is the length of the layer's tar, and Entries the number of its entries.
	Tar     int64
	Entries int
	data    []byte
}

// Entry is one entry of a layer.
type Entry struct {
	Path     string // without surrounding slashes; "." for the root
	Type     Type   // Gone for a whiteout, whose Path is the path that it hides
	Opaque   bool   // an opaque mark: Path is its directory, Type is Dir
	Hardlink bool   // Type is Regular, and Link is the path of the target
	Mode     uint16
	UID, GID uint32
	Size     int64
	Time     int64  // nanoseconds since 1970
	Link     string // of a symbolic or a hard link; for a device its type flag and numbers
	Xattrs   string // all attributes in one sorted string: equal strings are equal attributes
	Content  Content
}

// tableMagic begins a stored table. Its number changes with the format and with the definition of
// Content.
const tableMagic = "lbtable2"

// Flags of an entry in a table; the low bits are its Type.
const (
	typeMask   = 7
	opaqueFlag = 8
	hardFlag   = 16
	xattrFlag  = 32
)

// tableWriter builds a table. Of each path it writes only the part that differs from the previous
// path.
type tableWriter struct {
	table Table
	last  string
}

func (w *tableWriter) add(e *Entry) {
	b := w.table.data
	same := 0
	for same < len(w.last) && same < len(e.Path) && w.last[same] == e.Path[same] {
		same++
	}
	flags := byte(e.Type)
	if e.Opaque {
		flags |= opaqueFlag
	}
	if e.Hardlink {
		flags |= hardFlag
	}
	if e.Xattrs != "" {
		flags |= xattrFlag
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(same))
	b = appendString(b, e.Path[same:])
	switch {
	case e.Type == Gone || e.Opaque:
	case e.Hardlink:
		b = appendString(b, e.Link)
	default:
		b = binary.AppendUvarint(b, uint64(e.Mode))
		b = binary.AppendUvarint(b, uint64(e.UID))
		b = binary.AppendUvarint(b, uint64(e.GID))
		b = binary.AppendVarint(b, e.Time)
		if e.Type == Symlink || e.Type == Device {
			b = appendString(b, e.Link)
		}
		if e.Type == Regular {
			b = binary.AppendUvarint(b, uint64(e.Size))
			b = append(b, e.Content[:]...)
		}
	}
	if e.Xattrs != "" {
		b = appendString(b, e.Xattrs)
	}
	w.table.data, w.last = b, e.Path
	w.table.Entries++
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// MarshalBinary returns the table in the stored form, with a checksum.
func (t *Table) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, len(t.data)+64)
	b = append(b, tableMagic...)
	b = binary.AppendUvarint(b, uint64(t.Tar))
	b = binary.AppendUvarint(b, uint64(t.Entries))
	b = append(b, t.data...)
	sum := sha256.Sum256(b)
	return append(b, sum[:8]...), nil
}

var errTable = errors.New("not a table of a layer's entries, or a damaged one")

// UnmarshalBinary parses the result of MarshalBinary. The table refers to data afterwards.
func (t *Table) UnmarshalBinary(data []byte) error {
	if len(data) < len(tableMagic)+8 || string(data[:len(tableMagic)]) != tableMagic {
		return errTable
	}
	data, sum := data[:len(data)-8], data[len(data)-8:]
	if want := sha256.Sum256(data); string(want[:8]) != string(sum) {
		return errTable
	}
	r := tableReader{data: data[len(tableMagic):]}
	t.Tar, t.Entries = int64(r.uvarint()), int(r.uvarint())
	t.data = r.data
	if r.bad {
		return errTable
	}
	return nil
}

// All returns the entries. An entry is valid until the next one. After an error, errTable, there
// are no further entries.
func (t *Table) All() iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		r := tableReader{data: t.data}
		var e Entry
		var path []byte
		for range t.Entries {
			path = r.entry(&e, path)
			if r.bad {
				yield(nil, errTable)
				return
			}
			if !yield(&e, nil) {
				return
			}
		}
	}
}

type tableReader struct {
	data []byte
	bad  bool
}

func (r *tableReader) entry(e *Entry, path []byte) []byte {
	flags := r.byte()
	same := r.uvarint()
	if same > uint64(len(path)) {
		r.bad = true
		return path
	}
	path = append(path[:same], r.bytes()...)
	*e = Entry{Path: string(path), Type: Type(flags & typeMask), Opaque: flags&opaqueFlag != 0,
		Hardlink: flags&hardFlag != 0}
	switch {
	case e.Type > Fifo:
		r.bad = true
	case e.Type == Gone || e.Opaque:
	case e.Hardlink:
		e.Link = string(r.bytes())
	default:
		e.Mode, e.UID, e.GID = uint16(r.uvarint()), uint32(r.uvarint()), uint32(r.uvarint())
		e.Time = r.varint()
		if e.Type == Symlink || e.Type == Device {
			e.Link = string(r.bytes())
		}
		if e.Type == Regular {
			e.Size = int64(r.uvarint())
			if len(r.data) < len(e.Content) || e.Size < 0 {
				r.bad = true
				return path
			}
			r.data = r.data[copy(e.Content[:], r.data):]
		}
	}
	if flags&xattrFlag != 0 {
		e.Xattrs = string(r.bytes())
	}
	return path
}

func (r *tableReader) byte() byte {
	if len(r.data) == 0 {
		r.bad = true
		return 0
	}
	b := r.data[0]
	r.data = r.data[1:]
	return b
}

func (r *tableReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 {
		r.bad, r.data = true, nil
		return 0
	}
	r.data = r.data[n:]
	return v
}

// varint reads what binary.AppendVarint has written: the sign is the lowest bit.
func (r *tableReader) varint() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

func (r *tableReader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.data)) {
		r.bad, r.data = true, nil
		return nil
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

// xattrs returns a string of attributes that is equal for equal attributes.
func xattrs(list []string) string {
	if len(list) == 0 {
		return ""
	}
	slices.Sort(list)
	var b strings.Builder
	for _, s := range list {
		fmt.Fprintf(&b, "%d:%s", len(s), s)
	}
	return b.String()
}
