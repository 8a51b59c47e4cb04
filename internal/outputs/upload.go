package outputs

import (
	"context"
	"slices"
	"sync"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/store"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Uploader sends blobs to the repository of an image name, ahead of the image.
type Uploader interface {
	// Send sends a blob.
	Send(ctx context.Context, name string, spec export.Spec, d ocispec.Descriptor) error
	// Stream sends a blob while it is written.
	Stream(ctx context.Context, name string, spec export.Spec, g *store.Growing) error
	// Locate reports whether the repository has a blob, or could copy it from another repository
	// of its registry.
	Locate(ctx context.Context, name string, spec export.Spec, d ocispec.Descriptor) (bool, error)
}

// destination is a name to which an output pushes.
type destination struct {
	name string
	spec export.Spec
}

// destinations returns the destinations of the outputs that push the layers of a recipe.
func (o *Options) destinations(r Recipe) []destination {
	var list []destination
	for _, spec := range o.Specs {
		if spec.Type != export.TypeImage || !spec.Push {
			continue
		}
		if of := RecipeOf(spec); of.PruneDead || !of.sameLayers(r) {
			continue // the layers of the output are not known yet
		}
		names := slices.Compact(slices.Sorted(slices.Values(slices.Concat(o.Names, spec.Names))))
		for _, name := range names {
			list = append(list, destination{name, spec})
		}
	}
	return list
}

// Uploads sends layers to the image's registries while they are written and while later steps run.
type Uploads struct {
	to      Uploader
	options *Options
	recipe  Recipe
	running sync.WaitGroup

	mu    sync.Mutex
	begun []*store.Growing // the layers of Begin
}

// NewUploads returns Uploads for a build whose layers are sealed for a recipe. If to is nil,
// nothing is sent early.
func NewUploads(to Uploader, o *Options, r Recipe) *Uploads {
	return &Uploads{to: to, options: o, recipe: r}
}

// Begin starts sending a layer that is being written. Where that fails, the layer is sent when it
// is complete. Begin ignores errors, as Add does.
func (u *Uploads) Begin(ctx context.Context, g *store.Growing) {
	u.mu.Lock()
	u.begun = append(u.begun, g)
	u.mu.Unlock()
	u.each(func(name string, spec export.Spec) {
		_ = u.to.Stream(ctx, name, spec, g)
		if d, err := g.Wait(ctx); err == nil {
			_ = u.to.Send(ctx, name, spec, d)
		}
	})
}

// Add starts sending a layer, unless Begin has. It ignores errors: if they persist, the push at the
// end reports them. All sending stops when ctx ends.
func (u *Uploads) Add(ctx context.Context, d ocispec.Descriptor) {
	u.mu.Lock()
	begun := slices.ContainsFunc(u.begun, func(g *store.Growing) bool {
		got, ok := g.Result()
		return ok && got.Digest == d.Digest
	})
	u.mu.Unlock()
	if begun {
		return
	}
	u.each(func(name string, spec export.Spec) { _ = u.to.Send(ctx, name, spec, d) })
}

// each calls send for each name of the outputs that push the layers of the recipe, each time in a
// goroutine.
func (u *Uploads) each(send func(name string, spec export.Spec)) {
	if u.to == nil {
		return
	}
	for _, to := range u.options.destinations(u.recipe) {
		u.running.Go(func() { send(to.name, to.spec) })
	}
}

// Wait waits until nothing is being sent.
func (u *Uploads) Wait() { u.running.Wait() }
