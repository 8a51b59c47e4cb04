package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/lock/locktest"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
)

// openTest opens the state in dir. It uses the driver copy if no other driver works.
func openTest(t testing.TB, dir string) *State {
	t.Helper()
	mounttest.Need(t)
	s, err := Open(t.Context(), Options{Root: dir, Driver: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSyncEarlier checks that the note of unsynced work is removed after the sync has succeeded,
// and that Close waits for the sync.
func TestSyncEarlier(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir)
	s.NoteUnsynced(t.Context())
	s.SyncEarlier(t.Context())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.ledger.Unsynced(); !ok {
		t.Fatal("work that is not old is synced")
	}
	age(t, dir)

	s = openTest(t, dir)
	hidden := filepath.Join(dir, "hidden")
	if err := os.Rename(filepath.Join(dir, "oci"), hidden); err != nil {
		t.Fatal(err)
	}
	s.SyncEarlier(t.Context())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.ledger.Unsynced(); !ok {
		t.Fatal("the note is gone after a sync that failed")
	}
	if err := os.Rename(hidden, filepath.Join(dir, "oci")); err != nil {
		t.Fatal(err)
	}

	s = openTest(t, dir)
	s.SyncEarlier(t.Context())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.ledger.Unsynced(); ok {
		t.Error("the state is closed, and the sync has not ended")
	}
}

// TestSyncCanceled cancels syncs and notes that wait for the ledger's lock.
func TestSyncCanceled(t *testing.T) {
	s := openTest(t, t.TempDir())
	defer s.Close()
	for name, call := range map[string]func(context.Context) error{
		"Sync": s.Sync,
		"NoteUnsynced": func(ctx context.Context) error {
			s.NoteUnsynced(ctx)
			return context.Cause(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			locktest.Canceled(t, filepath.Join(s.Root, "cache", "lock"), call)
		})
	}
}

// age makes the note of unsynced work old enough for a sync.
func age(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "cache", "syncs")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var boot string
	var begun, done, noted int
	var since int64
	if _, err := fmt.Sscan(string(data), &boot, &begun, &done, &noted, &since); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	since -= int64((syncDelay + time.Second).Seconds())
	if err := os.WriteFile(path, fmt.Appendf(nil, "%s %d %d %d %d\n", boot, begun, done, noted,
		since), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestSetAsideHeld checks that a file of the right type that another process has made meanwhile is
// kept.
func TestSetAsideHeld(t *testing.T) {
	dir := t.TempDir()
	file, sub := filepath.Join(dir, "file"), filepath.Join(dir, "sub")
	if err := errors.Join(os.WriteFile(file, []byte("held"), 0o600),
		os.Mkdir(sub, 0o700)); err != nil {
		t.Fatal(err)
	}
	for path, wasDir := range map[string]bool{file: true, sub: false,
		filepath.Join(dir, "gone"): true} {
		if to, err := setAside(path, wasDir); to != "" || err != nil {
			t.Errorf("setAside(%s) = %q, %v", path, to, err)
		}
	}
	if got := names(dir); len(got) != 2 {
		t.Errorf("there is %q", got)
	}
	if to, err := setAside(file, false); to == "" || err != nil {
		t.Errorf("setAside = %q, %v", to, err)
	}
}
