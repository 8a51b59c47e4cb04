package build

import (
	"context"
	"fmt"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
)

// The layer of a COPY of a directory can be written from the files of its source, instead of
// reading the files again from the snapshot. If the COPY is the last step of the image, only the
// layer is needed: no snapshot is made, and the record is lazy. If steps follow, the layer is
// written while the files are copied.

// Below these sizes it is cheaper to seal after the copy.
const (
	earlyFiles = 100
	earlyBytes = 4 << 20
)

// needed returns the request for step n of a stage, as far as it depends on what the results of the
// step are needed for.
func (s *Solver) needed(ctx context.Context, st *parser.Stage, n int) request {
	if w := &s.o.Wants; st != s.plan.Target || !w.Image || w.Files || !s.direct {
		return request{}
	}
	step := n - 1 // without FROM
	base, err := s.o.Inputs.BaseConfig(ctx, st)
	if err != nil { // it was resolved when the plan was made
		return request{}
	}
	return request{layerOnly: step == st.TotalOn(base), onOutline: step > st.LastRun(base)}
}

// layerCopy returns the action of a job whose layer is written from the files that it copies, or
// nil for other jobs.
func layerCopy(j *job, req request) *copyAction {
	c, ok := j.action.(*copyAction)
	if !ok || j.link || !c.copiesDirectory() {
		return nil
	}
	if req.layerOnly || req.withLayer && c.isLarge() {
		return c
	}
	return nil
}

// isLarge reports whether the layer is worth writing while the files are copied.
func (c *copyAction) isLarge() bool {
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
// the source's files if they are all that the job changes. With req.layerOnly it returns true when
// the layer has been written and recorded, so that the job is done. Otherwise the caller must copy
// the files to active: the layer is being written, or cannot be written in this way.
func (e *Engine) copyToLayer(ctx context.Context, cur rootfs, j *job, c *copyAction,
	id snapshot.ID, active *snapshot.Active, out output, req request) (stepResult, bool, error) {
	dir, res, err := c.directory(ctx, active, out)
	if err != nil || dir == nil {
		return stepResult{}, false, err
	}
	if !req.layerOnly {
		e.layers.Directories.BeginDirectory(id, active.Changes(), dir)
		return stepResult{}, false, nil
	}
	l, ok, err := e.sealDirectory(ctx, c, active, dir, res, out)
	if !ok || err != nil {
		return stepResult{}, false, err
	}
	made, err := e.results.addLayer(ctx, j, id, cur.top, l)
	return made, err == nil, err
}

// sealDirectory writes the layer of a job from the files of the directory dir, for which it has
// made the destination in active, and sends the messages of the result res. It returns false if the
// files must be copied first.
func (e *Engine) sealDirectory(ctx context.Context, c *copyAction, active *snapshot.Active,
	dir *copyfs.Directory, res executor.Result, out output) (cache.Layer, bool, error) {
	l, ok, err := e.layers.Directories.SealDirectory(ctx, active.Changes(), dir)
	if !ok || err != nil {
		return cache.Layer{}, false, err
	}
	if err := e.checkLayer(ctx, c, active, l); err != nil {
		return cache.Layer{}, false, err
	}
	c.tell(res, out)
	return l, true, nil
}

// checkLayer compares the layer of a COPY with the layer that is sealed after copying. active has
// the destination.
func (e *Engine) checkLayer(ctx context.Context, c *copyAction, active *snapshot.Active,
	got cache.Layer) error {
	if e.layers.Checker == nil {
		return nil
	}
	if err := c.run(ctx, active, silent()); err != nil {
		return err
	}
	if err := e.layers.Checker.Active(ctx, got, active); err != nil {
		return fmt.Errorf("check the layer of the copy: %w", err)
	}
	return nil
}

// copiesDirectory reports whether the job only copies the contents of one directory.
func (c *copyAction) copiesDirectory() bool {
	return c.match != nil && len(c.remotes) == 0 && c.copyLocal().CopiesDirectory()
}

// directory makes the destination of a job in active. It returns the directory that is copied
// there, or nil if the job changes more than that directory's files.
func (c *copyAction) directory(ctx context.Context, active *snapshot.Active,
	out output) (*copyfs.Directory, executor.Result, error) {
	act := c.copyLocal()
	dest := *act
	dest.DestOnly = true
	res, err := c.w.execute(ctx, active.Mounts(), &dest, out)
	if err != nil {
		noteChanged(c.from, err)
		return nil, res, c.w.state.Filled(err)
	}
	ns := c.w.state.NS
	dir, ok := act.Directory(res.Files.Dest, ns.Rootless, ns.SingleID)
	if !ok {
		return nil, res, nil
	}
	return dir, res, nil
}
