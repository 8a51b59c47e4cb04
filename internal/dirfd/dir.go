package dirfd

import (
	"bytes"
	"math"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Dirent is one name in a Names.
type Dirent struct {
	Ino      uint64
	off, len uint32
	Type     uint8 // unix.DT_*; DT_UNKNOWN if the file system does not report it
}

// Names are the names in a directory without "." and "..". The zero value is empty and ready to
// use.
type Names struct {
	Entries []Dirent
	arena   []byte
}

// Name returns the entry's name, without the NUL that follows it in memory.
func (n *Names) Name(e Dirent) []byte { return n.arena[e.off : e.off+e.len] }

// CName returns the entry's name with its NUL, as this package's functions need it.
func (n *Names) CName(e Dirent) []byte { return n.arena[e.off : e.off+e.len+1] }

var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// Read replaces the names in n by the remaining entries of the open directory fd.
func (n *Names) Read(fd int) error {
	_, err := n.ReadSome(fd, math.MaxInt)
	return err
}

// ReadSome is like Read, but stops after it has read at least limit entries, for callers that do
// not need all names at once. It reports whether there may be more.
func (n *Names) ReadSome(fd, limit int) (more bool, err error) {
	n.Entries, n.arena = n.Entries[:0], n.arena[:0]
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	for len(n.Entries) < limit {
		size, err := unix.Getdents(fd, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false, err
		}
		if size == 0 {
			return false, nil
		}
		n.parse(buf[:size])
	}
	return true, nil
}

// parse adds the entries that getdents64(2) has written to b.
func (n *Names) parse(b []byte) {
	for len(b) > 0 {
		var d Record
		if d, b = NextRecord(b); !d.Dots() {
			n.Entries = append(n.Entries, Dirent{Ino: d.Ino, off: uint32(len(n.arena)),
				len: uint32(len(d.Name)), Type: d.Type})
			n.arena = append(append(n.arena, d.Name...), 0)
		}
	}
}

// Record is one struct linux_dirent64. The name is valid as long as the buffer.
type Record struct {
	Name []byte
	Ino  uint64
	Type uint8 // unix.DT_*
}

// Dots reports whether the name is "." or "..".
func (d Record) Dots() bool { return string(d.Name) == "." || string(d.Name) == ".." }

// A header is the beginning of a struct linux_dirent64, with the first bytes of the name. No record
// is shorter, because the kernel makes their sizes multiples of eight bytes.
type header struct {
	ino    uint64
	_      int64
	reclen uint16
	typ    uint8
	_      [headerSize - nameOffset]byte
}

const (
	headerSize = 24
	nameOffset = int(unsafe.Offsetof(unix.Dirent{}.Name))
)

// NextRecord returns the first record that getdents64(2) has written to b, and the rest of b. It
// is for callers that change the directory while they read it; others use Names or List.
func NextRecord(b []byte) (d Record, rest []byte) {
	// A unix.Dirent, which has room for the longest name, could extend beyond the end of b.
	h := (*header)(unsafe.Pointer((*[headerSize]byte)(b)))
	name := b[nameOffset:h.reclen]
	return Record{name[:bytes.IndexByte(name, 0)], h.ino, h.typ}, b[h.reclen:]
}

// Sort sorts the names by their bytes.
func (n *Names) Sort() {
	slices.SortFunc(n.Entries, func(a, b Dirent) int { return bytes.Compare(n.Name(a), n.Name(b)) })
}

// Find looks a name up in sorted names.
func (n *Names) Find(name []byte) (Dirent, bool) {
	i, ok := slices.BinarySearchFunc(n.Entries, name,
		func(e Dirent, name []byte) int { return bytes.Compare(n.Name(e), name) })
	if !ok {
		return Dirent{}, false
	}
	return n.Entries[i], true
}

var lists = sync.Pool{New: func() any { return new(Names) }}

// List returns the names in the open directory fd, sorted by their bytes. It reads the directory
// from its beginning. It is for callers that need strings, or that keep the names while they read
// other directories. It allocates memory twice, for all names together.
func List(fd int) ([]string, error) {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	n := lists.Get().(*Names)
	defer lists.Put(n)
	if err := n.Read(fd); err != nil {
		return nil, err
	}
	all := string(n.arena)
	list := make([]string, len(n.Entries))
	for i, e := range n.Entries {
		list[i] = all[e.off : e.off+e.len]
	}
	slices.Sort(list)
	return list, nil
}
