package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/layerbuild/layerbuild/internal/lock"
)

// tempPrefix is the prefix of the names of temporary directories in the state directory.
const tempPrefix = "tmp-"

// TempDir is a temporary directory of one build. It is made by the first call of Path or Make,
// since most builds need none. A lock on it shows other processes that the build is running.
type TempDir struct {
	root string

	// mu is held while the directory is made. That is done once, and other callers of Path wait for
	// its result.
	mu   sync.Mutex
	dir  string // "" until it is made
	lock *lock.Held
}

// NewTempDir returns a temporary directory below root, which has not been made yet.
func NewTempDir(root string) *TempDir { return &TempDir{root: root} }

// Path makes the directory, if there is none yet, and returns it.
func (s *TempDir) Path() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.dir == "" {
		dir, err := os.MkdirTemp(s.root, tempPrefix)
		if err != nil {
			return "", fmt.Errorf("make a temporary directory: %w", err)
		}
		held, err := lock.TryDir(dir)
		// Between mkdir and flock, another build may remove the directory as abandoned. Then make
		// another one.
		if errors.Is(err, lock.ErrHeld) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("make a temporary directory: %w", err)
		}
		s.dir, s.lock = dir, held
	}
	return s.dir, nil
}

// Make makes a new directory in it. The name begins with prefix.
func (s *TempDir) Make(prefix string) (string, error) {
	dir, err := s.Path()
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(dir, prefix+"-")
}

// Close removes the directory, if there is one.
func (s *TempDir) Close() error {
	s.mu.Lock()
	dir, held := s.dir, s.lock
	s.mu.Unlock()
	if dir == "" {
		return nil
	}
	return errors.Join(os.RemoveAll(dir), held.Close())
}

// RemoveTempDirs removes the temporary directories of builds that were killed.
func RemoveTempDirs(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		dir := filepath.Join(root, e.Name())
		held, err := lock.TryDir(dir)
		if err != nil {
			continue // in use, or removed
		}
		// If this fails, the next build tries again.
		_ = os.RemoveAll(dir)
		held.Close()
	}
	return nil
}
