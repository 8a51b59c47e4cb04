package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/layerbuild/layerbuild/internal/ocidoc"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerbuild/layerbuild/internal/ocijson"
)

// Origin is the kind of place where an image was found.
type Origin string

const (
	FromStore    Origin = "store"    // built or pulled here
	FromRegistry Origin = "registry" // now, or in an earlier build
	FromLayout   Origin = "layout"   // in a layout or archive
)

// Image is an image for one platform. Its manifest and configuration are in the store; its layers
// may not be.
type Image struct {
	Name   string // the full name; for an image of a layout its name in the layout
	Origin Origin // where it was found
	// the descriptor to which the name refers: the manifest, or an index that contains it
	Root       ocispec.Descriptor
	Descriptor ocispec.Descriptor // the manifest
	Manifest   ocispec.Manifest
	Config     dockerspec.DockerOCIImage
	Platform   ocispec.Platform // the platform in the configuration

	source source
}

// source opens blobs that the store does not have. The caller of Open verifies the content.
type source interface {
	Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
}

// ChainID returns the chain ID of all layers; it is empty for an image without layers.
func (img *Image) ChainID() digest.Digest { return identity.ChainID(img.Config.RootFS.DiffIDs) }

// Rewritten returns the descriptor old for a rewritten blob, without the fields that describe
// the old bytes: embedded data, download addresses, and annotations. The annotations of stargz,
// zstd:chunked, nydus, SOCI and overlaybd hold offsets and digests inside the blob, so that a
// reader would reject the new blob as damaged. Annotations of the OCI image specification
// describe the content and are kept.
func Rewritten(old, written ocispec.Descriptor) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: written.MediaType, Digest: written.Digest,
		Size: written.Size, Platform: old.Platform, ArtifactType: old.ArtifactType}
	for k, v := range old.Annotations {
		if !strings.HasPrefix(k, "org.opencontainers.image.") {
			continue
		}
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[k] = v
	}
	return d
}

// maxList limits the number of variables and of ONBUILD triggers of an image. It is the limit
// for a Dockerfile, too.
const maxList = 10_000

// parse makes an Image of a manifest and a configuration.
func parse(name string, origin Origin, root, d ocispec.Descriptor, manifest,
	config []byte) (*Image, error) {
	img := &Image{Name: name, Origin: origin, Root: root, Descriptor: d}
	if err := ocijson.Unmarshal(manifest, &img.Manifest); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if err := ocijson.Unmarshal(config, &img.Config); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", img.Manifest.Config.Digest, err)
	}
	img.Platform = img.Config.Platform
	if n := len(img.Config.Config.Env); n > maxList {
		return nil, fmt.Errorf(
			"image %s is not valid: its configuration has %d variables, at most %d are possible",
			name, n, maxList)
	}
	if n := len(img.Config.Config.OnBuild); n > maxList {
		return nil, fmt.Errorf("image %s is not valid: its configuration has %d ONBUILD "+
			"triggers, at most %d are possible", name, n, maxList)
	}
	if n, m := len(img.Manifest.Layers), len(img.Config.RootFS.DiffIDs); n != m {
		return nil, fmt.Errorf(
			"image %s is not valid: it has %d layers, and its configuration names %d", name, n, m)
	}
	for i, l := range img.Manifest.Layers {
		if !ocidoc.IsLayer(l.MediaType) {
			return nil, fmt.Errorf(
				"image %s has no file system: its layer %s has the media type %q", name, l.Digest,
				l.MediaType)
		}
		if err := errors.Join(l.Digest.Validate(),
			img.Config.RootFS.DiffIDs[i].Validate()); err != nil {
			return nil, fmt.Errorf("image %s is not valid: layer %d: %w", name, i, err)
		}
		if l.Size < 0 {
			return nil, fmt.Errorf("image %s is not valid: layer %s has a size of %d",
				name, l.Digest, l.Size)
		}
	}
	return img, nil
}

// configOf returns the descriptor of the configuration in a manifest, and an error if the manifest
// does not describe an image.
func configOf(name string, d ocispec.Descriptor, manifest []byte) (ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := ocijson.Unmarshal(manifest, &m); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	switch t := ocidoc.OCIDescriptor(m.Config).MediaType; t {
	case ocispec.MediaTypeImageConfig, "", "application/octet-stream": // media types of old tools
	default:
		if m.ArtifactType != "" {
			t = m.ArtifactType
		}
		return ocispec.Descriptor{},
			fmt.Errorf("%s cannot be used as a base: it is not an image but %q", name, t)
	}
	if err := m.Config.Digest.Validate(); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("manifest %s: configuration %q: %w", d.Digest,
			m.Config.Digest, err)
	}
	if m.Config.Size < 0 || m.Config.Size > ocidoc.MaxConfig {
		return ocispec.Descriptor{}, fmt.Errorf("manifest %s: a configuration of %d bytes",
			d.Digest, m.Config.Size)
	}
	return m.Config, nil
}
