package container

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/snapshot"
)

// Container is a writable snapshot on top of an image. Close removes it.
type Container struct {
	state  *state.State
	active *snapshot.Active
	// overlays are the snapshots on directories of the host.
	overlays []*snapshot.Active
}

// New unpacks the image unless it is unpacked already, and prepares a snapshot on top of it. The
// caller closes the Container.
func New(ctx context.Context, state *state.State, images *image.Resolver, img *image.Image,
	sink event.Sink) (*Container, error) {
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

// Run runs a command in the container. An *executor.ExitError is returned for a command that
// failed.
func (c *Container) Run(ctx context.Context, p *executor.Process, stdout, stderr io.Writer) error {
	_, err := executor.Run(ctx, &executor.Spec{
		Root: c.active.Mounts(), MountPoints: c.state.MountPoints(), Action: p,
		UserNS: c.state.NS.Rootless, SingleID: c.state.NS.SingleID,
	}, stdout, stderr)
	return err
}

// Overlay returns a directory of the host for a mount of the container. Close throws the changes of
// the commands away.
func (c *Container) Overlay(ctx context.Context, dir string) (executor.Tree, error) {
	active, err := c.state.Snapshots.Over(ctx, dir)
	if err != nil {
		return executor.Tree{}, err
	}
	c.overlays = append(c.overlays, active)
	return executor.Tree{Mounts: active.Mounts()}, nil
}

// Close removes the snapshot and the changes of the commands.
func (c *Container) Close() error {
	errs := []error{c.active.Discard()}
	for _, o := range c.overlays {
		errs = append(errs, o.Discard())
	}
	return errors.Join(errs...)
}
