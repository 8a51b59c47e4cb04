package store

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Forget removes the entries of images that have no name. It keeps entries of the same images that
// have a name. It is not an error if there is no such image.
func (s *Store) Forget(ctx context.Context, images ...digest.Digest) error {
	if len(images) == 0 {
		return nil
	}
	return s.update(ctx, func(list []ocispec.Descriptor) []ocispec.Descriptor {
		return slices.DeleteFunc(list, func(e ocispec.Descriptor) bool {
			return slices.Contains(images, e.Digest) && entryName(e) == ""
		})
	})
}
