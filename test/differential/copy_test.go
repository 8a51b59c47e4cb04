package differential

import (
	"bytes"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// copyTree copies a file or a directory to a name that does not exist, as cp -a does.
func copyTree(from, to string) error {
	c := copying{links: map[uint64]string{}}
	return c.copy(from, to)
}

type copying struct{ links map[uint64]string }

func (c copying) copy(from, to string) error {
	st, kind, err := lstat(from)
	if err != nil {
		return err
	}
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		if first, ok := c.links[st.Ino]; ok {
			return os.Link(first, to)
		}
		c.links[st.Ino] = to
	}
	switch kind {
	case unix.S_IFDIR:
		if err = os.Mkdir(to, 0o700); err != nil {
			return err
		}
		for _, p := range inside(from) {
			if err := c.copy(p, filepath.Join(to, filepath.Base(p))); err != nil {
				return err
			}
		}
	case unix.S_IFLNK:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, to); err != nil {
			return err
		}
	case unix.S_IFREG:
		if err := copyFile(from, to); err != nil {
			return err
		}
	default:
		if err := unix.Mknod(to, kind|0o600, int(st.Rdev)); err != nil {
			return err
		}
	}
	return attributes(from, to, &st, kind)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// attributes gives a copy the owner, mode, extended attributes and times of the original.
func attributes(from, to string, st *unix.Stat_t, kind uint32) error {
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if kind != unix.S_IFLNK {
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return err
		}
		var list [1 << 12]byte
		n, err := unix.Llistxattr(from, list[:])
		if err != nil {
			return err
		}
		for name := range bytes.SplitSeq(bytes.TrimSuffix(list[:n], []byte{0}), []byte{0}) {
			var value [1 << 12]byte
			n, err := unix.Lgetxattr(from, string(name), value[:])
			if err == nil {
				err = unix.Lsetxattr(to, string(name), value[:n], 0)
			}
			if err != nil && len(name) > 0 && err != unix.ENODATA && err != unix.EPERM &&
				err != unix.EOPNOTSUPP {
				return err
			}
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Atim, st.Mtim},
		unix.AT_SYMLINK_NOFOLLOW)
}
