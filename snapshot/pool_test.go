package snapshot

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPool checks that a snapshot in the pool is used for the next step on the same parent, that
// the pool keeps one for each parent, and that Close discards what is left.
func TestPool(t *testing.T) {
	root := t.TempDir()
	s := testStore(t, root)
	commit(t, s, "base", "", "file a 0644 x")
	p := &Pool{From: s}
	take := func(parent ID) *Active {
		t.Helper()
		active, err := p.Take(t.Context(), parent)
		check(t, err)
		return active
	}
	one, two, other := take("base"), take("base"), take("")
	if one == two {
		t.Fatal("two steps have the same snapshot")
	}
	check(t, p.Put("base", one))
	check(t, p.Put("base", two)) // discarded
	check(t, p.Put("", other))
	if got := take("base"); got != one {
		t.Error("the snapshot of the pool is not used")
	}
	if got := take("base"); got == one || got == two {
		t.Error("a snapshot is used twice")
	} else {
		check(t, got.Discard())
	}
	check(t, one.Discard())
	check(t, p.Close())
	left, err := os.ReadDir(filepath.Join(root, s.Home(), "tmp"))
	check(t, err)
	if len(left) > 0 {
		t.Errorf("Close has left %v", left)
	}
}
