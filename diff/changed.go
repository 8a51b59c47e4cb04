package diff

import (
	"bytes"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// sameStat compares type, mode, owner and time, which a layer records for every file.
func (w *walker) sameStat(st, was *dirfd.Stat) bool {
	return st.Mode == was.Mode && st.Uid == was.Uid && st.Gid == was.Gid &&
		w.time(st) == w.time(was)
}

// changed reports whether a file that is not a directory differs from the file that had its name
// before. Equal size and time are not enough, since a program can set them: if all else is equal,
// changed compares the contents.
func (w *walker) changed(dir int, name []byte, st *dirfd.Stat, in lowerDir,
	was *dirfd.Stat) (bool, error) {
	same, err := w.sameAs(dir, name, st, in, name, was)
	if err != nil || !same {
		return true, err
	}
	if st.Nlink == 1 && was.Nlink == 1 {
		return false, nil
	}
	return w.regrouped(string(w.path), st, in, was)
}

// sameAs is like same, for an old file in a directory of a layer.
func (w *walker) sameAs(dir int, name []byte, st *dirfd.Stat, in lowerDir, oldName []byte,
	was *dirfd.Stat) (bool, error) {
	oldDir, err := in.open()
	if err != nil {
		return false, err
	}
	defer in.release(oldDir)
	return w.same(dir, name, st, oldDir, oldName, was)
}

// same reports whether two files that are not directories are equal, except for their hard links.
func (w *walker) same(dir int, name []byte, st *dirfd.Stat, oldDir int, oldName []byte,
	was *dirfd.Stat) (bool, error) {
	if !w.sameStat(st, was) {
		return false, nil
	}
	switch dirfd.Type(st) {
	case unix.S_IFREG:
		if st.Size != was.Size {
			return false, nil
		}
		return w.sameFile(dir, name, st, oldDir, oldName, was)
	case unix.S_IFLNK:
		a, err := w.readlink(dir, name, st)
		if err != nil {
			return false, err
		}
		a = bytes.Clone(a)
		b, err := w.readlink(oldDir, oldName, was)
		return bytes.Equal(a, b), err
	}
	if st.Rdev_major != was.Rdev_major || st.Rdev_minor != was.Rdev_minor {
		return false, nil
	}
	a, err := dirfd.XattrsAt(dir, name, dirfd.InLayer)
	if err != nil {
		return false, err
	}
	b, err := dirfd.XattrsAt(oldDir, oldName, dirfd.InLayer)
	return sameXattrs(a, b), err
}

// sameFile reports whether two regular files of one size have the same attributes and content.
func (w *walker) sameFile(dir int, name []byte, st *dirfd.Stat, oldDir int, oldName []byte,
	was *dirfd.Stat) (bool, error) {
	a, err := openFile(dir, name)
	if err != nil {
		return false, err
	}
	defer unix.Close(a)
	b, err := openFile(oldDir, oldName)
	if err != nil {
		return false, err
	}
	defer unix.Close(b)
	xa, err := dirfd.Xattrs(a, w.counts)
	if err != nil {
		return false, err
	}
	xb, err := dirfd.Xattrs(b, w.counts)
	if err != nil || !sameXattrs(xa, xb) {
		return false, err
	}
	if st.Blocks*512 < st.Size && was.Blocks*512 < was.Size {
		return sameSparse(a, b, int64(st.Size))
	}
	return sameContent(a, b)
}

var compared = sync.Pool{New: func() any { return new([2][128 << 10]byte) }}

func sameContent(a, b int) (bool, error) {
	buf := compared.Get().(*[2][128 << 10]byte)
	defer compared.Put(buf)
	for {
		n, err := readFull(a, buf[0][:])
		if err != nil {
			return false, err
		}
		m, err := readFull(b, buf[1][:])
		if err != nil {
			return false, err
		}
		if !bytes.Equal(buf[0][:n], buf[1][:m]) {
			return false, nil
		}
		if n < len(buf[0]) {
			return true, nil
		}
	}
}

// sameSparse is like sameContent for files with holes. Both files have the given size. It does not
// read ranges that are holes in both.
func sameSparse(a, b int, size int64) (bool, error) {
	buf := compared.Get().(*[2][128 << 10]byte)
	defer compared.Put(buf)
	for at := int64(0); ; {
		data, _, err := dirfd.NextData(a, at, size)
		if err != nil {
			return false, err
		}
		other, _, err := dirfd.NextData(b, at, size)
		if err != nil {
			return false, err
		}
		if at = min(data, other); at >= size {
			return true, nil
		}
		var n [2]int
		for i, fd := range []int{a, b} {
			if _, err := unix.Seek(fd, at, unix.SEEK_SET); err != nil {
				return false, err
			}
			if n[i], err = readFull(fd, buf[i][:]); err != nil {
				return false, err
			}
		}
		if !bytes.Equal(buf[0][:n[0]], buf[1][:n[1]]) {
			return false, nil
		}
		if n[0] == 0 { // both were truncated
			return true, nil
		}
		at += int64(n[0])
	}
}

func readFull(fd int, p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m, err := dirfd.Read(fd, p[n:])
		if err != nil {
			return n, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}
