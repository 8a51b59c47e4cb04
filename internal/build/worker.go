package build

import (
	"context"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/state"
)

// worker passes actions to the executor.
type worker struct {
	runFunc RunFunc
	state   *state.State
	epoch   *int64 // see Config
}

// run runs an action on a root file system, and sends its messages to out.
func (w *worker) run(ctx context.Context, root []mount.Mount, action executor.Action,
	out output) error {
	res, err := w.execute(ctx, root, action, out)
	tell(res, out)
	return err
}

// execute is like run, without messages.
func (w *worker) execute(ctx context.Context, root []mount.Mount, action executor.Action,
	out output) (executor.Result, error) {
	spec := &executor.Spec{Root: root, MountPoints: w.state.MountPoints(), Action: action,
		UserNS: w.state.NS.Rootless, SingleID: w.state.NS.SingleID, Epoch: w.epoch}
	return w.runFunc(ctx, spec, out.stream(1), out.stream(2))
}

// tell sends the messages of an action to its line.
func tell(res executor.Result, out output) {
	for _, message := range res.Messages() {
		out.warn(message)
	}
}
