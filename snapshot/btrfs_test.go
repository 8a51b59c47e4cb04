package snapshot_test

import (
	"testing"

	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
	"github.com/layerbuild/layerbuild/snapshot"
	"github.com/layerbuild/layerbuild/snapshot/snapshottest"
)

// TestBtrfs runs the conformance suite on a btrfs file system, with both drivers that can use it.
func TestBtrfs(t *testing.T) {
	if !snapshottest.IsChild() {
		// All temporary directories are on the btrfs file system.
		t.Setenv("TMPDIR", mounttest.LoopMount(t, 512<<20, "mkfs.btrfs", "-q"))
	}
	open := func(driver string) func(*testing.T, string) *snapshot.Store {
		return func(t *testing.T, root string) *snapshot.Store {
			t.Helper()
			s, err := snapshot.Open(t.Context(), root, snapshot.Options{Driver: driver})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
	t.Run("btrfs", func(t *testing.T) { snapshottest.Run(t, open("btrfs")) })
	t.Run("mixed", func(t *testing.T) {
		root := t.TempDir()
		parent := snapshot.ID("")
		for _, step := range []struct {
			id     snapshot.ID
			driver string
		}{{"a", "copy"}, {"b", "btrfs"}, {"c", "btrfs"}, {"d", "copy"}, {"e", "btrfs"}} {
			s := open(step.driver)(t, root)
			a, err := s.Prepare(t.Context(), parent)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Commit(t.Context(), step.id); err != nil {
				t.Fatal(err)
			}
			parent = step.id
		}
		for _, step := range []struct {
			id     snapshot.ID
			driver string
		}{{"e", "copy"}, {"d", "btrfs"}, {"c", "copy"}, {"b", "btrfs"}, {"a", "btrfs"}} {
			if err := open(step.driver)(t, root).Remove(t.Context(), step.id); err != nil {
				t.Error(err)
			}
		}
	})
}
