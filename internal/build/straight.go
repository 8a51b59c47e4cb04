package build

import (
	"context"
	"errors"

	"github.com/layerbuild/layerbuild/diff"
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

// What the record of a promised snapshot says besides: the snapshot that it is to be made on, and the options that the
// layer was sealed with.
const (
	promisedOn     = "on"
	promisedSealed = "sealed"
)

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
	if err := s.ready(ctx, cur.top); err != nil {
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
		res, err = s.record(j, id, nil)
		return res, err == nil, err
	}
	l, err := s.sealer.graft(ctx, active.Changes(), c)
	if err != nil {
		if ctx.Err() != nil {
			return res, false, context.Cause(ctx)
		}
		return res, false, nil // copying tells what is wrong, if anything is
	}
	if err := s.state.Cache.PutSealed(string(id), s.sealer.name, l); err != nil {
		return res, false, err
	}
	s.promiseLayer(id, cur.top, l)
	res, err = s.record(j, id, map[string]string{promisedOn: string(cur.top), promisedSealed: s.sealer.name})
	return res, err == nil, err
}

// graft seals what a copier has made together with what it has left.
func (s *sealer) graft(ctx context.Context, ch snapshot.Changes, c *copier) (cache.Layer, error) {
	left := c.left
	t := treeOf(ch)
	t.Graft = &diff.Graft{
		Path: left.Path, Dir: left.Dir, Len: len(left.Entries),
		Entry: func(i int) (string, int64, int64) {
			e := &left.Entries[i]
			return e.Path, e.Size, e.MtimeNs
		},
		Owner: left.Owner, Mode: left.Mode,
	}
	o := s.options
	// What a layer cannot hold is told when it is copied.
	o.Warn = nil
	got, err := diff.Seal(ctx, s.b.state.Store, t, o)
	err = errors.Join(err, c.dropLeft())
	return cache.Layer{Descriptor: got.Descriptor, DiffID: got.DiffID, Size: got.Size}, err
}

// dropLeft closes what a copier has left.
func (c *copier) dropLeft() error {
	if c.left == nil {
		return nil
	}
	err := c.left.Dir.Close()
	c.left = nil
	return err
}

// promiseLayer promises to unpack a layer of the own store.
func (s *solver) promiseLayer(id, on snapshot.ID, l cache.Layer) {
	s.promise(id, func(ctx context.Context) error {
		if err := s.ready(ctx, on); err != nil {
			return err
		}
		s.dirty.Store(true)
		return s.images.UnpackOn(ctx, image.Stored(l.Descriptor, l.DiffID), on, id, image.UnpackOptions{Sink: s.sink})
	})
}

// promised promises again what an earlier build has promised and nobody has needed yet. It is false if the record is no
// such promise, or if its layer is gone.
func (s *solver) promised(rec cache.Record) (snapshot.Info, bool) {
	l, ok := s.state.promise(rec)
	if !ok {
		return snapshot.Info{}, false
	}
	info := snapshot.Info{ID: snapshot.ID(rec.Snapshot), Parent: snapshot.ID(rec.Meta[promisedOn])}
	s.promiseLayer(info.ID, info.Parent, l)
	return info, true
}

// promise gives the layer that a promised snapshot is unpacked from.
func (s *State) promise(rec cache.Record) (cache.Layer, bool) {
	name, ok := rec.Meta[promisedSealed]
	if !ok {
		return cache.Layer{}, false
	}
	l, ok := s.Cache.Sealed(rec.Snapshot, name)
	if !ok {
		return l, false
	}
	there, err := s.Store.Exists(context.Background(), l.Descriptor)
	return l, there && err == nil
}
