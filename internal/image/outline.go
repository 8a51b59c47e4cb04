package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/outline"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/internal/unpack"
	"github.com/layerbuild/layerbuild/snapshot"
)

// Outline makes the outline of an image (see package outline), a snapshot without a parent, and
// returns it. It reads and checks the layers, as EnsureChecked does, and copies their blobs into
// the store. It returns "" for an image without an outline, and with a driver whose snapshots are
// whole trees.
func (r *Resolver) Outline(ctx context.Context, img *Image,
	o UnpackOptions) (snapshot.ID, error) {
	return r.SharedOutline(ctx, img, OutlineOptions{UnpackOptions: o})
}

// OutlineOptions are the options of SharedOutline.
type OutlineOptions struct {
	UnpackOptions
	// Load opens a packed outline of the image, which another machine has made; it returns nil if
	// there is none. An outline that cannot be used results in a warning. nil: there is none.
	Load func(context.Context) (io.ReadCloser, error)
	// Save is called with a function that writes the packed outline, if it was made of the layers.
	// nil: nothing is called.
	Save func(ctx context.Context, pack func(io.Writer) error)
}

// SharedOutline is like Outline, with outlines that machines share: if there is one of the image,
// no layer is read.
func (r *Resolver) SharedOutline(ctx context.Context, img *Image,
	o OutlineOptions) (snapshot.ID, error) {
	u := r.newUnpacking(img, o.UnpackOptions)
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
		if id, ok, err := u.loadOutline(ctx, key, o.Load); ok || err != nil {
			return id, err
		}
		return u.outline(ctx, key, o.Save)
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
func (u *unpacking) outline(ctx context.Context, key digest.Digest,
	save func(context.Context, func(io.Writer) error)) (snapshot.ID, error) {
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
	r, w := io.Pipe()
	var written sync.WaitGroup
	written.Go(func() { w.CloseWithError(b.Write(w)) })
	id, err := u.addOutline(ctx, key, r, b.List())
	r.CloseWithError(err) // ends Write after an error
	written.Wait()
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
			err = fmt.Errorf("%w: %v", outline.ErrNone, err)
		}
		return "", err
	}
	if save != nil {
		save(ctx, b.Pack)
	}
	return id, nil
}

// addOutline makes the snapshot of key of an outline's tree, a tar, and its list.
func (u *unpacking) addOutline(ctx context.Context, key digest.Digest, tree io.Reader,
	list []byte) (snapshot.ID, error) {
	active, err := u.r.snapshots.Prepare(ctx, "")
	if err != nil {
		return "", err
	}
	id := snapshot.ID(key.Encoded())
	o, err := u.applyOptions(active, false)
	if err == nil {
		_, err = diff.Apply(ctx, tree, active.Upper(), o)
	}
	if err == nil {
		err = active.WriteNote(list)
	}
	if err == nil {
		err = active.Commit(ctx, id)
	}
	if err != nil {
		return "", errors.Join(err, active.Discard())
	}
	return id, u.record(ctx, key, id)
}

// loadOutline makes the outline of an image as the snapshot of key from a packed one. It returns
// false if there is none that can be used.
func (u *unpacking) loadOutline(ctx context.Context, key digest.Digest,
	load func(context.Context) (io.ReadCloser, error)) (id snapshot.ID, ok bool, err error) {
	if load == nil {
		return "", false, nil
	}
	id, err = func() (snapshot.ID, error) {
		blob, err := load(ctx)
		if blob == nil || err != nil {
			return "", err
		}
		defer blob.Close()
		r, _, err := unpack.Decompress(blob)
		if err != nil {
			return "", err
		}
		defer r.Close()
		list, tree, err := outline.Unpack(r)
		if err != nil {
			return "", err
		}
		return u.addOutline(ctx, key, tree, list)
	}()
	switch {
	case ctx.Err() != nil:
		return "", false, context.Cause(ctx)
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return "", false, err
	case err != nil && u.o.Sink != nil:
		u.o.Sink(event.Warning{ID: u.o.ID, Time: time.Now(), Message: fmt.Sprintf(
			"the outline of %s in a cache is not used: %v", u.img.Name, err)})
	}
	return id, id != "", nil
}

// Part is a layer of an image.
type Part struct {
	Image *Image
	Index int
}

// Stack returns an image of layers of several images, lowest first, each in its own place: those
// of a base image and of a cache. It has no configuration but the diffIDs.
func Stack(name string, parts []Part) *Image {
	img := &Image{Name: name, Origin: FromRegistry}
	from := map[digest.Digest]source{}
	for _, p := range parts {
		d := p.Image.Manifest.Layers[p.Index]
		img.Manifest.Layers = append(img.Manifest.Layers, d)
		img.Config.RootFS.DiffIDs = append(img.Config.RootFS.DiffIDs,
			p.Image.Config.RootFS.DiffIDs[p.Index])
		if from[d.Digest] == nil {
			from[d.Digest] = p.Image.source
		}
	}
	img.source = opener(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		if from[d.Digest] == nil {
			return nil, fmt.Errorf("layer %s: %w", d.Digest, store.ErrNotFound)
		}
		return from[d.Digest].Open(ctx, d)
	})
	return img
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

// Pack compresses what pack writes, such as an outline, and stores it as a blob.
func (r *Resolver) Pack(ctx context.Context, mediaType string,
	pack func(io.Writer) error) (ocispec.Descriptor, error) {
	return r.store.Ingest(ctx, mediaType, func(w io.Writer) error {
		z, err := unpack.Compress(w)
		if err != nil {
			return err
		}
		return errors.Join(pack(z), z.Close())
	})
}
