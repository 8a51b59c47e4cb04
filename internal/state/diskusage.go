package state

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/sorting"
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
	// Created and LastUsed are zero if they are not known.
	Created  time.Time `json:"created,omitzero"`
	LastUsed time.Time `json:"lastUsed,omitzero"`
}

// DiskUsage returns the parts of the state, the largest first. Sizes that were measured before are
// not measured again; those of cache mounts may be an hour old.
func (s *State) DiskUsage(ctx context.Context) ([]Part, error) {
	images, err := s.namedBlobs(ctx)
	if err != nil {
		return nil, err
	}
	u := s.readUsage()
	defer u.save()
	var list []Part
	blobs := s.blobsDir()
	for _, name := range names(blobs) {
		p := Part{Kind: PartBlob, ID: "sha256:" + name, Size: u.blob(blobs, name)}
		if p.Images = images[p.ID]; len(p.Images) > 0 {
			p.Kind = PartImage
		}
		list = append(list, p)
	}
	for _, in := range s.snapshotStores() {
		for _, id := range in.IDs() {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			list = append(list, Part{Kind: PartSnapshot, ID: string(id), Size: u.snapshot(in, id)})
		}
	}
	for _, name := range names(s.cachePath(Mounts)) {
		list = append(list, Part{Kind: PartMount, ID: name, Size: u.mount(name)})
	}
	for _, name := range names(s.cachePath()) {
		if name != Mounts {
			list = append(list, Part{Kind: PartRecords, ID: name,
				Size: treeSize(s.cachePath(name))})
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
