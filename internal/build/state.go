package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/lock"
	"github.com/layerbuild/layerbuild/internal/ns"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
)

// State is what is kept between builds: images, snapshots and cache, below one directory that several processes share.
type State struct {
	Root      string
	Store     *store.Store
	Snapshots *snapshot.Store
	Cache     *cache.Cache
	NS        ns.Info
	lock      *os.File
	owned     []io.Closer
}

// StateOptions say where and how the state is kept.
type StateOptions struct {
	// Root is the directory; it is made if it is missing.
	Root string
	// Driver is the snapshot driver's name; "" takes the best one that works here.
	Driver string
	// Exclusive waits until nobody else uses the state and keeps them out: for removing things.
	Exclusive bool
}

// OpenState opens the state and locks it, shared or exclusively, until Close.
func OpenState(ctx context.Context, o StateOptions) (_ *State, err error) {
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, err
	}
	info, err := ns.Current()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	s := &State{Root: root, NS: info}
	if s.lock, err = lock.Acquire(ctx, filepath.Join(root, "lock"), o.Exclusive); err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	defer func() {
		if err != nil {
			s.lock.Close()
		}
	}()
	if s.Store, err = store.Open(filepath.Join(root, "oci")); err != nil {
		return nil, err
	}
	if s.Snapshots, err = snapshot.Open(filepath.Join(root, "snapshots"), snapshot.Options{Driver: o.Driver, UserNS: info.Rootless}); err != nil {
		return nil, err
	}
	if s.Cache, err = cache.Open(filepath.Join(root, "cache")); err != nil {
		return nil, err
	}
	return s, nil
}

// Own closes c when the state is closed. It is not for concurrent use.
func (s *State) Own(c io.Closer) { s.owned = append(s.owned, c) }

// Close closes what the state owns, the last thing first, and releases the lock.
func (s *State) Close() error {
	var errs []error
	for _, c := range slices.Backward(s.owned) {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

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

// syncEarlier begins to sync the work of earlier builds, if it is due. Nobody waits for it.
func (s *State) syncEarlier(ctx context.Context) {
	info, err := os.Stat(s.unsynced())
	if err != nil || time.Since(info.ModTime()) < syncDelay || os.Remove(s.unsynced()) != nil {
		return
	}
	go func() {
		if s.Sync(ctx) != nil {
			s.noteUnsynced()
		}
	}()
}

// noteUnsynced leaves a note for a later build that there is something to sync. Without it the work is lost in a crash,
// which is no reason for a build to fail.
func (s *State) noteUnsynced() {
	if f, err := os.OpenFile(s.unsynced(), os.O_CREATE|os.O_EXCL, 0o644); err == nil {
		f.Close()
	}
}

// mountPoints is what the executor puts below a step's root; "" where it can't be had, which costs time only.
func (s *State) mountPoints() string {
	dir := filepath.Join(s.Root, "cache", "mountpoints")
	if executor.MakeMountPoints(dir) != nil {
		return ""
	}
	return dir
}

// path is a place of the conductor's own below the cache directory; it is made.
func (s *State) path(name ...string) (string, error) {
	dir := filepath.Join(append([]string{s.Root, "cache"}, name...)...)
	return dir, os.MkdirAll(dir, 0o700)
}
