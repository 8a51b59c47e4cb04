package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/outline"
	"github.com/layerbuild/layerbuild/snapshot"
)

// Outline makes the outline of an image (see package outline), a snapshot without a parent, and
// returns it. It reads and checks the layers, as EnsureChecked does, and copies their blobs into
// the store. It returns "" for an image without an outline, and with a driver whose snapshots are
// whole trees.
func (r *Resolver) Outline(ctx context.Context, img *Image,
	o UnpackOptions) (snapshot.ID, error) {
	u := r.newUnpacking(img, o)
	if len(u.chains) == 0 || !r.snapshots.Layered() {
		return "", nil
	}
	// The outline is recorded like the snapshot of a chain of layers.
	chain := u.chains[len(u.chains)-1].String()
	key := digest.FromString("outline " + outline.Version + " of " + chain)
	id, err := r.chains.Share(ctx, key, func() (snapshot.ID, error) {
		id, ok, err := u.existing(ctx, key)
		if ok {
			r.cache.TouchChain(key)
		}
		if ok || err != nil {
			return id, err
		}
		defer u.warn()
		return u.outline(ctx, key)
	})
	if errors.Is(err, outline.ErrNone) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", img.Name, err)
	}
	return id, nil
}

// outline makes the outline of an image as the snapshot of key. It returns outline.ErrNone if most
// of the image is unpacked already, because it takes less time to unpack the rest, and if the
// outline cannot be written for another reason than a full disk. The layers are valid then, and can
// perhaps be unpacked.
func (u *unpacking) outline(ctx context.Context, key digest.Digest) (snapshot.ID, error) {
	_, from, err := u.deepest(ctx)
	if err != nil {
		return "", err
	}
	var size, rest int64
	for i, d := range u.img.Manifest.Layers {
		if size += d.Size; i >= from {
			rest += d.Size
		}
	}
	if rest < size/2 {
		return "", outline.ErrNone
	}
	b, err := u.merge(ctx)
	if err != nil {
		return "", err
	}
	active, err := u.r.snapshots.Prepare(ctx, "")
	if err != nil {
		return "", err
	}
	id := snapshot.ID(key.Encoded())
	if err = u.write(ctx, b, active); err == nil {
		err = active.WriteNote(b.List())
	}
	if err == nil {
		err = active.Commit(ctx, id)
	}
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
			err = fmt.Errorf("%w: %v", outline.ErrNone, err)
		}
		return "", errors.Join(err, active.Discard())
	}
	return id, u.record(ctx, key, id)
}

// write writes an outline to active.
func (u *unpacking) write(ctx context.Context, b *outline.Builder, active *snapshot.Active) error {
	o, err := u.applyOptions(active, false)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := b.Write(w)
		w.CloseWithError(err)
		return err
	})
	g.Go(func() error {
		_, err := diff.Apply(ctx, r, active.Upper(), o)
		r.CloseWithError(err)
		return err
	})
	return g.Wait()
}

// merge reads and merges all layers.
func (u *unpacking) merge(ctx context.Context) (*outline.Builder, error) {
	var r outline.Reader
	list := make([]*outline.Layer, len(u.chains))
	none := make([]error, len(u.chains))
	g, gctx := errgroup.WithContext(ctx)
	for i := range list {
		g.Go(func() error {
			return u.readLayer(gctx, i, func(body io.Reader) (diffID digest.Digest, err error) {
				list[i], diffID, err = r.Read(gctx, body)
				if none[i] = nil; errors.Is(err, outline.ErrNone) {
					none[i], err = err, nil // the blob is valid
				}
				return diffID, err
			})
		})
	}
	if err := errors.Join(g.Wait(), errors.Join(none...)); err != nil {
		return nil, err
	}
	b := &outline.Builder{}
	for _, l := range list {
		if err := b.Add(l); err != nil {
			return nil, err
		}
	}
	return b, b.Check()
}
