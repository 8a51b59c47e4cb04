package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/hostfile"
	"golang.org/x/sys/unix"
)

// checkFile checks that a file can be written at the end of the build. "" and "-" do not name
// files.
func checkFile(flag, name string) error {
	if name == "" || name == "-" {
		return nil
	}
	if err := writableFile(name); err != nil {
		return badValue(flag, name, err)
	}
	return nil
}

// realPlace returns the absolute path of a regular or future file, with links resolved as far as
// it exists. It returns "" for standard output, a device or a pipe, which several outputs may
// write to.
func realPlace(name string) string {
	if name == "" || name == "-" {
		return ""
	}
	if fi, err := os.Stat(name); err == nil && !fi.Mode().IsRegular() {
		return ""
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		return filepath.Join(dir, filepath.Base(abs))
	}
	return abs
}

// writableFile returns the reason why a file cannot be written, or nil.
func writableFile(name string) error {
	fi, err := os.Stat(name)
	switch {
	case err == nil && fi.IsDir():
		return errors.New("a file is expected, not a directory")
	case err == nil && fi.Mode().IsRegular():
		f, err := hostfile.Open(name, os.O_WRONLY)
		if err != nil {
			return plainError(err)
		}
		return f.Close()
	case err == nil:
		return nil // a device or a pipe
	}
	dir := filepath.Dir(name)
	fi, err = os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no directory %s", dir)
	case err != nil:
		return plainError(err)
	case !fi.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	}
	return writableDir(dir)
}

// writableDir returns the reason why no file can be created in a directory, or nil. It tries to
// create a file without a name (O_TMPFILE), which leaves nothing behind. It does not try on file
// systems without such files.
func writableDir(dir string) error {
	f, err := os.OpenFile(dir, os.O_WRONLY|unix.O_TMPFILE, 0o600)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return fmt.Errorf("no file can be created in %s: %w", dir, plainError(err))
	}
	return nil
}

// checkDest checks that the destination of an output can be created: a file, or a directory with
// its parents. export.Check has already checked the type of the destination.
func checkDest(spec export.Spec) error {
	switch {
	case spec.Dest == "" || spec.Dest == "-":
		return nil
	case !spec.Dir:
		return writableFile(spec.Dest)
	}
	dir := spec.Dest
	for {
		fi, err := os.Stat(dir)
		if err == nil && fi.IsDir() {
			return writableDir(dir)
		}
		if err == nil || !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return nil // export reports a destination that is not a directory
		}
		dir = filepath.Dir(dir)
	}
}

// plainError removes the file's name from an error, for a message that already has the name.
func plainError(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
