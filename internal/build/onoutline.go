package build

import (
	"context"
	"errors"
	"fmt"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/job"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/snapshot"
)

// The last steps of an image, after its last RUN, can be performed without unpacking the base
// image: they run on its outline (see package outline), and only their layers are kept. Their
// records are lazy. A later build that needs the files unpacks the image and the layers.
//
// The layer of a COPY --link does not depend on the files below it: it is made without an outline,
// which would have to be made of the layers below. Layers in a cache are not even fetched then.

// CopySealer makes the layers of COPYs in other ways than Sealer. *layers.Sealer implements it.
type CopySealer interface {
	DirectorySealer
	OutlineSealer
}

// OutlineSealer makes the layers of steps that run on outlines. *layers.Sealer implements it.
type OutlineSealer interface {
	// Outlined returns the files that the outline on lacks.
	Outlined(ctx context.Context, on snapshot.ID) (*layers.Outlined, error)
	// SealSnapshot makes the layer of a snapshot and does not record it. warn is called for an
	// entry that no layer can hold.
	SealSnapshot(ctx context.Context, id snapshot.ID,
		warn func(path, problem string)) (cache.Layer, error)
}

// makeOnOutline is like make, on the outline of cur. It returns false if there is no outline and if
// the step did not succeed on it. The step then runs on cur itself: the reason of an error may be
// that the outline lacks a file. It returns an error that running the step on cur would not avoid:
// a layer that cannot be read, a full disk, a file of the context that changed.
func (e *Engine) makeOnOutline(ctx context.Context, cur rootfs, j *job.Job, id snapshot.ID,
	out output, req request) (res stepResult, ok bool, err error) {
	if !j.RunsOnOutline() {
		return stepResult{}, false, nil
	}
	var on snapshot.ID
	name := snapshot.NewID()
	if !j.Link || !e.snapshots.Layered() || !e.layers.Lazy.Waits(cur.top) {
		if on, err = e.layers.Lazy.Outline(ctx, cur.top); on == "" || err != nil {
			return stepResult{}, false, err
		}
		name = outlineOf(id)
	}
	held, release := out.hold()
	l, noOp, err := e.sealOnOutline(ctx, j, name, on, held, req)
	if state.IsFull(err) {
		return stepResult{}, false, e.state.Filled(err)
	}
	if job.StartsAgain(err, 1) {
		// The job must be loaded again. If it ran on cur with the old digests, it would fail for
		// the same file, and that file would be taken for one that was removed.
		return stepResult{}, false, err
	}
	if err != nil {
		return stepResult{}, false, context.Cause(ctx) // nil if only this attempt has failed
	}
	release()
	if e.layers.Checker != nil && e.epoch != nil { // otherwise new directories have other times
		if err := e.checkOnOutline(ctx, cur, j, l, noOp); err != nil {
			return stepResult{}, false, fmt.Errorf("check a step on an outline: %w", err)
		}
	}
	if noOp {
		res, err = e.results.add(ctx, j, cache.Record{Snapshot: string(cur.top), NoOp: true})
	} else {
		res, err = e.results.addLayer(ctx, j, id, cur.top, l)
	}
	return res, err == nil, err
}

// sealOnOutline runs a job on the outline on, and returns its layer. noOp is set if the job has
// changed nothing. If the files were copied, they are in the snapshot name. If on is "", the layer
// does not depend on other files.
func (e *Engine) sealOnOutline(ctx context.Context, j *job.Job, name, on snapshot.ID, out output,
	req request) (l cache.Layer, noOp bool, err error) {
	var files *layers.Outlined
	if on != "" {
		if files, err = e.layers.Outlines.Outlined(ctx, on); err != nil {
			return l, false, err
		}
	}
	parent := on
	if j.Link {
		parent = ""
	}
	active, err := e.snapshots.Prepare(ctx, parent)
	if err != nil {
		return l, false, err
	}
	defer func() { err = errors.Join(err, active.Discard()) }()
	check := func() error {
		if files == nil {
			return nil
		}
		if err := files.Check(active, parent == ""); err != nil || !j.NamesUser() {
			return err
		}
		return files.CheckUsers(active)
	}
	if req.layerOnly && writesLayer(j, req) {
		dir, tell, err := j.MakeDestination(ctx, active, out)
		if err == nil {
			err = check()
		}
		if err != nil {
			return l, false, err
		}
		if dir != nil && (files == nil || !files.In(dir.Dest)) {
			l, ok, err := e.sealDirectory(ctx, j, active, dir)
			if err == nil && ok {
				tell()
			}
			if ok || err != nil {
				return l, false, err
			}
		}
	}
	if err := j.Run(ctx, active, out); err != nil {
		return l, false, err
	}
	if err := check(); err != nil {
		return l, false, err
	}
	if !j.Link {
		if noOp, err = layers.Unchanged(ctx, active); noOp || err != nil {
			return l, noOp, err
		}
	}
	if err := active.CommitOn(ctx, name, on, false); err != nil {
		return l, false, err
	}
	l, err = e.layers.Outlines.SealSnapshot(ctx, name, func(path, problem string) {
		out.Warn(path + ": " + problem)
	})
	return l, false, err
}

// checkOnOutline runs a job again, on the unpacked cur, and compares its layer with the layer that
// was made on the outline of cur.
func (e *Engine) checkOnOutline(ctx context.Context, cur rootfs, j *job.Job, got cache.Layer,
	noOp bool) error {
	if err := e.layers.Lazy.Materialize(ctx, cur.top); err != nil {
		return err
	}
	parent := cur.top
	if j.Link {
		parent = ""
	}
	active, err := e.snapshots.Prepare(ctx, parent)
	if err != nil {
		return err
	}
	defer active.Discard() // after an error; it does nothing after CommitOn
	if err := j.Run(ctx, active, job.Silent); err != nil {
		return err
	}
	id := snapshot.NewID()
	if err := active.CommitOn(ctx, id, cur.top, false); err != nil {
		return err
	}
	want, err := e.layers.Outlines.SealSnapshot(ctx, id, func(string, string) {})
	if err != nil {
		return err
	}
	if noOp {
		got.DiffID = layers.EmptyDiffID
	}
	if got.DiffID != want.DiffID {
		return fmt.Errorf("its layer is %s, and %s on the unpacked image", got.DiffID, want.DiffID)
	}
	return nil
}
