package outputs

import (
	"context"
	"slices"
	"sync"

	"github.com/layerbuild/layerbuild/export"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// SendFunc sends a blob to the repository of an image name, ahead of the image.
type SendFunc func(ctx context.Context, name string, spec export.Spec, d ocispec.Descriptor) error

// Uploads sends layers to the image's registries while later steps run.
type Uploads struct {
	send    SendFunc
	options *Options
	recipe  Recipe
	running sync.WaitGroup
}

// NewUploads returns Uploads for a build whose layers are sealed for a recipe. If send is nil,
// nothing is sent early.
func NewUploads(send SendFunc, o *Options, r Recipe) *Uploads {
	return &Uploads{send: send, options: o, recipe: r}
}

// Add starts sending a layer. It ignores errors: if they persist, the push at the end reports them.
// All sending stops when ctx ends.
func (u *Uploads) Add(ctx context.Context, d ocispec.Descriptor) {
	if u.send == nil {
		return
	}
	for _, spec := range u.options.Specs {
		if spec.Type != export.TypeImage || !spec.Push {
			continue
		}
		if r := RecipeOf(spec); r.PruneDead || !r.sameLayers(u.recipe) {
			continue // the layers of the output are not known yet
		}
		names := slices.Compact(slices.Sorted(slices.Values(slices.Concat(u.options.Names,
			spec.Names))))
		for _, name := range names {
			u.running.Go(func() { _ = u.send(ctx, name, spec, d) })
		}
	}
}

// Wait waits until nothing is being sent.
func (u *Uploads) Wait() { u.running.Wait() }
