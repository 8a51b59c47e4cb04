package state

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/layerbuild/layerbuild/internal/store"
	"golang.org/x/sys/unix"
)

// PruneOptions select the data that Prune removes besides unreachable data.
type PruneOptions struct {
	// All removes the whole build cache.
	All bool
	// Unused removes data that were not used for this time; 0: no limit.
	Unused time.Duration
	// Only removes the parts of the build cache and the images without a name for which it returns
	// true, and nothing else; nil: no limit.
	Only func(Part) bool
	// KeepImages keeps the images without a name.
	KeepImages bool

	// Keep, MaxUsed and MinFree are numbers of bytes; 0: none. With one of them, the least recently
	// used of what All, Unused and Only select, or else of the whole build cache, is removed until
	// the cache has at most MaxUsed bytes and the file system has MinFree free ones. Keep bytes of
	// the cache are kept in any case; if it is given alone, the cache is reduced to it. The cache
	// is everything except the blobs of images with a name.
	Keep, MaxUsed, MinFree int64
	// OnlyImages removes only the entries of Images, except those that other processes use, and
	// the blobs that no image and no record of the cache needs.
	OnlyImages bool
	Images     []store.Entry
	// DryRun removes nothing.
	DryRun bool
	// Removed, if it is not nil, is called for each part that is removed, or would be.
	Removed func(Part)

	// Since is the time when the build began, if a build collects: everything used since then is
	// kept, and so are the blobs of kept snapshots' layers. The prune command uses the zero value.
	Since time.Time
}

// cacheLimit returns the size to which a collection reduces the cache, and reports whether there is
// one. before is the size of the cache and free that of the free space, before the collection.
func (o PruneOptions) cacheLimit(before, free int64) (limit int64, limited bool) {
	limit = math.MaxInt64
	switch {
	case o.MaxUsed > 0:
		limit = o.MaxUsed
	case o.MinFree == 0:
		return o.Keep, o.Keep > 0
	}
	if missing := o.MinFree - free; missing > 0 {
		limit = min(limit, before-missing)
	}
	return max(limit, o.Keep), true
}

// Pruned describes the data that were removed, or would be.
type Pruned struct {
	Images        int   `json:"images"` // images without a name, or those of PruneOptions.Images
	Blobs         int   `json:"blobs"`
	BlobBytes     int64 `json:"blobBytes"`
	Records       int   `json:"records"`
	Snapshots     int   `json:"snapshots"`
	SnapshotBytes int64 `json:"snapshotBytes"`
	Mounts        int   `json:"mounts"`
	MountBytes    int64 `json:"mountBytes"`

	Others int `json:"-"` // number of other processes that use the state, whose data are kept
}

// Prune removes unreachable data and the data that the options select, except data that other
// processes use.
func (s *State) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	done, u, err := s.collect(ctx, o, 0)
	if u == nil {
		return done, err
	}
	if err == nil && !o.DryRun {
		u.collected()
	} else {
		u.save()
	}
	return done, err
}

// Policy limits the size of the state after a build.
type Policy struct {
	// Limit is the largest size of the build cache in bytes: snapshots, cache mounts, and the blobs
	// to which no image with a name refers. 0: the smaller of a tenth of the file system and
	// defaultLimit. NoLimit: any size.
	Limit int64
}

// NoLimit is the limit of a policy that never collects.
const NoLimit = -1

// defaultLimit is the largest limit if none is given.
const defaultLimit = 20e9

// limit returns the limit in bytes.
func (p Policy) limit(root string) (int64, error) {
	if p.Limit != 0 {
		return p.Limit, nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: root, Err: err}
	}
	if st.Blocks == 0 { // some file systems do not report their size
		return defaultLimit, nil
	}
	return min(defaultLimit, int64(st.Blocks)*st.Bsize/10), nil
}

// slack is a number of bytes. If the state is below the limit, a build collects only after the
// state has grown by slack plus the size of the cache after the last collection. So a larger state,
// which takes longer to collect, is collected less often.
const slack = 64 << 20

// Collect removes data that exceed the policy's limit, if the build has written data and the state
// has grown enough since the last collection. It must be called just before Close, at the end of a
// build that began at since, when nothing else in this process uses the state. It keeps everything
// used since then, and the data of other processes.
func (s *State) Collect(ctx context.Context, p Policy, since time.Time) error {
	if p.Limit == NoLimit || !s.wrote.Load() {
		return nil
	}
	limit, err := p.limit(s.Root)
	if err != nil {
		return err
	}
	u := s.readUsage()
	grown := u.total() - u.after
	u.save()
	if u.cache+grown <= limit && grown <= u.cache+slack {
		return nil
	}
	// Removing a little more than needed makes room for the next builds, so that not every build
	// collects.
	_, u, err = s.collect(ctx, PruneOptions{Keep: max(limit-limit/10, 1),
		Since: since.Add(-time.Second)}, gateWait)
	if errors.Is(err, errGateHeld) {
		return nil
	}
	if err != nil {
		if u != nil {
			u.save()
		}
		return fmt.Errorf("collect the build cache: %w", err)
	}
	u.collected()
	return nil
}
