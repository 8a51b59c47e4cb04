package remotecache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/store"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Repository pushes to a repository of a registry.
type Repository interface {
	// Blob copies a blob of the local store to the repository, unless it has the blob.
	Blob(ctx context.Context, d ocispec.Descriptor) error
	// Manifest pushes a manifest under a tag.
	Manifest(ctx context.Context, d ocispec.Descriptor, data []byte, tag string) error
	// Tags calls f with each tag until it returns an error.
	Tags(ctx context.Context, f func(tag string) error) error
	// Untag deletes the manifest of a tag. The error wraps registry.ErrNotFound if there is none.
	Untag(ctx context.Context, tag string) error
}

// RegistryStore is a Store in a repository of a registry. A document is an annotation of a manifest
// with the empty configuration, whose tag is the name of the document and whose layers are the
// blobs, so that the registry keeps them. One request reads it.
type RegistryStore struct {
	// Ref is the name of the repository, without a tag.
	Ref       string
	Artifacts Artifacts
	// Repository returns the repository to write to.
	Repository func(ctx context.Context) (Repository, error)
	Store      *store.Store
}

// Get implements Store.
func (r *RegistryStore) Get(ctx context.Context, name string) ([]byte, *image.Artifact, error) {
	a, err := r.Artifacts.Artifact(ctx, r.Ref+":"+name, image.ResolveOptions{Pull: true})
	if image.IsMissing(err) {
		return nil, nil, ErrNoDocument
	}
	if err != nil {
		return nil, nil, err
	}
	a.Name = r.Ref
	data, ok := a.Manifest.Annotations[Field]
	if !ok {
		return nil, nil, fmt.Errorf("the manifest of tag %s has no annotation %s", name, Field)
	}
	return []byte(data), a, nil
}

// Put implements Store.
func (r *RegistryStore) Put(ctx context.Context, name string, data []byte,
	blobs []ocispec.Descriptor) error {
	repo, err := r.Repository(ctx)
	if err != nil {
		return err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: MediaType, Config: ocispec.DescriptorEmptyJSON,
		Layers:      append([]ocispec.Descriptor{}, blobs...),
		Annotations: map[string]string{Field: string(data)},
	}
	if _, err := r.Store.Write(ctx, m.Config.MediaType, m.Config.Data); err != nil {
		return err
	}
	if err := repo.Blob(ctx, m.Config); err != nil {
		return err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(text) > ocidoc.MaxManifest {
		return errors.New("the document is larger than registries allow")
	}
	d := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(text),
		Size: int64(len(text))}
	return repo.Manifest(ctx, d, text, name)
}

// Send implements Store.
func (r *RegistryStore) Send(ctx context.Context, d ocispec.Descriptor) error {
	repo, err := r.Repository(ctx)
	if err != nil {
		return err
	}
	return repo.Blob(ctx, d)
}

// List implements Catalog.
func (r *RegistryStore) List(ctx context.Context, f func(name string) error) error {
	repo, err := r.Repository(ctx)
	if err != nil {
		return err
	}
	return repo.Tags(ctx, func(tag string) error {
		if !isDocument(tag) {
			return nil
		}
		return f(tag)
	})
}

// Delete implements Catalog.
func (r *RegistryStore) Delete(ctx context.Context, name string) error {
	repo, err := r.Repository(ctx)
	if err != nil {
		return err
	}
	err = repo.Untag(ctx, name)
	if image.IsMissing(err) {
		return ErrNoDocument
	}
	return err
}

// Sweep implements Catalog. The registry itself deletes blobs to which no manifest refers, when it
// collects garbage.
func (r *RegistryStore) Sweep(context.Context, time.Time, func(digest.Digest) bool) (int, int64,
	error) {
	return 0, 0, nil
}
