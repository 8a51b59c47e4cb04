package build

import (
	"context"
	"slices"

	"github.com/layerbuild/layerbuild/export"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Uploader sends a blob to the repository of an image name, ahead of the image.
type Uploader func(ctx context.Context, name string, spec export.Spec, d ocispec.Descriptor) error

// upload begins to send a layer to the registries that the image is going to, as soon as the layer is there. An error
// is of no account here: the push at the end meets it again, if it is still one, and reports it.
func (b *builder) upload(d ocispec.Descriptor) {
	if b.opts.Upload == nil {
		return
	}
	for _, spec := range b.opts.Outputs {
		if spec.Type != export.TypeImage || !spec.Push {
			continue
		}
		if r := recipeOf(spec); r.PruneDead || !r.sameLayers(b.recipe) {
			continue // the layers of the output are not known yet
		}
		names := slices.Compact(slices.Sorted(slices.Values(slices.Concat(b.opts.Image.Names, spec.Names))))
		for _, name := range names {
			b.uploads.Go(func() { _ = b.opts.Upload(b.ctx, name, spec, d) })
		}
	}
}
