package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/layercheck"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/unpack"
	"github.com/layerbuild/layerbuild/snapshot"
	"github.com/opencontainers/go-digest"
)

// Checker compares layers, applied to listings of their parents, with the file systems after the
// steps. A nil Checker checks nothing.
type Checker struct {
	State *state.State
	Lazy  *Lazy
	// Epoch is that of the layers' Format.
	Epoch *int64
}

// maxDifferences is the number of a layer's differences that an error shows.
const maxDifferences = 20

// layer compares a sealed layer with its snapshot.
func (c *Checker) layer(ctx context.Context, l *Layer, got cache.Layer) error {
	if c == nil {
		return nil
	}
	if l.NoOp {
		return c.compareLayer(ctx, got, layercheck.Empty(), layercheck.Empty())
	}
	if err := c.Lazy.Materialize(ctx, l.Snapshot); err != nil {
		return err
	}
	return c.snapshot(ctx, got, l.Snapshot)
}

// Active compares a layer, applied to the parent of an uncommitted snapshot, with that snapshot.
func (c *Checker) Active(ctx context.Context, got cache.Layer,
	active *snapshot.Active) error {
	if c == nil {
		return nil
	}
	return c.onParent(ctx, active.Parent(), active.Mounts(),
		func(parent, step *layercheck.Tree) error {
			return c.compareLayer(ctx, got, parent, step)
		})
}

// onParent calls compare with the trees of a snapshot and of the given mounts.
func (c *Checker) onParent(ctx context.Context, id snapshot.ID, mounts []mount.Mount,
	compare func(parent, step *layercheck.Tree) error) (err error) {
	parent, f, err := c.listSnapshot(ctx, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	step, g, err := c.list(mounts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	return compare(parent, step)
}

// NoOp compares the result of a step, which has apparently changed nothing, with the parent.
func (c *Checker) NoOp(ctx context.Context, active *snapshot.Active) error {
	if c == nil {
		return nil
	}
	return c.onParent(ctx, active.Parent(), active.Mounts(),
		func(parent, step *layercheck.Tree) error {
			lines, err := c.compare(parent, step)
			if err == nil && lines != "" {
				err = fmt.Errorf("check a step without changes: it has changed its files:%s", lines)
			}
			return err
		})
}

// snapshot compares a layer, applied to the parent of a snapshot, with the snapshot.
func (c *Checker) snapshot(ctx context.Context, got cache.Layer, id snapshot.ID) error {
	info, err := c.State.Snapshots.Stat(ctx, id)
	if err != nil {
		return err
	}
	if info.Parent != "" {
		if err := c.Lazy.Materialize(ctx, info.Parent); err != nil {
			return err
		}
	}
	mounts, err := c.State.Snapshots.View(ctx, id)
	if err != nil {
		return err
	}
	return c.onParent(ctx, info.Parent, mounts, func(parent, step *layercheck.Tree) error {
		return c.compareLayer(ctx, got, parent, step)
	})
}

// listSnapshot lists the merged view of a snapshot. The caller closes the file when the listing is
// not used any more.
func (c *Checker) listSnapshot(ctx context.Context,
	id snapshot.ID) (*layercheck.Tree, *os.File, error) {
	mounts, err := c.State.Snapshots.View(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	return c.list(mounts)
}

func (c *Checker) list(mounts []mount.Mount) (*layercheck.Tree, *os.File, error) {
	dir, err := mount.Open(mounts)
	if err != nil {
		return nil, nil, err
	}
	tree, err := layercheck.List(dir, c.State.NS.Rootless)
	if err != nil {
		return nil, nil, errors.Join(err, dir.Close())
	}
	return tree, dir, nil
}

// compareLayer applies a layer to parent and compares the result with step.
func (c *Checker) compareLayer(ctx context.Context, got cache.Layer, parent,
	step *layercheck.Tree) (err error) {
	blob, err := c.State.Store.Fetch(ctx, got.Descriptor)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	r, _, err := unpack.Decompress(blob)
	if err != nil {
		return err
	}
	defer r.Close()
	sum := digest.SHA256.Digester()
	if err := parent.Apply(io.TeeReader(r, sum.Hash())); err != nil {
		return err
	}
	if sum.Digest() != got.DiffID {
		return fmt.Errorf("its content has the digest %s, not %s", sum.Digest(), got.DiffID)
	}
	lines, err := c.compare(parent, step)
	if err == nil && lines != "" {
		err = fmt.Errorf("%s on the layers below is not what the step made:%s",
			got.Descriptor.Digest, lines)
	}
	return err
}

// compare returns the differences between two states, each after a newline; "" if there are none.
func (c *Checker) compare(image, step *layercheck.Tree) (string, error) {
	lines, err := layercheck.Compare(image, step, layercheck.Options{
		Epoch: c.Epoch,
		// fuse-overlayfs shows different inode numbers for names of one file.
		SkipLinked: c.State.Snapshots.Driver() == mount.FuseOverlay,
	})
	if err != nil || len(lines) == 0 {
		return "", err
	}
	if n := len(lines) - maxDifferences; n > 0 {
		lines = append(lines[:maxDifferences], fmt.Sprintf("and %d more", n))
	}
	return "\n  " + strings.Join(lines, "\n  "), nil
}
