package atomicfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/hostfile"
	"golang.org/x/sys/unix"
)

// Write replaces the contents of the file at path by the output of write. If write returns an
// error, the old file is kept. A new file has the mode perm without the bits of the umask. A file
// that replaces an old one gets the old file's mode and, if the process may set it, the old file's
// owner.
//
// If path leads through links, the file at their end is replaced, not a link. A file that is not a
// regular file, such as a fifo or /dev/null, and a descriptor of the process, such as /dev/stdout,
// are written in place.
func Write(path string, perm os.FileMode, write func(io.Writer) error) error {
	t, err := find(path)
	if err != nil {
		return err
	}
	if t.inPlace {
		return writeInPlace(path, write)
	}
	return t.replace(perm, write)
}

// WriteFile is like Write for a small file with the given contents. It writes the old file in place
// if no file can be made in its directory, or if it is a mount point, as in a container in which
// only the file is mounted.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	write := func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
	err := Write(path, perm, write)
	for _, cause := range []error{unix.EACCES, unix.EPERM, unix.EROFS, unix.EBUSY} {
		if errors.Is(err, cause) {
			if writeInPlace(path, write) == nil {
				return nil
			}
		}
	}
	return err
}

// target describes the file that is written.
type target struct {
	path    string
	old     *unix.Stat_t // nil: the file does not exist yet
	inPlace bool         // the file cannot be replaced
}

func find(path string) (target, error) {
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return target{path: path}, nil
	case err != nil:
		return target{}, err
	case !fi.Mode().IsRegular() || isDescriptor(path):
		return target{path: path, inPlace: true}, nil
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return target{}, err
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return target{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return target{path: path, old: &st}, nil
}

// isDescriptor reports whether path names an open file of the process. If it were replaced, readers
// of the descriptor would not see the new file.
func isDescriptor(path string) bool {
	abs, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	if abs == "/dev/stdout" || abs == "/dev/stderr" || strings.HasPrefix(abs, "/dev/fd/") ||
		strings.HasPrefix(abs, "/proc/") {
		return true
	}
	_, link := hostfile.Descriptor(abs)
	return link
}

func writeInPlace(path string, write func(io.Writer) error) error {
	f, err := hostfile.Open(path, os.O_WRONLY|os.O_TRUNC)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

func (t target) replace(perm os.FileMode, write func(io.Writer) error) (err error) {
	dir := filepath.Dir(t.path)
	temp := filepath.Join(dir, fmt.Sprintf(".%.200s.%s", filepath.Base(t.path), rand.Text()[:10]))
	f, named, err := create(dir, temp, perm)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close() // harmless after a failed Close
			if named {
				os.Remove(temp)
			}
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if t.old != nil {
		_ = f.Chown(int(t.old.Uid), int(t.old.Gid)) // EPERM: the owner is this user
		if err := f.Chmod(os.FileMode(t.old.Mode & 0o777)); err != nil {
			return err
		}
	}
	if !named {
		// linkat(2) cannot replace a file, and needs a capability for AT_EMPTY_PATH.
		err := unix.Linkat(unix.AT_FDCWD, dirfd.FDPath(int(f.Fd())), unix.AT_FDCWD,
			temp, unix.AT_SYMLINK_FOLLOW)
		if err != nil {
			return &os.LinkError{Op: "link", Old: "a file without a name", New: temp, Err: err}
		}
		named = true
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(temp, t.path)
}

// create makes a file in dir without a name, or with the name temp if the file system does not
// support unnamed files. It reports whether the file has that name.
func create(dir, temp string, perm os.FileMode) (*os.File, bool, error) {
	f, err := os.OpenFile(dir, os.O_WRONLY|unix.O_TMPFILE, perm)
	if err == nil {
		return f, false, nil
	}
	// Kernels that do not know the flag return EISDIR or ENOENT (open(2)). An error that concerns
	// the directory occurs again here.
	f, err = os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	return f, true, err
}
