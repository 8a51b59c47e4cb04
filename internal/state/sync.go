package state

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

// Sync writes the state to the disk, so that what was built until now outlasts a crash, and is trusted on another
// machine that is given the directory.
func (s *State) Sync(ctx context.Context) error {
	mark, err := s.Cache.BeginSync()
	if err != nil {
		return err
	}
	if err := s.Snapshots.Sync(ctx); err != nil {
		return err
	}
	return mark.Done()
}

// syncDelay is how old unsynced work is before a build syncs it. By then the kernel has written nearly all of it
// (vm.dirty_expire_centisecs is 30 s), so that the sync costs the build little.
const syncDelay = time.Minute

func (s *State) unsynced() string { return filepath.Join(s.Root, "cache", "unsynced") }

// SyncEarlier begins to sync the work of earlier builds, if it is due. Nobody waits for it.
func (s *State) SyncEarlier(ctx context.Context) {
	info, err := os.Stat(s.unsynced())
	if err != nil || time.Since(info.ModTime()) < syncDelay || os.Remove(s.unsynced()) != nil {
		return
	}
	go func() {
		if s.Sync(ctx) != nil {
			s.NoteUnsynced()
		}
	}()
}

// NoteUnsynced leaves a note for a later build that there is something to sync. Without it the work is lost in a crash,
// which is no reason for a build to fail.
func (s *State) NoteUnsynced() {
	if f, err := os.OpenFile(s.unsynced(), os.O_CREATE|os.O_EXCL, 0o644); err == nil {
		f.Close()
	}
}
