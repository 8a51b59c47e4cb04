package store

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Forget no longer keeps an image that has no name. Names that the same image has are not touched. It is no error if
// there is no such image.
func (s *Store) Forget(ctx context.Context, d digest.Digest) error {
	return s.update(ctx, func(list []ocispec.Descriptor) []ocispec.Descriptor {
		return slices.DeleteFunc(list, func(e ocispec.Descriptor) bool { return e.Digest == d && entryName(e) == "" })
	})
}
