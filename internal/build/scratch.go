package build

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/layerbuild/layerbuild/internal/lock"
)

// tempPrefix begins the names of temporary directories in the state directory.
const tempPrefix = "tmp-"

// scratch is a temporary directory of one build. Its lock tells others that the build is alive.
type scratch struct {
	dir  string
	lock *os.File
}

// newScratch makes one, and removes those of builds that were killed.
func newScratch(root string) (*scratch, error) {
	if err := removeScratch(root); err != nil {
		return nil, err
	}
	for {
		dir, err := os.MkdirTemp(root, tempPrefix)
		if err != nil {
			return nil, fmt.Errorf("make a temporary directory: %w", err)
		}
		held, err := lock.Try(filepath.Join(dir, "lock"), true)
		// Between mkdir and flock another build may have taken it for a left-over: then there is another.
		if errors.Is(err, lock.ErrHeld) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("make a temporary directory: %w", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "lock")); err != nil {
			held.Close()
			continue
		}
		return &scratch{dir, held}, nil
	}
}

// removeScratch removes the temporary directories of builds that are no more.
func removeScratch(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		dir := filepath.Join(root, e.Name())
		held, err := lock.Try(filepath.Join(dir, "lock"), true)
		if err != nil {
			continue // it is in use, or gone
		}
		// What cannot be removed now is tried again by the next build.
		_ = os.RemoveAll(dir)
		held.Close()
	}
	return nil
}

// Close removes the directory.
func (s *scratch) Close() error { return errors.Join(os.RemoveAll(s.dir), s.lock.Close()) }
