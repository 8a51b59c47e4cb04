package build

import (
	"context"
	"fmt"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/job"
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

// writesLayer reports whether the layer of a job is written from the files that it copies.
func writesLayer(j *job.Job, req request) bool {
	if !j.CopiesDirectory() {
		return false
	}
	return req.layerOnly || req.withLayer && isLarge(j)
}

// isLarge reports whether the layer of a copy is worth writing while the files are copied.
func isLarge(j *job.Job) bool {
	entries, size := j.Copies()
	return entries >= earlyFiles || size >= earlyBytes
}

// copyToLayer makes the destination of a job in active, and writes the layer of snapshot id from
// the source's files if they are all that the job changes. With req.layerOnly it returns true when
// the layer has been written and recorded, so that the job is done. Otherwise the caller must copy
// the files to active: the layer is being written, or cannot be written in this way.
func (e *Engine) copyToLayer(ctx context.Context, cur rootfs, j *job.Job, id snapshot.ID,
	active *snapshot.Active, out output, req request) (stepResult, bool, error) {
	dir, tell, err := j.MakeDestination(ctx, active, out)
	if err != nil || dir == nil {
		return stepResult{}, false, err
	}
	if !req.layerOnly {
		e.layers.Directories.BeginDirectory(id, active.Changes(), dir)
		return stepResult{}, false, nil
	}
	l, ok, err := e.sealDirectory(ctx, j, active, dir)
	if !ok || err != nil {
		return stepResult{}, false, err
	}
	tell()
	made, err := e.results.addLayer(ctx, j, id, cur.top, l)
	return made, err == nil, err
}

// sealDirectory writes the layer of a job from the files of the directory dir, for which it has
// made the destination in active. It returns false if the files must be copied first.
func (e *Engine) sealDirectory(ctx context.Context, j *job.Job, active *snapshot.Active,
	dir *copyfs.Directory) (cache.Layer, bool, error) {
	l, ok, err := e.layers.Directories.SealDirectory(ctx, active.Changes(), dir)
	if !ok || err != nil {
		return cache.Layer{}, false, err
	}
	return l, true, e.checkLayer(ctx, j, active, l)
}

// checkLayer compares the layer of a COPY with the layer that is sealed after copying. active has
// the destination.
func (e *Engine) checkLayer(ctx context.Context, j *job.Job, active *snapshot.Active,
	got cache.Layer) error {
	if e.layers.Checker == nil {
		return nil
	}
	if err := j.Run(ctx, active, job.Silent); err != nil {
		return err
	}
	if err := e.layers.Checker.Active(ctx, got, active); err != nil {
		return fmt.Errorf("check the layer of the copy: %w", err)
	}
	return nil
}
