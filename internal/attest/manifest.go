package attest

import (
	"encoding/json"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Platform is the platform of a manifest of attestations in an index. No machine has it, so that no
// program pulls the manifest as an image.
var Platform = ocispec.Platform{OS: "unknown", Architecture: "unknown"}

// The names in the documents that hold statements
// (https://github.com/moby/buildkit/blob/v0.34.2/docs/attestations/attestation-storage.md).
const (
	annotationPredicate = "in-toto.io/predicate-type"
	artifactType        = "application/vnd.docker.attestation.manifest.v1+json"
)

// Layer returns the descriptor of a statement with the given bytes.
func Layer(predicateType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: MediaType, Digest: digest.FromBytes(data),
		Size:        int64(len(data)),
		Annotations: map[string]string{annotationPredicate: predicateType}}
}

// NewManifest returns the manifest that holds the statements about the image target, and the bytes
// of its configuration. The configuration is that of an image with the statements as layers, which
// all readers accept, or with artifact an empty one.
func NewManifest(target ocispec.Descriptor, statements []ocispec.Descriptor,
	artifact bool) (m ocispec.Manifest, config []byte, err error) {
	m = ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Layers: statements}
	if artifact {
		m.ArtifactType, m.Config = artifactType, ocispec.DescriptorEmptyJSON
		m.Subject = &ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest,
			Size: target.Size}
		return m, ocispec.DescriptorEmptyJSON.Data, nil
	}
	img := ocispec.Image{Platform: Platform, RootFS: ocispec.RootFS{Type: "layers"}}
	for _, l := range statements {
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, l.Digest) // they are not compressed
	}
	if config, err = json.Marshal(img); err != nil {
		return m, nil, err
	}
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig,
		Digest: digest.FromBytes(config), Size: int64(len(config))}
	return m, config, nil
}
