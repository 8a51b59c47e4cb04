package dirfd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Stat is the result of statx(2).
type Stat = unix.Statx_t

// Type is the file type part of a mode (unix.S_IFMT).
func Type(st *Stat) uint32 { return uint32(st.Mode) & unix.S_IFMT }

// Dev returns the device number of the file system that contains a file.
func Dev(st *Stat) uint64 { return unix.Mkdev(st.Dev_major, st.Dev_minor) }

// IsWhiteout reports whether a file is overlay's mark for a removed name: a character device 0:0.
func IsWhiteout(st *Stat) bool {
	return Type(st) == unix.S_IFCHR && st.Rdev_major == 0 && st.Rdev_minor == 0
}

func result(e unix.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

// Open calls openat(2) with O_CLOEXEC.
func Open(dir int, name []byte, flags int, mode uint32) (int, error) {
	for {
		fd, _, e := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir),
			uintptr(unsafe.Pointer(unsafe.SliceData(name))),
			uintptr(flags|unix.O_CLOEXEC|unix.O_LARGEFILE), uintptr(mode), 0, 0)
		if e == 0 {
			return int(fd), nil
		}
		if e != unix.EINTR {
			return -1, e
		}
	}
}

// OpenDir opens a directory for reading. It does not follow a link.
func OpenDir(dir int, name []byte) (int, error) {
	return Open(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// Lstat calls statx(2) without following a link.
func Lstat(dir int, name []byte, st *Stat) error {
	return statx(dir, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, st)
}

// Empty is the empty name. With AT_EMPTY_PATH it refers to the open file itself.
var Empty = []byte{0}

// Fstat calls statx(2) for an open file.
func Fstat(fd int, st *Stat) error { return statx(fd, Empty, unix.AT_EMPTY_PATH, st) }

func statx(dir int, name []byte, flags int, st *Stat) error {
	for {
		_, _, e := unix.Syscall6(unix.SYS_STATX, uintptr(dir),
			uintptr(unsafe.Pointer(unsafe.SliceData(name))), uintptr(flags),
			unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(st)), 0)
		if e != unix.EINTR {
			return result(e)
		}
	}
}

// Mkdir calls mkdirat(2).
func Mkdir(dir int, name []byte, mode uint32) error {
	_, _, e := unix.Syscall(unix.SYS_MKDIRAT, uintptr(dir),
		uintptr(unsafe.Pointer(unsafe.SliceData(name))), uintptr(mode))
	return result(e)
}

// Mknod calls mknodat(2).
func Mknod(dir int, name []byte, mode uint32, dev uint64) error {
	_, _, e := unix.Syscall6(unix.SYS_MKNODAT, uintptr(dir),
		uintptr(unsafe.Pointer(unsafe.SliceData(name))), uintptr(mode), uintptr(dev), 0, 0)
	return result(e)
}

// Unlink calls unlinkat(2); flags may be unix.AT_REMOVEDIR.
func Unlink(dir int, name []byte, flags int) error {
	_, _, e := unix.Syscall(unix.SYS_UNLINKAT, uintptr(dir),
		uintptr(unsafe.Pointer(unsafe.SliceData(name))), uintptr(flags))
	return result(e)
}

// Symlink calls symlinkat(2).
func Symlink(target []byte, dir int, name []byte) error {
	_, _, e := unix.Syscall(unix.SYS_SYMLINKAT, uintptr(unsafe.Pointer(unsafe.SliceData(target))),
		uintptr(dir), uintptr(unsafe.Pointer(unsafe.SliceData(name))))
	return result(e)
}

// Link calls linkat(2). It does not follow a link as the old name.
func Link(oldDir int, oldName []byte, dir int, name []byte) error {
	_, _, e := unix.Syscall6(unix.SYS_LINKAT, uintptr(oldDir),
		uintptr(unsafe.Pointer(unsafe.SliceData(oldName))), uintptr(dir),
		uintptr(unsafe.Pointer(unsafe.SliceData(name))), 0, 0)
	return result(e)
}

// Lchown calls fchownat(2) without following a link.
func Lchown(dir int, name []byte, uid, gid uint32) error {
	_, _, e := unix.Syscall6(unix.SYS_FCHOWNAT, uintptr(dir),
		uintptr(unsafe.Pointer(unsafe.SliceData(name))), uintptr(uid), uintptr(gid),
		unix.AT_SYMLINK_NOFOLLOW, 0)
	return result(e)
}

// Chmod calls fchmodat(2). It follows links, so the caller must know that name is not a link.
func Chmod(dir int, name []byte, mode uint32) error {
	_, _, e := unix.Syscall(unix.SYS_FCHMODAT, uintptr(dir),
		uintptr(unsafe.Pointer(unsafe.SliceData(name))), uintptr(mode))
	return result(e)
}

// SetTime sets the modification time of the entry name of dir, without following a link, or of the
// open file dir if name is nil. It keeps the access time.
func SetTime(dir int, name []byte, sec, nsec int64) error {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: sec, Nsec: nsec}}
	flags := 0
	if name != nil {
		flags = unix.AT_SYMLINK_NOFOLLOW
	}
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(dir),
		uintptr(unsafe.Pointer(unsafe.SliceData(name))), uintptr(unsafe.Pointer(&ts)),
		uintptr(flags), 0, 0)
	return result(e)
}

// Readlink calls readlinkat(2).
func Readlink(dir int, name, buf []byte) (int, error) {
	n, _, e := unix.Syscall6(unix.SYS_READLINKAT, uintptr(dir),
		uintptr(unsafe.Pointer(unsafe.SliceData(name))),
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), 0, 0)
	return int(n), result(e)
}

// Write writes all of p to a file.
func Write(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// Read calls read(2).
func Read(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// NextData returns the next range of a file at or after at that is not a hole. Both ends are size
// if there is no more data. A file system without holes has data everywhere. NextData changes the
// offset of the file.
func NextData(fd int, at, size int64) (data, end int64, err error) {
	data, err = unix.Seek(fd, at, unix.SEEK_DATA)
	switch err {
	case nil:
	case unix.ENXIO:
		return size, size, nil
	case unix.EINVAL, unix.EOPNOTSUPP:
		return at, size, nil
	default:
		return 0, 0, err
	}
	if data >= size {
		return size, size, nil
	}
	end, err = unix.Seek(fd, data, unix.SEEK_HOLE)
	return data, min(end, size), err
}
