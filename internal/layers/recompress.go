package layers

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/unpack"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Recompress returns the descriptor of a layer in another format. It writes the layer in that
// format unless an earlier build has done so. d is the layer's present descriptor. Wait must have
// returned before.
func (l *Layer) Recompress(ctx context.Context, s *state.State, d ocispec.Descriptor,
	f Format) (ocispec.Descriptor, error) {
	source := l.source()
	if l.Base != nil {
		source = d.Digest.String()
	}
	return Recompress(ctx, s, source, d, l.DiffID, f)
}

// Recompress is like Layer.Recompress, for the layer that was sealed from source.
func Recompress(ctx context.Context, s *state.State, source string, d ocispec.Descriptor,
	diffID digest.Digest, f Format) (_ ocispec.Descriptor, err error) {
	if have, ok := s.SealedLayer(ctx, source, f.String()); ok && have.DiffID == diffID {
		return image.Rewritten(d, have.Descriptor), nil
	}
	blob, err := s.Store.Fetch(ctx, d)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	plain, _, err := unpack.Decompress(blob)
	if err != nil {
		return d, err
	}
	defer plain.Close()
	sum, n := digest.SHA256.Digester(), count(0)
	w, err := diff.Recompress(ctx, s.Store,
		io.TeeReader(plain, io.MultiWriter(sum.Hash(), &n)), f.options())
	if err != nil {
		return d, err
	}
	if sum.Digest() != diffID {
		return d, fmt.Errorf("it is damaged: its content is not %s", diffID)
	}
	err = s.Cache.PutSealed(ctx, source, f.String(),
		cache.Layer{Descriptor: w, DiffID: diffID, Size: int64(n)})
	return image.Rewritten(d, w), err
}

// count counts the bytes that are written to it.
type count int64

func (n *count) Write(p []byte) (int, error) { *n += count(len(p)); return len(p), nil }
