package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/layerbuild/layerbuild/internal/engine"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/ocijson"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/store"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// hostVariable is the variable with the address of the docker daemon.
const hostVariable = "DOCKER_HOST"

// newEngine returns the docker daemon of the environment.
func newEngine(getenv func(string) string) func() (*engine.Engine, error) {
	return func() (*engine.Engine, error) { return engine.New(getenv(hostVariable)) }
}

// found finds the image that a word of the command line names, with all its platforms. The image
// may be in the store or in any other place.
func (im *images) found(ctx context.Context, word string) (*image.Found, error) {
	ref, err := im.ref(ctx, word)
	if err != nil {
		return nil, err
	}
	r, err := imageref.Parse(ref, imageref.Options{Exists: image.Exists})
	if err != nil {
		return nil, err
	}
	return im.foundAt(ctx, r, word)
}

// foundAt is like found for a parsed reference.
func (im *images) foundAt(ctx context.Context, r imageref.Ref, word string) (*image.Found, error) {
	found, err := im.resolver.Find(ctx, r)
	if errors.Is(err, store.ErrNotFound) && !image.HasPlace(word) {
		return nil, fmt.Errorf("image %s: %w; 'layerbuild images' lists the images there, "+
			"docker://%[1]s is the image of a registry", word, store.ErrNotFound)
	}
	return found, err
}

// forPlatform returns the image for one platform of an index, and checks that a single image is
// for the platform if a flag gave it.
func (im *images) forPlatform(ctx context.Context, f *image.Found, name string,
	want wanted) (*image.Found, error) {
	one, err := f.ForPlatform(ctx, want.platform)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	if !want.explicit || one != f {
		return one, nil
	}
	config, err := configOf(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	return one, want.isFor(name, &image.Image{Root: f.Root, Descriptor: f.Root,
		Platform: config.Platform})
}

// configOf returns the configuration of a single image.
func configOf(ctx context.Context, f *image.Found) (config ocispec.Image, err error) {
	data, err := f.Read(ctx, f.Root)
	if err != nil {
		return config, err
	}
	doc, err := ocidoc.Parse(data)
	if err != nil {
		return config, err
	}
	if doc.Config == nil {
		return config, errors.New("it has no configuration")
	}
	if data, err = f.Read(ctx, *doc.Config); err != nil {
		return config, err
	}
	return config, ocijson.Unmarshal(data, &config)
}

// imageID returns the image ID: the digest of the configuration or, of an image for several
// platforms, of the index.
func imageID(ctx context.Context, f *image.Found) (string, error) {
	if ocidoc.IsIndex(f.Root.MediaType) {
		return f.Root.Digest.String(), nil
	}
	data, err := f.Read(ctx, f.Root)
	if err != nil {
		return "", err
	}
	doc, err := ocidoc.Parse(data)
	if err != nil {
		return "", err
	}
	if doc.Config == nil {
		return f.Root.Digest.String(), nil
	}
	return doc.Config.Digest.String(), nil
}

// namesOf returns the names of an image for an archive, without those with a digest.
func namesOf(f *image.Found) []reference.Name {
	var list []reference.Name
	for _, name := range f.Names {
		if n, err := reference.Full(name); err == nil && n.Digest == "" {
			list = append(list, n)
		}
	}
	return list
}

// storeImage copies an image into the store and gives it names there.
func (im *images) storeImage(ctx context.Context, s *store.Store, f *image.Found, names []string,
	id event.ID, sink event.Sink) error {
	if err := im.resolver.Store(ctx, f, image.UnpackOptions{ID: id, Sink: sink}); err != nil {
		return err
	}
	if len(names) == 0 {
		return s.Tag(ctx, "", f.Root)
	}
	for _, name := range names {
		if err := s.Tag(ctx, name, f.Root); err != nil {
			return err
		}
	}
	return nil
}
