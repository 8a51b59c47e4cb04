package build

import (
	"context"
	"fmt"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
)

// The layer of a COPY of a directory can be written from the files of its source, and need not be
// read again from the snapshot. If the COPY ends the image, nothing else is needed: no snapshot is
// made, and the record is lazy. If steps follow, the layer is written while the files are copied.

// Below these sizes it is cheaper to seal after the copy.
const (
	earlyFiles = 100
	earlyBytes = 4 << 20
)

// endsImage reports whether only the layer of step n of a stage is needed.
func (s *Solver) endsImage(st *parser.Stage, n int) bool {
	c := &s.e.cfg
	return st == s.plan.Target && n == s.total(st)+1 && c.Image && !c.Files && !c.Tables &&
		c.Snapshots.Layered()
}

// copiesToLayer reports whether the layer of a job is to be written from the files that it copies.
func (e *Engine) copiesToLayer(j *job, n need) bool {
	if j.copier == nil || j.link || !j.copier.copiesDirectory() {
		return false
	}
	return n.last || n.seal && !e.cfg.Tables && e.cfg.Snapshots.Layered() && j.copier.isLarge()
}

// isLarge reports whether the layer is worth writing while the files are copied.
func (c *copier) isLarge() bool {
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

// copyToLayer makes the destination of a job in active, and writes the layer of snapshot id from
// the source's files if they are all that the job changes. With n.last it returns true when the
// layer is written and recorded, and nothing else is to be done. Otherwise the layer is being
// written, or cannot be written in this way, and the files are to be copied to active.
func (e *Engine) copyToLayer(ctx context.Context, cur rootfs, j *job, id snapshot.ID,
	active *snapshot.Active, out output, n need) (stepResult, bool, error) {
	dir, res, err := j.copier.directory(ctx, active, out)
	if err != nil || dir == nil {
		return stepResult{}, false, err
	}
	if !n.last {
		e.cfg.Directories.BeginDirectory(id, active.Changes(), dir)
		return stepResult{}, false, nil
	}
	l, err := e.cfg.Directories.SealDirectory(ctx, active.Changes(), dir)
	if err != nil {
		// The copy that follows fails with the error that the user should see, if there is one.
		if ctx.Err() != nil {
			err = context.Cause(ctx)
			return stepResult{}, false, err
		}
		return stepResult{}, false, nil
	}
	if err := e.checkLayer(ctx, j, active, l); err != nil {
		return stepResult{}, false, err
	}
	j.copier.tell(res, out)
	if err := e.cfg.Records.PutSealed(string(id), e.cfg.Sealer.Format(), l); err != nil {
		return stepResult{}, false, err
	}
	e.results.addLazy(id, cur.top, image.Stored(l.Descriptor, l.DiffID), "", nil)
	made, err := e.results.add(j, cache.Record{Snapshot: string(id),
		Lazy: &cache.Lazy{Parent: string(cur.top), Sealed: e.cfg.Sealer.Format()}})
	return made, err == nil, err
}

// checkLayer compares the layer of a COPY with what the COPY makes. active has the destination.
func (e *Engine) checkLayer(ctx context.Context, j *job, active *snapshot.Active,
	got cache.Layer) error {
	if e.cfg.Checker == nil {
		return nil
	}
	if err := j.copier.do(ctx, active, silent()); err != nil {
		return err
	}
	if err := e.cfg.Checker.Active(ctx, got, active); err != nil {
		return fmt.Errorf("check the layer of the copy: %w", err)
	}
	return nil
}

// copiesDirectory reports whether the job copies the contents of one directory and nothing else.
func (c *copier) copiesDirectory() bool {
	return c.match != nil && len(c.remotes) == 0 && len(c.match.Items) == 1 &&
		c.match.Items[0].Contents && frozen(c.from.Tree, c.match) == nil
}

// directory makes the destination of a job in active. It returns the directory that is copied
// there, or nil if its files are not all that the job changes.
func (c *copier) directory(ctx context.Context, active *snapshot.Active,
	out output) (*copyfs.Directory, executor.Result, error) {
	act := c.sources()
	if !act.CopiesDirectory() {
		return nil, executor.Result{}, nil
	}
	act.DestOnly = true
	res, err := c.e.execute(ctx, active.Mounts(), act, out)
	if err != nil {
		noteChanged(c.from, err)
		return nil, res, c.e.cfg.State.Filled(err)
	}
	ns := c.e.cfg.State.NS
	dir, ok := act.Directory(res.Files.Dest, ns.Rootless, ns.SingleID)
	if !ok {
		return nil, res, nil
	}
	return dir, res, nil
}
