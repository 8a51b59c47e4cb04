package state

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/sorting"
	digest "github.com/opencontainers/go-digest"
)

// The kinds of parts of the state.
const (
	PartImage    = "image"    // a blob of an image with a name
	PartBlob     = "blob"     // another blob: of images without a name, of bases, of the cache
	PartSnapshot = "snapshot" // an unpacked layer, or the result of a step
	PartMount    = "mount"    // the directory of a RUN --mount=type=cache
	PartRecords  = "records"  // the results of steps and the answers of registries
)

// Parts lists the kinds of parts of the state.
func Parts() []string {
	return []string{PartImage, PartBlob, PartSnapshot, PartMount, PartRecords}
}

// Part is a part of the state.
type Part struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`   // a digest, or the name of a directory
	Size int64  `json:"size"` // in bytes, on the disk
	// Images are the names of the images that have the blob.
	Images []string `json:"images,omitempty"`
	// Parent is the snapshot below a snapshot.
	Parent string `json:"parent,omitempty"`
	// Reclaimable is set if Prune with PruneOptions.All removes the part. DiskUsage sets it.
	Reclaimable bool `json:"reclaimable,omitempty"`
	// Created and LastUsed are zero if they are not known.
	Created  time.Time `json:"created,omitzero"`
	LastUsed time.Time `json:"lastUsed,omitzero"`
}

// DiskUsage returns the parts of the state, the largest first. Sizes that were measured before are
// not measured again; those of cache mounts may be an hour old. It waits while another process
// collects.
func (s *State) DiskUsage(ctx context.Context) ([]Part, error) {
	images, err := s.namedBlobs(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.survey(ctx)
	if err != nil {
		return nil, err
	}
	var list []Part
	used := map[digest.Digest]time.Time{}
	for _, u := range c.units {
		for _, d := range u.blobs {
			if u.used.After(used[d]) {
				used[d] = u.used
			}
		}
		if u.snapshot != "" && !u.lazy || u.mount != "" {
			p := c.part(u)
			p.Reclaimable = u.removed
			list = append(list, p)
		}
	}
	live := c.live()
	for d := range c.blobs {
		p := c.blobPart(d)
		if used[d].After(p.LastUsed) {
			p.LastUsed = used[d]
		}
		p.Reclaimable = !live[d]
		if p.Images = images[p.ID]; len(p.Images) > 0 {
			p.Kind = PartImage
		}
		list = append(list, p)
	}
	for _, name := range names(s.cachePath()) {
		if name != Mounts {
			p := Part{Kind: PartRecords, ID: name, Size: treeSize(s.cachePath(name))}
			if fi, err := os.Lstat(s.cachePath(name)); err == nil {
				p.LastUsed = fi.ModTime()
			}
			list = append(list, p)
		}
	}
	sorting.StableFunc(list, func(a, b Part) int {
		if a.Size != b.Size {
			return int(max(-1, min(1, b.Size-a.Size)))
		}
		return strings.Compare(a.Kind+a.ID, b.Kind+b.ID)
	})
	return list, nil
}

// survey returns a collection that has selected what 'prune --all' removes.
func (s *State) survey(ctx context.Context) (*collection, error) {
	release, err := s.leases.collecting(ctx, 0)
	if err != nil {
		return nil, err
	}
	c := s.newCollection(PruneOptions{All: true, DryRun: true})
	err = c.load(ctx)
	if err == nil {
		_, err = c.choose()
	}
	c.usage.save()
	return c, errors.Join(err, release())
}

// namedBlobs returns the names of the images that have each blob.
func (s *State) namedBlobs(ctx context.Context) (map[string][]string, error) {
	entries, err := s.Store.Names(ctx)
	if err != nil {
		return nil, err
	}
	of := map[string][]string{}
	for _, e := range entries {
		if e.Name == "" {
			continue
		}
		use, err := s.Store.Usage(ctx, e.Descriptor)
		if err != nil {
			return nil, err
		}
		for _, b := range use.Blobs {
			if id := b.String(); !slices.Contains(of[id], e.Name) {
				of[id] = append(of[id], e.Name)
			}
		}
	}
	return of, nil
}
