package image

import (
	"context"
	"fmt"
	"io"

	"github.com/layerbuild/layerbuild/internal/ocidoc"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Manifest returns the image of a manifest. The manifest is read from the store, or from the
// place where from, another image of the same index, was found. from may be nil.
func (r *Resolver) Manifest(ctx context.Context, name string, d ocispec.Descriptor,
	from *Image) (*Image, error) {
	origin := FromStore
	read := r.store.Read
	var src source
	if from != nil && from.source != nil {
		origin, src = from.Origin, from.source
		read = func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
			return r.document(ctx, src, d)
		}
	}
	manifest, err := read(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	c, err := configOf(name, d, manifest)
	if err != nil {
		return nil, err
	}
	config, err := read(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	img, err := parse(name, origin, d, d, manifest, config)
	if err != nil {
		return nil, err
	}
	img.source = src
	return img, nil
}

// IsIndex reports whether the image was found in an index.
func (img *Image) IsIndex() bool { return ocidoc.IsIndex(img.Root.MediaType) }

// Document returns a manifest or an index, from the store or from the place where img was found.
func (r *Resolver) Document(ctx context.Context, d ocispec.Descriptor, img *Image) ([]byte, error) {
	if img.source == nil {
		return r.store.Read(ctx, d)
	}
	return r.document(ctx, img.source, d)
}

// EnsureManifest copies a manifest of any kind into the store, with all blobs to which it refers.
func (r *Resolver) EnsureManifest(ctx context.Context, d ocispec.Descriptor, img *Image) error {
	data, err := r.Document(ctx, d, img)
	if err != nil {
		return err
	}
	m, err := ocidoc.Parse(data)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	for _, b := range m.Content() {
		there, err := r.store.Exists(ctx, b)
		if err != nil || there {
			if err != nil {
				return fmt.Errorf("manifest %s: %w", d.Digest, err)
			}
			continue
		}
		if img.source == nil {
			return fmt.Errorf("manifest %s: blob %s is not in the store", d.Digest, b.Digest)
		}
		body, err := img.source.Open(ctx, b)
		if err != nil {
			return err
		}
		err = r.store.IngestAs(ctx, b, func(w io.Writer) error {
			_, err := io.Copy(w, body)
			return err
		})
		body.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
