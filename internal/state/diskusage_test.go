package state

import (
	"testing"
	"time"
)

// TestDiskUsage checks the kinds of the parts, what prune --all removes, and when parts were used.
func TestDiskUsage(t *testing.T) {
	m := newMaker(t)
	defer m.Close()
	m.fill()
	m.forget()
	parts, err := m.DiskUsage(t.Context())
	m.check(err)
	day := 24 * time.Hour
	want := map[string]struct {
		parent string
		unused time.Duration
	}{
		"base":      {"", day}, // a snapshot on it was used later
		"old":       {"base", 8 * day},
		"new":       {"base", day},
		"mount-old": {"", 7 * day},
	}
	counts := map[string]int{}
	var size int64
	for _, p := range parts {
		counts[p.Kind]++
		cached := p.Kind == PartBlob || p.Kind == PartSnapshot || p.Kind == PartMount
		if p.Reclaimable != cached || (p.Kind == PartImage) != (len(p.Images) == 1) {
			t.Errorf("%+v", p)
		}
		if p.Reclaimable {
			size += p.Size
		}
		w, ok := want[p.ID]
		if unused := time.Since(p.LastUsed); ok && (p.Parent != w.parent || unused < w.unused ||
			unused > w.unused+2*time.Hour) {
			t.Errorf("%+v, unused for %v, want %+v", p, unused, w)
		}
	}
	if counts[PartImage] != 4 || counts[PartSnapshot] != 7 || counts[PartMount] != 2 ||
		counts[PartBlob] != 5 || counts[PartRecords] == 0 {
		t.Errorf("there are %v parts", counts)
	}
	m.forget()
	done, err := m.Prune(t.Context(), PruneOptions{All: true, DryRun: true})
	m.check(err)
	if total := done.BlobBytes + done.SnapshotBytes + done.MountBytes; size != total {
		t.Errorf("%d bytes are reclaimable, and prune would remove %d", size, total)
	}
}
