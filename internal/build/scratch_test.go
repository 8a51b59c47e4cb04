package build

import (
	"os"
	"path/filepath"
	"testing"
)

func TestScratchOfTheDeadIsRemoved(t *testing.T) {
	root := t.TempDir()
	dead := filepath.Join(root, tempPrefix+"dead")
	if err := os.MkdirAll(filepath.Join(dead, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	living, err := newScratch(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("the directory of a dead build is still there: %v", err)
	}
	other, err := newScratch(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(living.dir); err != nil {
		t.Errorf("the directory of a living build is gone: %v", err)
	}
	for _, s := range []*scratch{living, other} {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(root, tempPrefix+"*")); len(left) > 0 {
		t.Errorf("left after Close: %v", left)
	}
}
