package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/layerbuild/layerbuild/internal/safepath"
	"golang.org/x/sys/unix"
)

const regular = unix.S_IFREG

// Fetched is the content of a Remote, as a directory on this machine.
type Fetched struct {
	// Dir is the open directory.
	Dir *os.File
	// Items are the files that ADD copies from Dir.
	Items []Item

	temp    string
	modTime time.Time // the server's Last-Modified; zero if there is none
}

// newFetched makes a temporary directory in the directory that tempDir returns.
func newFetched(tempDir func() (string, error)) (*Fetched, error) {
	parent := ""
	if tempDir != nil {
		var err error
		if parent, err = tempDir(); err != nil {
			return nil, err
		}
	}
	temp, err := os.MkdirTemp(parent, "layerbuild-source-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary directory: %w", err)
	}
	f := &Fetched{temp: temp}
	if f.Dir, err = os.Open(temp); err != nil {
		return nil, errors.Join(err, os.Remove(temp))
	}
	return f, nil
}

// enter makes a subdirectory the directory; "" changes nothing. No part of its path may be a link.
func (f *Fetched) enter(subdir string) error {
	if subdir == "" {
		return nil
	}
	fd, err := safepath.NoLinks(int(f.Dir.Fd()), subdir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	err = f.Dir.Close()
	f.Dir = os.NewFile(uintptr(fd), filepath.Join(f.temp, subdir))
	return err
}

// Close closes the directory and removes it.
func (f *Fetched) Close() error {
	err := f.Dir.Close()
	if f.temp != "" {
		err = errors.Join(err, removeTemp(f.temp))
	}
	return err
}

// removeTemp removes a temporary directory, even if directories in it are not writable.
func removeTemp(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	_ = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			return root.Chmod(name, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
