package source

import (
	"errors"
	"io/fs"
	"os"
)

// Fetched is the content of a Remote, as a directory on this machine.
type Fetched struct {
	// Dir is the open directory.
	Dir *os.File
	// Items is what ADD copies from it.
	Items []Item

	temp string
}

// Close closes the directory and removes it.
func (f *Fetched) Close() error {
	err := f.Dir.Close()
	if f.temp != "" {
		err = errors.Join(err, removeTemp(f.temp))
	}
	return err
}

// removeTemp removes a temporary directory with directories in it that may not be writable.
func removeTemp(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	_ = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = root.Chmod(name, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
