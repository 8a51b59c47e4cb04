package source

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestDigestTimes checks that the digest depends on the times that copies get, and on no other
// times.
func TestDigestTimes(t *testing.T) {
	dir := makeTree(t, "dir d 0755\nfile d/f x\n")
	at := func(name string, sec int64) {
		t.Helper()
		when := time.Unix(sec, 0)
		if err := os.Chtimes(filepath.Join(dir, name), when, when); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name          string
		epoch         int64 // 0: none
		change        string
		before, after int64
		differs       bool
	}{
		{"no epoch, a file", 0, "d/f", 100, 200, false},
		{"a file before the epoch", 1000, "d/f", 100, 200, true},
		{"a file after the epoch", 1000, "d/f", 1000, 2000, false},
		{"a file that becomes older than the epoch", 1000, "d/f", 2000, 999, true},
		{"a directory before the epoch", 1000, "d", 100, 200, true},
		{"a directory after the epoch", 1000, "d", 2000, 3000, false},
		{"the directory itself before the epoch", 1000, ".", 100, 200, true},
		{"the directory itself after the epoch", 1000, ".", 2000, 3000, false},
		{"no epoch, the directory itself", 0, ".", 100, 200, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := Query{Patterns: []string{"."}}
			if tt.epoch != 0 {
				q.Epoch = &tt.epoch
			}
			digest := func() string {
				m, err := openTree(t, dir, TreeOptions{}).Match(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				return m.Digest.String()
			}
			at("d/f", 5000)
			at("d", 5000)
			at(tt.change, tt.before)
			before := digest()
			at(tt.change, tt.after)
			if differs := digest() != before; differs != tt.differs {
				t.Errorf("time %d becomes %d with epoch %d: another digest is %v, want %v",
					tt.before, tt.after, tt.epoch, differs, tt.differs)
			}
		})
	}
}

// TestDigestRoot checks that the mode of the directory itself is in the digest if Query.Root is
// set.
func TestDigestRoot(t *testing.T) {
	dir := makeTree(t, "dir d 0755\nfile d/f x\n")
	digest := func(q Query) string {
		t.Helper()
		q.Patterns = []string{"d"}
		m, err := openTree(t, dir, TreeOptions{}).Match(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return m.Digest.String()
	}
	for _, tt := range []struct {
		q       Query
		differs bool
	}{
		{Query{}, false},
		{Query{KeepOwner: true}, false},
		{Query{Root: true}, true},
		{Query{Root: true, KeepOwner: true}, true},
	} {
		if err := os.Chmod(filepath.Join(dir, "d"), 0o755); err != nil {
			t.Fatal(err)
		}
		before := digest(tt.q)
		if err := os.Chmod(filepath.Join(dir, "d"), 0o700); err != nil {
			t.Fatal(err)
		}
		if differs := digest(tt.q) != before; differs != tt.differs {
			t.Errorf("mode 755 becomes 700, query %+v: another digest is %v, want %v",
				tt.q, differs, tt.differs)
		}
	}
}
