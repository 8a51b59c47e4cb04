package build

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
)

// A COPY that ends an image is needed as a layer only. It is written straight from the files that are copied, and the
// snapshot is promised: it is unpacked from the layer should a later build, or anybody, need it.

// endsImage says whether of step n of a stage nobody needs anything but the layer.
func (s *solver) endsImage(st *parser.Stage, n int) bool {
	if st != s.plan.Target || n != s.total(st)+1 || !s.wantsImage() || s.opts.Analyze || !s.state.Snapshots.Layered() {
		return false
	}
	for _, o := range s.opts.Outputs {
		if o.Flat() {
			return false
		}
	}
	return true
}

// straight does a job without making its snapshot. It is false where that cannot be: then nothing was done.
func (s *solver) straight(ctx context.Context, cur rootfs, j *job, out output) (res stepResult, ok bool, err error) {
	c := j.copier
	if c == nil || j.detached || len(c.remotes) > 0 {
		return res, false, nil
	}
	s.dirty.Store(true)
	id, err := newID()
	if err != nil {
		return res, false, err
	}
	if err := s.lazy.Materialize(ctx, cur.top); err != nil {
		return res, false, err
	}
	active, err := s.state.Snapshots.Prepare(ctx, cur.top)
	if err != nil {
		return res, false, err
	}
	defer func() { err = errors.Join(err, active.Discard()) }()
	c.leave = true
	err = c.do(ctx, active, out)
	c.leave = false
	if err != nil {
		return res, false, err
	}
	if c.left == nil { // it was better copied
		if err := active.Commit(ctx, id); err != nil {
			return res, false, err
		}
		res, err = s.record(j, cache.Record{Snapshot: string(id)})
		return res, err == nil, err
	}
	left := c.takeLeft()
	l, err := s.sealer.WriteDeferred(ctx, active.Changes(), left)
	if err != nil {
		if ctx.Err() != nil {
			return res, false, context.Cause(ctx)
		}
		c.whole = true
		return res, false, nil // copying tells what is wrong, if anything is
	}
	if err := s.checkLayerOnly(ctx, j, active, left.Path, l); err != nil {
		return res, false, err
	}
	if err := s.state.Cache.PutSealed(string(id), s.sealer.Format(), l); err != nil {
		return res, false, err
	}
	s.promiseLayer(id, cur.top, l)
	res, err = s.record(j, cache.Record{Snapshot: string(id), Lazy: &cache.Lazy{Parent: string(cur.top), Sealed: s.sealer.Format()}})
	return res, err == nil, err
}

// takeLeft gives what a copier has left to the caller.
func (c *copier) takeLeft() *executor.Left {
	left := c.left
	c.left = nil
	return left
}

// dropLeft closes what a copier has left.
func (c *copier) dropLeft() error {
	if left := c.takeLeft(); left != nil {
		return left.Dir.Close()
	}
	return nil
}

// A COPY that others run after is needed as a snapshot and as a layer. Both are made at once: the layer straight from
// the files, while they are copied.

// What is less is sealed faster than another destination is made.
const (
	earlyFiles = 100
	earlyBytes = 4 << 20
)

// sealsEarly says whether a job's layer is worth writing while its files are copied.
func (s *solver) sealsEarly(st *parser.Stage, j *job) bool {
	c := j.copier
	if c == nil || st == nil || j.detached || c.whole || len(c.remotes) > 0 || c.match == nil || len(c.match.Items) != 1 ||
		s.opts.Analyze || !s.state.Snapshots.Layered() || !s.sealed[st] {
		return false
	}
	list := c.match.Items[0].Entries
	if list.Len() >= earlyFiles {
		return true
	}
	size := int64(0)
	for e := range list.All() {
		size += e.Size
	}
	return size >= earlyBytes
}

// copyLeft begins to seal what a job has left in active, which is discarded, as the layer of a snapshot to be, and does the
// job once more on the snapshot that it returns.
func (s *solver) copyLeft(ctx context.Context, id snapshot.ID, active *snapshot.Active, left *executor.Left, do jobFunc, out output) (*snapshot.Active, error) {
	parent := active.Parent()
	times, err := timesAbove(active.Upper(), left.Path)
	s.sealer.WriteEarly(id, active, left)
	if err != nil {
		return nil, err
	}
	if active, err = s.state.Snapshots.Prepare(ctx, parent); err != nil {
		return nil, err
	}
	if err = do(ctx, active, out); err == nil {
		err = setTimes(active.Upper(), times)
	}
	if err != nil {
		return nil, errors.Join(err, active.Discard())
	}
	return active, nil
}

// Directories above a destination change when something is made in them. The layer has the times of the first attempt,
// and so the snapshot gets them, too.

func timesAbove(top, dir string) (map[string]time.Time, error) {
	times := map[string]time.Time{}
	for dir = path.Dir(dir); dir != "."; dir = path.Dir(dir) {
		fi, err := os.Lstat(filepath.Join(top, dir))
		if err != nil {
			return nil, err
		}
		times[dir] = fi.ModTime()
	}
	return times, nil
}

func setTimes(top string, times map[string]time.Time) error {
	for dir, t := range times {
		if err := os.Chtimes(filepath.Join(top, dir), time.Time{}, t); err != nil {
			return err
		}
	}
	return nil
}

// promiseLayer promises to unpack a layer of the own store.
func (s *solver) promiseLayer(id, on snapshot.ID, l cache.Layer) {
	s.lazy.Add(id, func(ctx context.Context) error {
		if err := s.lazy.Materialize(ctx, on); err != nil {
			return err
		}
		s.dirty.Store(true)
		return s.images.UnpackOn(ctx, image.Stored(l.Descriptor, l.DiffID), on, id, image.UnpackOptions{Sink: s.sink})
	})
}

// promised promises again what an earlier build has promised and nobody has needed yet. It is false if the record is no
// such promise, or if its layer is gone.
func (s *solver) promised(rec cache.Record) (snapshot.Info, bool) {
	l, ok := s.state.LazyLayer(rec)
	if !ok {
		return snapshot.Info{}, false
	}
	info := snapshot.Info{ID: snapshot.ID(rec.Snapshot), Parent: snapshot.ID(rec.Lazy.Parent)}
	s.promiseLayer(info.ID, info.Parent, l)
	return info, true
}

// checkLayerOnly compares the layer of a COPY that was written without a snapshot with what the COPY makes. active is
// what the job has left beside the files of the layer.
func (s *solver) checkLayerOnly(ctx context.Context, j *job, active *snapshot.Active, dir string, got cache.Layer) error {
	if s.checker == nil {
		return nil
	}
	times, err := timesAbove(active.Upper(), dir)
	if err != nil {
		return err
	}
	id, err := newID()
	if err != nil {
		return err
	}
	return s.checker.LayerOnly(ctx, got, active.Parent(), id, func(whole *snapshot.Active) error {
		if err := j.copier.do(ctx, whole, s.silent()); err != nil {
			return err
		}
		return setTimes(whole.Upper(), times)
	})
}
