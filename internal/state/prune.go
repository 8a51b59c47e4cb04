package state

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PruneOptions say what Prune removes besides what is of no use to anybody.
type PruneOptions struct {
	// All removes the whole build cache.
	All bool
	// Unused removes what was not used for so long; 0: no limit.
	Unused time.Duration
	// Keep removes the least recently used snapshots until the rest takes up no more than so many bytes; 0: no limit.
	Keep int64
	// DryRun removes nothing.
	DryRun bool
}

// Pruned is what was removed, or would be.
type Pruned struct {
	Images        int   `json:"images"` // that had no name
	Blobs         int   `json:"blobs"`
	BlobBytes     int64 `json:"blobBytes"`
	Records       int   `json:"records"`
	Snapshots     int   `json:"snapshots"`
	SnapshotBytes int64 `json:"snapshotBytes"`
	Mounts        int   `json:"mounts"`
	MountBytes    int64 `json:"mountBytes"`
}

// Images knows the images that have no name in the store and are nevertheless kept.
type Images interface {
	Roots() ([]ocispec.Descriptor, error)
}

// Prune removes what nothing leads to. The state must have been opened exclusively.
func (s *State) Prune(ctx context.Context, images Images, o PruneOptions) (Pruned, error) {
	var done Pruned
	blobs := func(ctx context.Context, s *State, o PruneOptions) error { return done.blobs(ctx, s, images, o) }
	steps := []func(context.Context, *State, PruneOptions) error{done.images, done.cache, blobs, done.mounts, done.dropKept, done.leftOver}
	for _, step := range steps {
		if err := step(ctx, s, o); err != nil {
			return done, err
		}
	}
	return done, nil
}

// images removes images without a name.
func (done *Pruned) images(ctx context.Context, s *State, o PruneOptions) error {
	entries, err := s.Store.Names()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name != "" {
			continue
		}
		done.Images++
		if o.DryRun {
			continue
		}
		if err := s.Store.Forget(ctx, e.Descriptor.Digest); err != nil {
			return err
		}
	}
	return nil
}

// blobs removes those that neither a name nor what is remembered of registries leads to.
func (done *Pruned) blobs(ctx context.Context, s *State, images Images, o PruneOptions) error {
	roots, err := images.Roots()
	if err != nil {
		return err
	}
	got, err := s.Store.Collect(ctx, store.CollectOptions{Roots: roots, DryRun: o.DryRun})
	done.Blobs, done.BlobBytes = got.Blobs, got.Bytes
	return err
}

// cache removes records, and then the snapshots that no record leads to.
func (done *Pruned) cache(ctx context.Context, s *State, o PruneOptions) error {
	sizes := map[string]int64{}
	size := func(id string) int64 {
		n, ok := sizes[id]
		if !ok {
			n = treeSize(filepath.Join(s.Root, "snapshots", id))
			sizes[id] = n
		}
		return n
	}
	exists := func(id string) bool {
		if id == "" {
			return true // what was made on nothing at all
		}
		_, err := s.Snapshots.Stat(snapshot.ID(id))
		return err == nil
	}
	promised := map[string]bool{}
	for e, err := range s.Cache.All(cache.Steps) {
		if err != nil {
			return err
		}
		if _, ok := s.LazyLayer(e.Record); ok && exists(e.Meta[LazyParent]) {
			promised[e.Snapshot] = true
		}
	}
	po := cache.PruneOptions{
		Exists: func(id string) bool { return promised[id] || exists(id) },
		Unused: o.Unused, Keep: o.Keep, Size: size, DryRun: o.DryRun,
	}
	if o.All {
		po.Keep = -1
	}
	got, err := s.Cache.Prune(ctx, po)
	if err != nil {
		return err
	}
	done.Records = got.Records
	return done.snapshots(ctx, s, o, got.Live, size)
}

// snapshots removes those that are neither live nor below one that is, children before their parents.
func (done *Pruned) snapshots(ctx context.Context, s *State, o PruneOptions, live map[string]bool, size func(string) int64) error {
	parent := map[snapshot.ID]snapshot.ID{}
	children := map[snapshot.ID]int{}
	var dead []snapshot.ID
	for info, err := range s.Snapshots.All() {
		if err != nil && info.ID == "" {
			return err
		}
		parent[info.ID] = info.Parent
		children[info.Parent]++
	}
	for id := range parent {
		if children[id] == 0 && !live[string(id)] {
			dead = append(dead, id)
		}
	}
	for len(dead) > 0 {
		id := dead[len(dead)-1]
		dead = dead[:len(dead)-1]
		done.Snapshots++
		done.SnapshotBytes += size(string(id))
		if !o.DryRun {
			if err := s.Snapshots.Remove(ctx, id); err != nil {
				return err
			}
		}
		up := parent[id]
		if children[up]--; up != "" && children[up] == 0 && !live[string(up)] {
			dead = append(dead, up)
		}
	}
	return ctx.Err()
}

// mounts empties cache mounts, with All only: they are what a person would miss most.
func (done *Pruned) mounts(_ context.Context, s *State, o PruneOptions) error {
	top := filepath.Join(s.Root, "cache", "mounts")
	entries, err := os.ReadDir(top)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(top, e.Name())
		info, err := e.Info()
		if err != nil {
			return err
		}
		if !o.All && (o.Unused == 0 || time.Since(info.ModTime()) < o.Unused) {
			continue
		}
		done.Mounts++
		done.MountBytes += treeSize(dir)
		if o.DryRun {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// leftOver removes the temporary directories of builds that were killed.
func (done *Pruned) leftOver(_ context.Context, s *State, o PruneOptions) error {
	if o.DryRun {
		return nil
	}
	return RemoveTempDirs(s.Root)
}

// treeSize adds up the regular files below dir. What cannot be read counts nothing.
func treeSize(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}
