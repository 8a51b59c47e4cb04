package cache

import (
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
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

// DropTemporary removes the temporary files of processes that have ended: all but those of owners.
func (c *Cache) DropTemporary(owners map[string]bool) error {
	names, err := os.ReadDir(c.tmp())
	if err != nil {
		return fmt.Errorf("collect the cache: %w", err)
	}
	for _, n := range names {
		if owners[atomicfile.OwnerOf(tempPrefix, n.Name())] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(c.tmp(), n.Name())); err != nil {
			return fmt.Errorf("collect the cache: %w", err)
		}
	}
	return nil
}

// SetUsed sets the time at which a listed record was last used.
func (c *Cache) SetUsed(e Entry, used time.Time) error { return os.Chtimes(e.path, used, used) }
