package build

import (
	"context"
	"fmt"
	"slices"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/state"
)

// worker passes actions to the executor.
type worker struct {
	executor Executor
	state    *state.State
	epoch    *int64 // see Engine
}

// run runs an action on a root file system, and warns about attributes that the action could not
// keep.
func (w *worker) run(ctx context.Context, root []mount.Mount, action executor.Action,
	out output) error {
	res, err := w.execute(ctx, root, action, out)
	tell(res, out)
	return err
}

// execute is like run, without warnings.
func (w *worker) execute(ctx context.Context, root []mount.Mount, action executor.Action,
	out output) (executor.Result, error) {
	spec := &executor.Spec{Root: root, MountPoints: w.state.MountPoints(), Action: action,
		UserNS: w.state.NS.Rootless, SingleID: w.state.NS.SingleID, Epoch: w.epoch}
	return w.executor.Run(ctx, spec, out.stream(1), out.stream(2))
}

// tell warns about attributes that an action could not keep, and sends the action's own warnings.
func tell(res executor.Result, out output) {
	f := &res.Files
	if f.StandIns > 0 {
		out.warn(fmt.Sprintf("device nodes cannot be made without root (%d, the first is %s): the image has them, and steps find empty files in their place", f.StandIns, f.FirstStandIn))
	}
	if f.AttrsLost > 0 {
		out.warn(fmt.Sprintf("extended attributes of an archive's files cannot be set without root and were left out (%d, the first is %s)", f.AttrsLost, f.FirstAttr))
	}
	if f.OwnersLost > 0 {
		out.warn(fmt.Sprintf("the owners of %d files could not be set (the first is %s): this user namespace has only one id", f.OwnersLost, f.FirstOwner))
	}
	for _, w := range slices.Concat(f.Warnings, res.Warnings) {
		out.warn(w)
	}
}
