package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Own has the options for writing a file in a directory that belongs to the program.
type Own struct {
	// Dir is the directory for the temporary file, on the file system of the file. "" is the file's
	// own directory.
	Dir string
	// Prefix begins the names of temporary files. A garbage collection uses it to find the files of
	// killed processes; see OwnedPrefix.
	Prefix string
	// Locked is set if the caller holds a lock, so that one process at a time writes the file. The
	// temporary file then has the name of the file with the suffix .new, so that killed processes
	// leave at most one.
	Locked bool
	// Perm is the mode of the file, whatever the umask is. 0 is 0600.
	Perm os.FileMode
	// Sync is set to write the content to the disk before the file is replaced.
	Sync bool
}

// Replace creates or replaces the file at path, with the output of write. If write returns an
// error, the old file is kept. Unlike Write, it does not keep the mode and the owner of the old
// file, and it repairs a damaged directory as Place does.
func (o Own) Replace(path string, write func(*os.File) error) error {
	f, err := o.create(path)
	if err != nil {
		return err
	}
	if err = write(f); err == nil && o.Perm != 0 {
		err = f.Chmod(o.Perm)
	}
	if err == nil && o.Sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = Place(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// ReplaceFile is like Replace for a file with the given content.
func (o Own) ReplaceFile(path string, content []byte) error {
	return o.Replace(path, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	})
}

func (o Own) create(path string) (*os.File, error) {
	dir := o.Dir
	if dir == "" {
		dir = filepath.Dir(path)
	}
	if !o.Locked {
		return Temp(dir, o.Prefix)
	}
	name := filepath.Join(dir, filepath.Base(path)+".new")
	if err := os.RemoveAll(name); err != nil { // left by a killed process, or damage
		return nil, err
	}
	return inDir(dir, func() (*os.File, error) {
		return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	})
}

// OwnedPrefix returns a prefix for the names of temporary files of one kind. The owner identifies
// the process that writes the files: it has no dash, and may be "". A garbage collection removes
// the files of owners that have ended, however old the files are.
func OwnedPrefix(kind, owner string) string { return kind + owner + "-" }

// OwnerOf returns the owner of a temporary file of one kind; "" for none.
func OwnerOf(kind, name string) string {
	rest, ok := strings.CutPrefix(name, kind)
	owner, _, dash := strings.Cut(rest, "-")
	if !ok || !dash {
		return ""
	}
	return owner
}

// Temp makes a temporary file with a unique name in dir, and dir itself if it is missing.
func Temp(dir, prefix string) (*os.File, error) {
	return inDir(dir, func() (*os.File, error) { return os.CreateTemp(dir, prefix) })
}

// inDir calls create. If a directory is missing, inDir makes it and calls create again.
func inDir(dir string, create func() (*os.File, error)) (*os.File, error) {
	f, err := create()
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(dir, 0o755); err == nil {
			f, err = create()
		}
	}
	return f, err
}

// Place renames a complete file to path, over an existing file. It makes the directory of path if
// that is missing. In a damaged state directory, a directory may have the name of the file, or a
// file may have the name of one of the two directories above it. Place removes these.
func Place(from, path string) error {
	err := os.Rename(from, path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) &&
		!errors.Is(err, unix.ENOTDIR) && !isDir(path) {
		return err
	}
	for _, dir := range []string{filepath.Dir(filepath.Dir(path)), filepath.Dir(path)} {
		if fi, err := os.Lstat(dir); err == nil && !fi.IsDir() {
			if err := os.Remove(dir); err != nil {
				return err
			}
		}
	}
	if isDir(path) {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Rename(from, path)
}

func isDir(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.IsDir()
}
