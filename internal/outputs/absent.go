package outputs

import (
	"context"
	"errors"
	"sync"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/store"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// absent holds the layers of an image that are not in the store, because all registries to which
// the image is pushed have them. A build whose steps are all in a cache moves no layer then.
type absent struct {
	to  []destination // nil: all layers must be in the store
	ask Uploader

	mu     sync.Mutex
	layers map[digest.Digest]bool
}

// newAbsent returns the absent layers of a new image. There can be some only if the image is pushed
// and nothing else needs its layers.
func (w *Writer) newAbsent() *absent {
	a := &absent{ask: w.Remote, layers: map[digest.Digest]bool{}}
	if w.Remote == nil || w.Recipe.Force || w.Recipe.PruneDead {
		return a
	}
	for _, spec := range w.Options.Specs {
		if spec.Type != export.TypeImage || !spec.Push ||
			w.Options.recipe(spec).key() != w.Recipe.key() {
			return a
		}
	}
	a.to = w.Options.destinations(w.Recipe)
	return a
}

// add reports whether a layer can be absent, and adds it then. An error of a registry is the push's
// to report.
func (a *absent) add(ctx context.Context, d ocispec.Descriptor) bool {
	if len(a.to) == 0 {
		return false
	}
	for _, to := range a.to {
		if ok, err := a.ask.Locate(ctx, to.name, to.spec, d); err != nil || !ok {
			return false
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.layers[d.Digest] = true
	return true
}

// len returns the number of absent layers.
func (a *absent) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.layers)
}

// untag removes the names of an image that is not in the store from the images that had them. The
// names then refer to the image in the registry, and not to an older one.
func (w *Writer) untag(ctx context.Context) (names []string, err error) {
	for _, n := range w.Options.Names {
		full, err := store.Name(n)
		if err != nil {
			return names, err
		}
		names = append(names, full)
	}
	for _, n := range w.allNames(names) {
		if _, err := w.State.Store.Untag(ctx, n); err != nil && !errors.Is(err, store.ErrNotFound) {
			return names, err
		}
	}
	return names, nil
}
