package ocidoc

import (
	"strings"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types of documents, which are equivalent to those of the image specification.
const (
	DockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// artifactManifest is the type of a manifest that drafts of the image specification 1.1 had.
const artifactManifest = "application/vnd.oci.artifact.manifest.v1+json"

// foreignLayer is the media type of a layer that must not be distributed, without a compression.
// ocispec has a deprecated constant for it.
const foreignLayer = "application/vnd.oci.image.layer.nondistributable.v1.tar"

// ociTypes are the media types of the image specification that are equivalent to Docker's.
var ociTypes = map[string]string{
	DockerManifest:     ocispec.MediaTypeImageManifest,
	DockerManifestList: ocispec.MediaTypeImageIndex,
	"application/vnd.docker.container.image.v1+json":            ocispec.MediaTypeImageConfig,
	"application/vnd.docker.image.rootfs.diff.tar":              ocispec.MediaTypeImageLayer,
	"application/vnd.docker.image.rootfs.diff.tar.gzip":         ocispec.MediaTypeImageLayerGzip,
	"application/vnd.docker.image.rootfs.diff.tar.zstd":         ocispec.MediaTypeImageLayerZstd,
	"application/vnd.docker.image.rootfs.foreign.diff.tar":      foreignLayer,
	"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": foreignLayer + "+gzip",
	"application/vnd.docker.image.rootfs.foreign.diff.tar.zstd": foreignLayer + "+zstd",
}

// OCIDescriptor returns a descriptor with the OCI media type that is equivalent to Docker's.
func OCIDescriptor(d ocispec.Descriptor) ocispec.Descriptor {
	if t, ok := ociTypes[d.MediaType]; ok {
		d.MediaType = t
	}
	return d
}

// DockerDescriptor returns a descriptor with Docker's media type that is equivalent to the OCI
// media type.
func DockerDescriptor(d ocispec.Descriptor) ocispec.Descriptor {
	for docker, oci := range ociTypes {
		if d.MediaType == oci {
			d.MediaType = docker
			break
		}
	}
	return d
}

// Accepted returns the supported types of manifests and indexes.
func Accepted() []string {
	return []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, DockerManifest,
		DockerManifestList}
}

// IsIndex reports whether a media type is the type of an index.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == DockerManifestList
}

// RefersToOthers reports whether a blob of this type can refer to other blobs. It returns true if
// the type is not known ("").
func RefersToOthers(mediaType string) bool {
	switch mediaType {
	case "", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, DockerManifest,
		DockerManifestList, artifactManifest:
		return true
	}
	return false
}

// IsLayer reports whether a blob of this media type can be unpacked. The compression is detected
// from its first bytes.
func IsLayer(mediaType string) bool {
	if t, ok := ociTypes[mediaType]; ok {
		mediaType = t
	}
	for _, p := range []string{ocispec.MediaTypeImageLayer, foreignLayer} {
		if mediaType == p || strings.HasPrefix(mediaType, p+"+") {
			return !strings.HasSuffix(mediaType, "+encrypted")
		}
	}
	return false
}

// IsForeign reports whether a layer must not be pushed to registries: it is fetched from the
// addresses in its descriptor. Base layers of Windows are of this kind.
func IsForeign(mediaType string) bool {
	return strings.Contains(mediaType, ".nondistributable.") ||
		strings.Contains(mediaType, ".foreign.")
}

// Compression returns the compression that a layer's media type names: "gzip", "zstd", or "" for
// none and for others.
func Compression(mediaType string) string {
	for _, c := range []string{"gzip", "zstd"} {
		if strings.HasSuffix(mediaType, "+"+c) || strings.HasSuffix(mediaType, "."+c) {
			return c
		}
	}
	return ""
}

// AnnotationName is the annotation of an entry of index.json with an image's full name that
// containerd, Docker and BuildKit use. In their layouts, the specification's own ref.name has only
// the tag.
const AnnotationName = "io.containerd.image.name"

// LayoutFile is the content of the file oci-layout
// (https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md).
const LayoutFile = `{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`

// The annotations with which BuildKit marks an attestation and names the manifest that it describes
// (https://github.com/moby/buildkit/blob/v0.19.0/docs/attestations/attestation-storage.md).
const (
	attestationType   = "vnd.docker.reference.type"
	attestationDigest = "vnd.docker.reference.digest"

	attestationManifest = "attestation-manifest"
)

// Attests returns the annotations of an entry of an index that attests the given manifest.
func Attests(of digest.Digest) map[string]string {
	return map[string]string{attestationType: attestationManifest,
		attestationDigest: of.String()}
}

// Attested returns the digest of the manifest that an entry of an index attests, "" if the entry
// names none. It need not be valid.
func Attested(d ocispec.Descriptor) string { return d.Annotations[attestationDigest] }

// IsImage reports whether an entry of an index is an image, and not an attestation or another kind
// of object.
func IsImage(d ocispec.Descriptor) bool {
	return d.Annotations[attestationType] == "" && d.ArtifactType == "" &&
		(d.Platform == nil || d.Platform.OS != "unknown" || d.Platform.Architecture != "unknown")
}
