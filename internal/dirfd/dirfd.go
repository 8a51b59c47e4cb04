package dirfd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Stat is what statx(2) says.
type Stat = unix.Statx_t

// Type is the file type part of a mode (unix.S_IFMT).
func Type(st *Stat) uint32 { return uint32(st.Mode) & unix.S_IFMT }

// Dev is the number of the file system that a file is on.
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

// Open is openat(2) with O_CLOEXEC.
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

// OpenDir opens a directory for reading and never follows a link.
func OpenDir(dir int, name []byte) (int, error) {
	return Open(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// Lstat is statx(2) that does not follow a link.
func Lstat(dir int, name []byte, st *Stat) error {
	return statx(dir, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, st)
}

// Empty is the empty name. With AT_EMPTY_PATH it is the open file itself.
var Empty = []byte{0}

// Fstat is statx(2) of an open file.
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

// Mkdir is mkdirat(2).
func Mkdir(dir int, name []byte, mode uint32) error {
	_, _, e := unix.Syscall(unix.SYS_MKDIRAT, uintptr(dir),
		uintptr(unsafe.Pointer(unsafe.SliceData(name))), uintptr(mode))
	return result(e)
}

// Mknod is mknodat(2).
func Mknod(dir int, name []byte, mode uint32, dev uint64) error {
	_, _, e := unix.Syscall6(unix.SYS_MKNODAT, uintptr(dir),
		uintptr(unsafe.Pointer(unsafe.SliceData(name))), uintptr(mode), uintptr(dev), 0, 0)
	return result(e)
}

// Unlink is unlinkat(2); flags may be unix.AT_REMOVEDIR.
func Unlink(dir int, name []byte, flags int) error {
	_, _, e := unix.Syscall(unix.SYS_UNLINKAT, uintptr(dir),
		uintptr(unsafe.Pointer(unsafe.SliceData(name))), uintptr(flags))
	return result(e)
}

// Symlink is symlinkat(2).
func Symlink(target []byte, dir int, name []byte) error {
	_, _, e := unix.Syscall(unix.SYS_SYMLINKAT, uintptr(unsafe.Pointer(unsafe.SliceData(target))),
		uintptr(dir), uintptr(unsafe.Pointer(unsafe.SliceData(name))))
	return result(e)
}

// Link is linkat(2); a link as the old name is itself linked.
func Link(oldDir int, oldName []byte, dir int, name []byte) error {
	_, _, e := unix.Syscall6(unix.SYS_LINKAT, uintptr(oldDir),
		uintptr(unsafe.Pointer(unsafe.SliceData(oldName))), uintptr(dir),
		uintptr(unsafe.Pointer(unsafe.SliceData(name))), 0, 0)
	return result(e)
}

// Lchown is fchownat(2) that does not follow a link.
func Lchown(dir int, name []byte, uid, gid uint32) error {
	_, _, e := unix.Syscall6(unix.SYS_FCHOWNAT, uintptr(dir),
		uintptr(unsafe.Pointer(unsafe.SliceData(name))), uintptr(uid), uintptr(gid),
		unix.AT_SYMLINK_NOFOLLOW, 0)
	return result(e)
}

// Chmod is fchmodat(2): it follows links, so it is for names that are known not to be one.
func Chmod(dir int, name []byte, mode uint32) error {
	_, _, e := unix.Syscall(unix.SYS_FCHMODAT, uintptr(dir),
		uintptr(unsafe.Pointer(unsafe.SliceData(name))), uintptr(mode))
	return result(e)
}

// SetTime sets the time of last modification of what name is in dir, a link itself included; with a
// nil name, that of the open file dir. The time of last access stays.
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

// Readlink is readlinkat(2).
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

// Read is read(2).
func Read(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if err != unix.EINTR {
			return n, err
		}
	}
}
