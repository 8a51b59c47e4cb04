package build

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
	"github.com/layerbuild/layerbuild/internal/unpack"
	"github.com/layerbuild/layerbuild/snapshot"
	"github.com/opencontainers/go-digest"
)

// With Options.CheckLayers each layer is applied to a listing of its parent as soon as it is sealed, and compared with
// what the step saw. A difference ends the build.

// maxDifferences is how many differences of a layer the error shows.
const maxDifferences = 20

// checkLayer compares a sealed layer with the snapshot that it is the layer of.
func (s *sealer) checkLayer(ctx context.Context, l *layer, got cache.Layer) error {
	if !s.b.opts.CheckLayers {
		return nil
	}
	err := func() error {
		if l.unchanged {
			return s.b.compareLayer(ctx, got, layercheck.Empty(), layercheck.Empty())
		}
		if err := s.b.ready(ctx, l.snapshot); err != nil {
			return err
		}
		return s.b.checkSnapshot(ctx, got, l.snapshot)
	}()
	if err != nil {
		return s.b.at(l.lines, "", fmt.Errorf("check the layer of %q: %w", l.text, err))
	}
	return nil
}

// checkLayerOnly compares the layer of a COPY that was written without a snapshot with what the COPY makes. active is
// what the job has left beside the files of the layer.
func (s *solver) checkLayerOnly(ctx context.Context, j *job, active *snapshot.Active, dir string, got cache.Layer) (err error) {
	if !s.opts.CheckLayers {
		return nil
	}
	times, err := timesAbove(active.Upper(), dir)
	if err != nil {
		return err
	}
	id, err := newID()
	if err != nil {
		return err
	}
	whole, err := s.state.Snapshots.Prepare(ctx, active.Parent())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, whole.Discard()) }()
	if err := j.copier.do(ctx, whole, s.silent()); err != nil {
		return err
	}
	if err := setTimes(whole.Upper(), times); err != nil {
		return err
	}
	if err := whole.Commit(ctx, id); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.state.Snapshots.Remove(ctx, id)) }()
	if err := s.checkSnapshot(ctx, got, id); err != nil {
		return fmt.Errorf("check the layer of the copy: %w", err)
	}
	return nil
}

// checkUnchanged compares the result of a step that seems to have changed nothing with its parent.
func (b *builder) checkUnchanged(ctx context.Context, active *snapshot.Active) (err error) {
	if !b.opts.CheckLayers {
		return nil
	}
	parent, f, err := b.listSnapshot(ctx, active.Parent())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	step, g, err := b.list(active.Mounts())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	if err := b.compare(parent, step); err != nil {
		return fmt.Errorf("check a step that has changed nothing: what was there before %w", err)
	}
	return nil
}

// checkSnapshot compares a layer, applied to the parent of a snapshot, with the snapshot.
func (b *builder) checkSnapshot(ctx context.Context, got cache.Layer, id snapshot.ID) (err error) {
	info, err := b.state.Snapshots.Stat(id)
	if err != nil {
		return err
	}
	if info.Parent != "" {
		if err := b.ready(ctx, info.Parent); err != nil {
			return err
		}
	}
	parent, f, err := b.listSnapshot(ctx, info.Parent)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	step, g, err := b.listSnapshot(ctx, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	return b.compareLayer(ctx, got, parent, step)
}

// listSnapshot lists the merged view of a snapshot. The caller closes the file when the listing is not used any more.
func (b *builder) listSnapshot(ctx context.Context, id snapshot.ID) (*layercheck.Tree, *os.File, error) {
	mounts, err := b.state.Snapshots.View(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	return b.list(mounts)
}

func (b *builder) list(mounts []mount.Mount) (*layercheck.Tree, *os.File, error) {
	dir, err := mount.Open(mounts)
	if err != nil {
		return nil, nil, err
	}
	tree, err := layercheck.List(dir, b.state.NS.Rootless)
	if err != nil {
		return nil, nil, errors.Join(err, dir.Close())
	}
	return tree, dir, nil
}

// compareLayer applies a layer to parent and compares the result with step.
func (b *builder) compareLayer(ctx context.Context, got cache.Layer, parent, step *layercheck.Tree) (err error) {
	blob, err := b.state.Store.Fetch(ctx, got.Descriptor)
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
		return fmt.Errorf("its content has the digest %s and not %s", sum.Digest(), got.DiffID)
	}
	if err := b.compare(parent, step); err != nil {
		return fmt.Errorf("%s on the layers below %w", got.Descriptor.Digest, err)
	}
	return nil
}

// compare returns an error about the differences between two states.
func (b *builder) compare(image, step *layercheck.Tree) error {
	lines, err := layercheck.Compare(image, step, layercheck.Options{
		Epoch: b.opts.Image.Epoch,
		// It gives names of one file different inode numbers.
		SkipLinked: b.state.Snapshots.Driver() == mount.FuseOverlay,
	})
	if err != nil || len(lines) == 0 {
		return err
	}
	more := ""
	if n := len(lines) - maxDifferences; n > 0 {
		lines, more = lines[:maxDifferences], fmt.Sprintf("\n  and %d more", n)
	}
	return fmt.Errorf("is not what the step made:\n  %s%s", strings.Join(lines, "\n  "), more)
}
