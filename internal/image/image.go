// Package image is the import side of a build: a name becomes a manifest with its configuration, and a manifest becomes
// snapshots.
//
// # Where a name leads
//
// An image name is looked for in the own store first: what was built or pulled here wins over a registry. Then comes
// what a registry answered before, so that a build that was done once is done again without a network. Only then a
// registry is asked. ResolveOptions.Pull turns the order around.
//
// A name may also say where to look:
//
//	docker-image://NAME                an image name, as in --build-context
//	oci-layout://PATH[:NAME][@DIGEST]  an OCI image layout: a directory, or an archive of one
//	oci:PATH[:NAME]                    the same
//	oci-archive:PATH[:NAME]            the same
//	docker-archive:PATH[:NAME]         what docker save writes
//
// PATH is relative to the working directory. NAME is a name in the layout, in full or only its tag; without one the
// layout has a single image, or one with the tag latest. Archives may be compressed. "oci:latest" is a name on Docker
// Hub, as it is everywhere: to be taken for a path, what follows "oci:" has a slash or another colon in it.
//
// # Where the bytes go
//
// A layer is unpacked while it is downloaded, and stored at the same time: it goes over the network once and is
// written once. Each layer becomes a snapshot that is named by its chain ID, so all images that begin with the same layers
// share them, and a layer whose snapshot exists is not even downloaded, until something that leaves the machine needs it
// (Ensure).
package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerbuild/layerbuild/internal/ocijson"
	"github.com/layerbuild/layerbuild/internal/registry"
)

// Origin is where an image was found.
type Origin string

const (
	FromStore    Origin = "store"    // built or pulled here
	FromRegistry Origin = "registry" // now, or in an earlier build
	FromLayout   Origin = "layout"   // a layout or archive
)

// Image is an image for one platform. Its manifest and configuration are in the store; its layers may not be.
type Image struct {
	Name       string             // in full; for a layout what the layout calls it
	Origin     Origin             // where it was found
	Root       ocispec.Descriptor // what the name stands for: the manifest, or an index that leads to it
	Descriptor ocispec.Descriptor // the manifest
	Manifest   ocispec.Manifest
	Config     dockerspec.DockerOCIImage
	Platform   ocispec.Platform // what the configuration says it is for

	source source
}

// source is where blobs come from that the store does not have. Open does not check what it gives.
type source interface {
	Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
}

// ChainID names the file system of all layers together; it is empty for an image without layers.
func (img *Image) ChainID() digest.Digest { return identity.ChainID(img.Config.RootFS.DiffIDs) }

// OCIDescriptor gives a descriptor the OCI media type that says the same as Docker's.
func OCIDescriptor(d ocispec.Descriptor) ocispec.Descriptor {
	if t, ok := ociTypes[d.MediaType]; ok {
		d.MediaType = t
	}
	return d
}

var ociTypes = map[string]string{
	registry.DockerManifest:                                     ocispec.MediaTypeImageManifest,
	registry.DockerManifestList:                                 ocispec.MediaTypeImageIndex,
	"application/vnd.docker.container.image.v1+json":            ocispec.MediaTypeImageConfig,
	"application/vnd.docker.image.rootfs.diff.tar":              ocispec.MediaTypeImageLayer,
	"application/vnd.docker.image.rootfs.diff.tar.gzip":         ocispec.MediaTypeImageLayerGzip,
	"application/vnd.docker.image.rootfs.diff.tar.zstd":         ocispec.MediaTypeImageLayerZstd,
	"application/vnd.docker.image.rootfs.foreign.diff.tar":      "application/vnd.oci.image.layer.nondistributable.v1.tar",
	"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
	"application/vnd.docker.image.rootfs.foreign.diff.tar.zstd": "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
}

// DockerDescriptor gives a descriptor Docker's media type in place of the equivalent OCI media type.
func DockerDescriptor(d ocispec.Descriptor) ocispec.Descriptor {
	for docker, oci := range ociTypes {
		if d.MediaType == oci {
			d.MediaType = docker
			break
		}
	}
	return d
}

// Rewritten returns the descriptor old for a rewritten blob, without everything that describes the old bytes: embedded data,
// download addresses, and annotations. The annotations of stargz, zstd:chunked, nydus, SOCI and overlaybd have offsets and
// digests inside the blob, so that a reader would take the new blob for damaged. Annotations of the OCI image
// specification describe the content, and stay.
func Rewritten(old, written ocispec.Descriptor) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: written.MediaType, Digest: written.Digest, Size: written.Size, Platform: old.Platform, ArtifactType: old.ArtifactType}
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

// isLayer says whether a blob of this media type can be unpacked. What compression it has is seen from its first bytes.
func isLayer(mediaType string) bool {
	if t, ok := ociTypes[mediaType]; ok {
		mediaType = t
	}
	for _, p := range []string{ocispec.MediaTypeImageLayer, "application/vnd.oci.image.layer.nondistributable.v1.tar"} {
		if mediaType == p || strings.HasPrefix(mediaType, p+"+") {
			return !strings.HasSuffix(mediaType, "+encrypted")
		}
	}
	return false
}

// maxConfig bounds configurations: those of registries' and our own are a few kilobytes, a history can make it more.
const maxConfig = 16 << 20

// maxList bounds the variables and the triggers of an image. A Dockerfile can have as many of them itself.
const maxList = 10_000

// parse makes an image of its two documents.
func parse(name string, origin Origin, root, d ocispec.Descriptor, manifest, config []byte) (*Image, error) {
	img := &Image{Name: name, Origin: origin, Root: root, Descriptor: d}
	if err := ocijson.Unmarshal(manifest, &img.Manifest); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if err := ocijson.Unmarshal(config, &img.Config); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", img.Manifest.Config.Digest, err)
	}
	img.Platform = img.Config.Platform
	if n := len(img.Config.Config.Env); n > maxList {
		return nil, fmt.Errorf("image %s is not valid: its configuration has %d variables, at most %d are possible", name, n, maxList)
	}
	if n := len(img.Config.Config.OnBuild); n > maxList {
		return nil, fmt.Errorf("image %s is not valid: its configuration has %d ONBUILD triggers, at most %d are possible", name, n, maxList)
	}
	if n, m := len(img.Manifest.Layers), len(img.Config.RootFS.DiffIDs); n != m {
		return nil, fmt.Errorf("image %s is not valid: it has %d layers, and its configuration names %d", name, n, m)
	}
	for i, l := range img.Manifest.Layers {
		if !isLayer(l.MediaType) {
			return nil, fmt.Errorf("image %s cannot be built on: layer %s has the media type %q", name, l.Digest, l.MediaType)
		}
		if err := errors.Join(l.Digest.Validate(), img.Config.RootFS.DiffIDs[i].Validate()); err != nil {
			return nil, fmt.Errorf("image %s is not valid: layer %d: %w", name, i, err)
		}
		if l.Size < 0 {
			return nil, fmt.Errorf("image %s is not valid: layer %s has a size of %d", name, l.Digest, l.Size)
		}
	}
	return img, nil
}

// configOf finds the configuration in a manifest and checks that the manifest is an image's.
func configOf(name string, d ocispec.Descriptor, manifest []byte) (ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := ocijson.Unmarshal(manifest, &m); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	switch t := OCIDescriptor(m.Config).MediaType; t {
	case ocispec.MediaTypeImageConfig, "", "application/octet-stream": // old tools wrote those
	default:
		if m.ArtifactType != "" {
			t = m.ArtifactType
		}
		return ocispec.Descriptor{}, fmt.Errorf("%s is not an image that can be built on but %q", name, t)
	}
	if err := m.Config.Digest.Validate(); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("manifest %s: configuration %q: %w", d.Digest, m.Config.Digest, err)
	}
	if m.Config.Size < 0 || m.Config.Size > maxConfig {
		return ocispec.Descriptor{}, fmt.Errorf("manifest %s: a configuration of %d bytes", d.Digest, m.Config.Size)
	}
	return m.Config, nil
}
