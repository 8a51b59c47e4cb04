package job

import (
	"context"
	"io"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/state"
)

// Worker passes actions to the executor.
type Worker struct {
	// RunFunc is executor.Run, or what a test has in its place.
	RunFunc RunFunc
	State   *state.State
	// Epoch is the latest time of a file, in seconds since 1970; nil keeps real times.
	Epoch *int64
	// Commands has one element for each command of a RUN that is running; nil: their number is not
	// limited.
	Commands chan struct{}
}

// RunFunc is the type of executor.Run.
type RunFunc func(ctx context.Context, spec *executor.Spec, stdout,
	stderr io.Writer) (executor.Result, error)

// run runs an action on a root file system, and sends its messages to out.
func (w *Worker) run(ctx context.Context, root []mount.Mount, action executor.Action,
	out Output) error {
	res, err := w.execute(ctx, root, action, out)
	tell(res, out)
	return err
}

// execute is like run, without messages.
func (w *Worker) execute(ctx context.Context, root []mount.Mount, action executor.Action,
	out Output) (executor.Result, error) {
	spec := &executor.Spec{Root: root, MountPoints: w.State.MountPoints(), Action: action,
		UserNS: w.State.NS.Rootless, SingleID: w.State.NS.SingleID, Epoch: w.Epoch}
	return w.RunFunc(ctx, spec, out.Stream(1), out.Stream(2))
}

// command waits until another command of a RUN may run. The caller calls release when it has ended.
func (w *Worker) command(ctx context.Context) (release func(), err error) {
	if w.Commands == nil {
		return func() {}, nil
	}
	select {
	case w.Commands <- struct{}{}:
		return func() { <-w.Commands }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// tell sends the messages of an action to its line.
func tell(res executor.Result, out Output) {
	for _, message := range res.Messages() {
		out.Warn(message)
	}
}
