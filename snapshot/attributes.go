package snapshot

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"golang.org/x/sys/unix"
)

// plainRoot sets the mode of an empty snapshot's root directory to 0755, whatever the umask and the
// setgid bit of its parent.
func plainRoot(dir string) error {
	if err := unix.Lchown(dir, 0, 0); err != nil && os.Geteuid() == 0 {
		return &os.PathError{Op: "chown", Path: dir, Err: err}
	}
	if err := unix.Chmod(dir, 0o755); err != nil {
		return &os.PathError{Op: "chmod", Path: dir, Err: err}
	}
	return nil
}

// copyRootAttributes copies the owner, mode, xattrs and times of the directory from to the
// directory to.
func copyRootAttributes(from, to string) error {
	src, err := openDir(from)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst, err := openDir(to)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return &os.PathError{Op: "fstat", Path: from, Err: err}
	}
	if err := copyAttributes(src, dst, &st); err != nil {
		return fmt.Errorf("copy the attributes of %s: %w", from, err)
	}
	return nil
}

// copyAttributes copies the attributes of src, whose status is st, to the open file dst. chown
// comes first, since it clears the setuid bit and file capabilities. The times come last, since the
// other calls change them.
func copyAttributes(src, dst int, st *unix.Stat_t) error {
	return copyAttributesBy(src, dst, st, copyXattrs)
}

// copyAttributesBy is copyAttributes with another function than copyXattrs.
func copyAttributesBy(src, dst int, st *unix.Stat_t, xattrs func(from, to place) error) error {
	if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return os.NewSyscallError("fchown", err)
	}
	if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	if err := xattrs(place{fd: src}, place{fd: dst}); err != nil {
		return err
	}
	return setTimes(dst, st)
}

// setTimes sets the times of the open file dst to those of st.
func setTimes(dst int, st *unix.Stat_t) error {
	times := [2]unix.Timespec{st.Atim, st.Mtim}
	// Without a path utimensat(2) changes the descriptor's file, on every kernel. AT_EMPTY_PATH is
	// newer.
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(dst), 0,
		uintptr(unsafe.Pointer(&times)), 0, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("utimensat", errno)
	}
	return nil
}

// place is a file whose xattrs are read or set: an open file or directory, or a path whose last
// part is not followed.
type place struct {
	fd   int
	path string
}

func (p place) xattrs(keep func(name []byte) bool) ([]dirfd.Xattr, error) {
	if p.path == "" {
		return dirfd.Xattrs(p.fd, keep)
	}
	return dirfd.XattrsOf(p.path, keep)
}

func (p place) set(name string, value []byte) error {
	if p.path == "" {
		return unix.Fsetxattr(p.fd, name, value, 0)
	}
	return unix.Lsetxattr(p.path, name, value, 0)
}

// entryPlace returns the place of a name in an open directory. The xattr calls have no *at variants
// before Linux 6.13.
func entryPlace(dir int, name string) place {
	return place{path: dirfd.FDPath(dir) + "/" + name}
}

// ownMarks are prefixes of the xattrs with which overlayfs and fuse-overlayfs mark directories.
// They are not attributes of the stored files.
var ownMarks = [...]string{dirfd.OverlayXattrs, dirfd.OverlayUserXattrs,
	dirfd.FuseOverlayfsXattrs}

func isOwnMark(name string) bool {
	for _, prefix := range ownMarks {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// copyXattrs copies all xattrs except ownMarks.
func copyXattrs(from, to place) error {
	return copyXattrsIf(from, to, func(name []byte) bool { return !isOwnMark(string(name)) })
}

func copyXattrsIf(from, to place, keep func(name []byte) bool) error {
	all, err := from.xattrs(keep)
	if err != nil {
		return fmt.Errorf("read xattrs: %w", err)
	}
	for _, x := range all {
		err = to.set(x.Name, x.Value)
		// The host's security module sets its own labels.
		if err != nil && x.Name != "security.selinux" && x.Name != "security.SMACK64" {
			return fmt.Errorf("set xattr %s: %w", x.Name, err)
		}
	}
	return nil
}
