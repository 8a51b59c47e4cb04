package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/outline"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
)

// A COPY on layers that were not fetched needs their outline (see package outline). The first
// machine that needs it reads the layers, and writes the outline to the shared caches. The others
// fetch the outline only, which is much smaller.

// outlineType is the media type of a packed outline.
const outlineType = "application/vnd.layerbuild.outline.v1+zstd"

// maxOutline limits a packed outline, which is read into memory.
const maxOutline = 32 << 20

// shareOutline makes the outline of the lazy snapshot id, whose layers are list, from a shared
// cache, if there is one. It does nothing if one of the layers is only on this machine.
func (r *results) shareOutline(id snapshot.ID, list []*layers.Layer) {
	if !r.imports.IsShared() || len(list) == 0 || !r.lazy.Has(id) {
		return
	}
	parts := make([]image.Part, len(list))
	for i, l := range list {
		if l.Base == nil {
			return
		}
		parts[i] = image.Part{Image: l.Base, Index: l.Index}
	}
	top := list[len(list)-1]
	r.lazy.WrapOutline(id, func(ctx context.Context,
		next func(context.Context) (snapshot.ID, error)) (snapshot.ID, error) {
		img := image.Stack(top.Base.Name, parts)
		key := cache.Key(fmt.Sprint("outline ", outline.Version, " ", img.ChainID()))
		line, reads := event.ID(key), false
		made, err := r.images.SharedOutline(ctx, img, image.OutlineOptions{
			UnpackOptions: image.UnpackOptions{ID: line, Sink: r.sink},
			Load: func(ctx context.Context) (io.ReadCloser, error) {
				blob, err := r.loadOutline(ctx, key)
				if blob == nil && err == nil {
					reads = true
					r.sink(event.Start{ID: line, Name: "reading the layers below a COPY",
						Time: time.Now()})
				}
				return blob, err
			},
			Save: func(ctx context.Context, pack func(io.Writer) error) {
				r.saveOutline(ctx, key, pack)
			},
		})
		if reads {
			r.sink(event.Done{ID: line, Err: err, Time: time.Now()})
		}
		if made != "" || ctx.Err() != nil {
			return made, err
		}
		return next(ctx) // which finds out, too, that a layer cannot be read
	})
}

// loadOutline opens a packed outline that another machine has made; nil: there is none.
func (r *results) loadOutline(ctx context.Context, key cache.Key) (io.ReadCloser, error) {
	var errs []error
	for _, f := range r.imports.Find(ctx, key) {
		d := f.Layer.Descriptor
		if d.MediaType != outlineType || d.Size > maxOutline {
			continue
		}
		data, err := func() ([]byte, error) {
			blob, err := f.From.Open(ctx, d)
			if err != nil {
				return nil, err
			}
			defer blob.Close()
			return io.ReadAll(blob) // to its end, where its digest is checked
		}()
		if err == nil {
			return io.NopCloser(bytes.NewReader(data)), nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// saveOutline writes a packed outline to the shared caches, in the background.
func (r *results) saveOutline(ctx context.Context, key cache.Key, pack func(io.Writer) error) {
	d, err := r.images.Pack(ctx, outlineType, pack)
	if err != nil {
		return // the build does not need it
	}
	r.imports.Share(ctx, remotecache.Record{
		Key: key, Created: time.Now().UTC(), Step: "(the directories below a COPY)",
		Layer: &remotecache.Layer{Descriptor: d, DiffID: digest.FromString(string(key)),
			Sealed: "outline"},
	})
}
