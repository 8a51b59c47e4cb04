package diff

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
)

func TestUnchanged(t *testing.T) {
	mounttest.Need(t) // a root directory that is not owned by root:root is a change
	top := t.TempDir()
	lower, upper := mkdir(t, filepath.Join(top, "lower")), mkdir(t, filepath.Join(top, "upper"))
	check := func(what string, tree Tree, want bool) {
		t.Helper()
		got, err := Unchanged(t.Context(), tree)
		if err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", what, got, err, want)
		}
		layer, _ := sealed(t, tree, Options{})
		if got && layer.Entries != 0 {
			t.Errorf("%s: unchanged, and %d entries", what, layer.Entries)
		}
	}
	tree := Tree{Dir: upper, Lower: []string{lower, top}}
	check("an empty directory", tree, true)
	check("on nothing", Tree{Dir: upper}, true)
	check("a whole tree", Tree{Dir: upper, Lower: []string{lower}, Full: true}, false)
	if err := os.Chmod(upper, 0o700); err != nil {
		t.Fatal(err)
	}
	check("the root's mode", tree, false)
	if err := os.Chmod(upper, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(upper, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	check("a file", tree, false)
	if _, err := Unchanged(t.Context(), Tree{Dir: filepath.Join(top, "missing")}); err == nil {
		t.Error("a missing directory: no error")
	}
}
