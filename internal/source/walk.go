package source

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// listing holds the sorted names in one directory. It is reused, so that a walk does not
// allocate memory for each file.
type listing struct {
	names []byte // each ends with a zero byte, as system calls require
	ents  []dirent
}

type dirent struct {
	ino      uint64
	off, len uint32
	kind     uint8 // DT_*
}

func (l *listing) name(e dirent) []byte { return l.names[e.off : e.off+e.len] }

// cname returns a pointer to the name and the zero byte after it, for the length of a system
// call.
func (l *listing) cname(e dirent) *byte { return &l.names[e.off] }

// read fills the listing from a directory, using buf.
func (l *listing) read(fd int, buf []byte) error {
	l.names, l.ents = l.names[:0], l.ents[:0]
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		l.add(buf[:n])
	}
	slices.SortFunc(l.ents, func(a, b dirent) int { return bytes.Compare(l.name(a), l.name(b)) })
	return nil
}

// add adds the names in the records of getdents64(2).
func (l *listing) add(b []byte) {
	const (
		ino    = unsafe.Offsetof(unix.Dirent{}.Ino)
		reclen = unsafe.Offsetof(unix.Dirent{}.Reclen)
		kind   = unsafe.Offsetof(unix.Dirent{}.Type)
		name   = unsafe.Offsetof(unix.Dirent{}.Name)
	)
	for len(b) > int(name) {
		size := int(binary.NativeEndian.Uint16(b[reclen:]))
		text := b[name:size]
		text = text[:bytes.IndexByte(text, 0)]
		if string(text) != "." && string(text) != ".." {
			l.ents = append(l.ents, dirent{
				ino: binary.NativeEndian.Uint64(b[ino:]), off: uint32(len(l.names)), len: uint32(len(text)), kind: b[kind],
			})
			l.names = append(append(l.names, text...), 0)
		}
		b = b[size:]
	}
}

// stat calls statx(2) with a name that ends with a zero byte. The wrapper in x/sys copies each
// name.
func stat(dir int, name *byte, flags int, st *unix.Statx_t) error {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(name)),
			uintptr(flags|unix.AT_NO_AUTOMOUNT), unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(st)), 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// empty is the name "".
var empty = [1]byte{}

// statFD calls statx(2) for an open file.
func statFD(fd int, st *unix.Statx_t) error {
	return stat(fd, &empty[0], unix.AT_EMPTY_PATH, st)
}

// openat calls openat(2) with such a name. It never follows a link.
func openat(dir int, name *byte, flags int) (int, error) {
	for {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(name)),
			uintptr(flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_LARGEFILE), 0, 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR:
		default:
			return -1, errno
		}
	}
}

// readlinkat calls readlinkat(2) with such a name; the target is in buf.
func readlinkat(dir int, name *byte, buf []byte) ([]byte, error) {
	n, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(name)),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
	if errno != 0 {
		return nil, errno
	}
	return buf[:n], nil
}

func nanos(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

func device(st *unix.Statx_t) uint64 { return unix.Mkdev(st.Dev_major, st.Dev_minor) }

// arena allocates strings that share large blocks of memory.
type arena struct{ free []byte }

func (a *arena) string(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if len(a.free) < len(b) {
		a.free = make([]byte, max(64<<10, len(b)))
	}
	n := copy(a.free, b)
	s := unsafe.String(&a.free[0], n) // these bytes are never written again
	a.free = a.free[n:]
	return s
}
