package state

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Sync writes the state to the disk, so that everything built until now survives a crash, and is
// trusted on another machine if the directory is moved there.
//
// If ctx ends, Sync returns the cause as soon as the file system that is being written is on the
// disk: nothing can end syncfs(2). How long that takes depends on the amount of data that the
// kernel has not written yet.
func (s *State) Sync(ctx context.Context) error {
	n, err := s.ledger.Begin(ctx)
	if err != nil {
		return err
	}
	synced := map[uint64]bool{}
	for _, dir := range []string{s.Root, filepath.Join(s.Root, storeName),
		filepath.Join(s.Root, snapshotsName), s.cachePath()} {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := syncfs(dir, synced); err != nil {
			return err
		}
	}
	return s.ledger.Done(ctx, n)
}

// syncfs writes the file system of a directory to the disk, unless its device is in done.
func syncfs(path string, done map[uint64]bool) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if done[st.Dev] {
		return nil
	}
	done[st.Dev] = true
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// syncDelay is the minimum age of unsynced work that a build syncs. By then the kernel has written
// nearly all of it (vm.dirty_expire_centisecs is 30 s), so that the sync costs the build little.
const syncDelay = time.Minute

// SyncEarlier starts to sync the work of earlier builds, if it is due. Close waits for the sync.
// ctx must not end before Close, unless the sync is to be given up: the next build then tries
// again.
func (s *State) SyncEarlier(ctx context.Context) {
	since, ok := s.ledger.Unsynced()
	if !ok || time.Since(since) < syncDelay {
		return
	}
	// If it fails the note stays, and a later build tries again.
	s.background.Go(func() { _ = s.Sync(ctx) })
}

// NoteUnsynced records that a later build has work to sync. It ignores errors, also that ctx has
// ended while another process had the ledger locked: without the note the work may be lost in a
// crash, but the build need not fail.
func (s *State) NoteUnsynced(ctx context.Context) {
	s.wrote.Store(true)
	_ = s.ledger.Note(ctx)
}
