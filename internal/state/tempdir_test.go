package state

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestTempDirOfTheDeadIsRemoved(t *testing.T) {
	root := t.TempDir()
	dead := filepath.Join(root, tempPrefix+"dead")
	if err := os.MkdirAll(filepath.Join(dead, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	living, other, none := NewTempDir(root), NewTempDir(root), NewTempDir(root)
	dir, err := living.Path()
	if err != nil {
		t.Fatal(err)
	}
	if err := RemoveTempDirs(root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("the directory of a dead build is still there: %v", err)
	}
	if second, err := other.Path(); err != nil || second == dir {
		t.Errorf("another build's is %s, %v; the first one's %s", second, err, dir)
	}
	if again, err := living.Path(); err != nil || again != dir {
		t.Errorf("asked again: %s, %v, want %s", again, err, dir)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("the directory of a living build is gone: %v", err)
	}
	for _, s := range []*TempDir{living, other, none} {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(root, tempPrefix+"*")); len(left) > 0 {
		t.Errorf("left after Close: %v", left)
	}
}

// Builds that start and end at the same time on one state directory do not disturb each other.
func TestTempDirAtOnce(t *testing.T) {
	root := t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				s := NewTempDir(root)
				if err := RemoveTempDirs(root); err != nil {
					t.Error(err)
				}
				dir, err := s.Path()
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, "file"), nil, 0o644)
				}
				if err := errors.Join(err, s.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
