package layers

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Repair returns a function for store.Repair, which puts a missing or damaged blob into the store
// again: it seals a layer again from its snapshot, or downloads the blob. If it can do neither, it
// returns a *store.BlobError with the remedy.
func Repair(s *state.State, images *image.Resolver) func(context.Context, ocispec.Descriptor,
	*store.BlobError) error {
	return func(ctx context.Context, d ocispec.Descriptor, why *store.BlobError) error {
		resealed, unsealed := reseal(ctx, s, d.Digest)
		if resealed || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		missing := images.Restore(ctx, d)
		if missing == nil || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(missing, store.ErrNotFound) {
			missing = nil // no image that was pulled has the blob
		}
		reason := fmt.Errorf("%w, and the state has no snapshot to make it from", why.Err)
		if err := errors.Join(unsealed, missing); err != nil {
			reason = fmt.Errorf("%w, and cannot be made or fetched again (%v)", why.Err, err)
		}
		return &store.BlobError{Digest: d.Digest, Err: reason, Remedy: image.Remedy}
	}
}

// reseal makes the blob of a layer from the layer's snapshot. It reports whether it did.
func reseal(ctx context.Context, s *state.State, want digest.Digest) (bool, error) {
	var errs []error
	for e, err := range s.Cache.All(cache.Seals) {
		if err != nil {
			return false, err
		}
		name, was, ok := e.SealedLayer()
		if !ok || was.Descriptor.Digest != want {
			continue
		}
		f, ok := ParseFormat(name)
		id := snapshot.ID(e.Snapshot)
		if !ok || id != "" && id.Validate() != nil {
			continue // not a snapshot, but the digest of a base image's layer (Layer.Recompress)
		}
		l, err := sealAgain(ctx, s, id, f.options())
		if err != nil {
			errs = append(errs, err)
		}
		if l.Descriptor.Digest == want {
			return true, nil
		}
	}
	return false, errors.Join(errs...)
}

// sealAgain seals a snapshot's layer. For "" it seals the layer without entries.
func sealAgain(ctx context.Context, s *state.State, id snapshot.ID,
	o diff.Options) (_ diff.Layer, err error) {
	if id == "" {
		tmp := state.NewTempDir(s.Root)
		defer func() { err = errors.Join(err, tmp.Close()) }()
		t, err := emptyTree(tmp)
		if err != nil {
			return diff.Layer{}, err
		}
		return diff.Seal(ctx, s.Store, t, o)
	}
	c, err := s.Snapshots.Changes(ctx, id)
	if errors.Is(err, snapshot.ErrNotExist) {
		return diff.Layer{}, nil
	}
	if err != nil {
		return diff.Layer{}, err
	}
	return diff.Seal(ctx, s.Store, tree(c), o)
}

// emptyTree is the tree of the layer without entries.
func emptyTree(tmp *state.TempDir) (diff.Tree, error) {
	dir, err := tmp.Make("empty")
	if err == nil {
		err = os.Chmod(dir, 0o755) // the mode of an unchanged root
	}
	return diff.Tree{Dir: dir, Full: true}, err
}
