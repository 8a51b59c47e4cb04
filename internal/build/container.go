package build

import (
	"context"
	"io"
	"path/filepath"
	"time"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/snapshot"
)

// Container is a file system on top of an image that is thrown away.
type Container struct {
	state  *state.State
	active *snapshot.Active
}

// NewContainer unpacks the image where that is needed. The caller closes the Container.
func NewContainer(ctx context.Context, state *state.State, images *image.Resolver, img *image.Image, sink event.Sink) (*Container, error) {
	id := event.ID("image")
	sink(event.Start{ID: id, Name: "unpack " + img.Name, Time: time.Now()})
	top, cached, err := images.Unpack(ctx, img, image.UnpackOptions{ID: id, Sink: sink})
	sink(event.Done{ID: id, Cached: cached, Err: err, Time: time.Now()})
	if err != nil {
		return nil, err
	}
	active, err := state.Snapshots.Prepare(ctx, top)
	if err != nil {
		return nil, err
	}
	return &Container{state: state, active: active}, nil
}

// Run runs a command in it; an *executor.ExitError says that it did not end well.
func (c *Container) Run(ctx context.Context, p *executor.Process, stdout, stderr io.Writer) error {
	_, err := executor.Run(ctx, &executor.Spec{
		Root: c.active.Mounts(), MountPoints: mountPoints(c.state), Action: p, UserNS: c.state.NS.Rootless, SingleID: c.state.NS.SingleID,
	}, stdout, stderr)
	return err
}

// Close throws it away.
func (c *Container) Close() error { return c.active.Discard() }

// mountPoints is the directory that the executor puts below a step's root; "" if it can't be made, which only costs
// time.
func mountPoints(s *state.State) string {
	dir := filepath.Join(s.Root, "cache", "mountpoints")
	if executor.MakeMountPoints(dir) != nil {
		return ""
	}
	return dir
}
