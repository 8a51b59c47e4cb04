package store

import (
	"context"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Forget removes entries: those with the name and the digest of one of images. It keeps the entries
// that the same images have under other names. It is not an error if there is no such entry.
func (s *Store) Forget(ctx context.Context, images ...Entry) error {
	if len(images) == 0 {
		return nil
	}
	return s.update(ctx, func(list []ocispec.Descriptor) []ocispec.Descriptor {
		return slices.DeleteFunc(list, func(e ocispec.Descriptor) bool {
			name := entryName(e)
			return slices.ContainsFunc(images, func(i Entry) bool {
				return i.Descriptor.Digest == e.Digest && i.Name == name
			})
		})
	})
}
