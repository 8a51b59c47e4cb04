package imagetest

import (
	"encoding/json"
	"fmt"
	"maps"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Attestation is a statement about an image, as the index of the image has it.
type Attestation struct {
	PredicateType string // in the annotation
	Statement     []byte
	Artifact      bool // the manifest is an OCI artifact
}

// Attestations returns the statements about the image. Every digest and size is checked, and that
// the documents have the form of BuildKit's attestations.
func (img *Image) Attestations() ([]Attestation, error) {
	var list []Attestation
	if img.index == nil {
		return nil, nil
	}
	for i, d := range img.index.Manifests {
		if d.Annotations["vnd.docker.reference.digest"] != img.Descriptor.Digest.String() {
			continue
		}
		if d.Platform == nil || d.Platform.OS != "unknown" ||
			d.Platform.Architecture != "unknown" || len(d.Annotations) != 2 || i == 0 ||
			d.Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
			return nil, fmt.Errorf("entry %d of the index is %+v", i, d)
		}
		of, err := img.attestations(d)
		if err != nil {
			return nil, fmt.Errorf("attestation manifest %s: %w", d.Digest, err)
		}
		list = append(list, of...)
	}
	return list, nil
}

// attestations returns the statements of one manifest.
func (img *Image) attestations(d ocispec.Descriptor) ([]Attestation, error) {
	raw, err := img.blob(d)
	if err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	config, err := img.blob(m.Config)
	if err != nil {
		return nil, err
	}
	artifact := m.ArtifactType != ""
	var c ocispec.Image
	switch {
	case artifact && (m.Subject == nil || m.Subject.Digest != img.Descriptor.Digest ||
		string(config) != "{}"):
		return nil, fmt.Errorf("the artifact is %s", raw)
	case !artifact:
		if err := json.Unmarshal(config, &c); err != nil {
			return nil, err
		}
		if m.Subject != nil || len(c.RootFS.DiffIDs) != len(m.Layers) || c.OS != "unknown" {
			return nil, fmt.Errorf("%s with the configuration %s", raw, config)
		}
	}
	var list []Attestation
	for i, l := range m.Layers {
		data, err := img.blob(l)
		if err != nil {
			return nil, err
		}
		var s struct{ PredicateType string }
		if err := json.Unmarshal(data, &s); err != nil {
			return nil, err
		}
		want := map[string]string{"in-toto.io/predicate-type": s.PredicateType}
		if l.MediaType != "application/vnd.in-toto+json" || !maps.Equal(l.Annotations, want) ||
			!artifact && c.RootFS.DiffIDs[i] != l.Digest {
			return nil, fmt.Errorf("statement %d is %+v", i, l)
		}
		list = append(list, Attestation{s.PredicateType, data, artifact})
	}
	return list, nil
}

// blob returns a blob whose size is that of its descriptor.
func (img *Image) blob(d ocispec.Descriptor) ([]byte, error) {
	data, err := img.blobs(d.Digest)
	if err == nil && int64(len(data)) != d.Size {
		err = fmt.Errorf("blob %s has %d bytes, its descriptor has size %d", d.Digest, len(data),
			d.Size)
	}
	return data, err
}

// Platform returns the image for another platform of the same index.
func (img *Image) Platform(os, architecture string) (*Image, error) {
	for _, d := range img.index.Manifests {
		if d.Platform != nil && d.Platform.OS == os && d.Platform.Architecture == architecture {
			other, err := load(d, img.blobs)
			if err == nil {
				other.index = img.index
			}
			return other, err
		}
	}
	return nil, fmt.Errorf("the index has no %s/%s", os, architecture)
}

// Root returns the digest of the index in which the image was found, or else that of its manifest.
func (img *Image) Root() digest.Digest {
	if img.index == nil {
		return img.Descriptor.Digest
	}
	return img.root
}
