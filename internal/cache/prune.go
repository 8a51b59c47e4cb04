package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"
)

// Files returns the records of all kinds, in no particular order. Records that cannot be read have
// no Kind.
func (c *Cache) Files() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for _, kind := range kinds {
			for e, err := range c.files(kind) {
				if !yield(e, err) {
					return
				}
			}
		}
	}
}

// File returns the file of a record that Files has listed.
func (e Entry) File() string { return e.path }

// Drop removes a record that Files has listed.
func (c *Cache) Drop(e Entry) error {
	if err := os.RemoveAll(e.path); err != nil { // a damaged record may be a directory
		return fmt.Errorf("remove a cache record: %w", err)
	}
	return nil
}

// DropTemporary removes temporary files of killed processes: files that are older than an hour,
// since writing a record takes far less time.
func (c *Cache) DropTemporary() error {
	names, err := os.ReadDir(c.tmp())
	if err != nil {
		return fmt.Errorf("collect the cache: %w", err)
	}
	for _, n := range names {
		fi, err := n.Info()
		if err != nil || time.Since(fi.ModTime()) < time.Hour {
			continue
		}
		if err := os.Remove(filepath.Join(c.tmp(), n.Name())); err != nil &&
			!errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("collect the cache: %w", err)
		}
	}
	return nil
}

// SetUsed sets the time at which a listed record was last used.
func (c *Cache) SetUsed(e Entry, used time.Time) error { return os.Chtimes(e.path, used, used) }
