package export

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/platform"
	"github.com/layerbuild/layerbuild/internal/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Member is one of the images of an archive or a layout.
type Member struct {
	Root    ocispec.Descriptor // a manifest, or an index
	Content Fetcher            // has Root and all blobs below it
	Names   []reference.Name
	// Tag is org.opencontainers.image.ref.name of an image without a name; it may be "".
	Tag string
	// AnyPlatform allows an index in an archive for docker. Engines that read only manifest.json
	// get the image of this machine's platform, or the first one. Others read index.json.
	AnyPlatform bool
}

// member returns the image of an export.
func member(img *Image, spec Spec) (Member, error) {
	tags, err := names(img, spec)
	return Member{Root: img.Root, Content: img.Content, Names: tags}, err
}

// Save writes images to an archive or a layout, or loads them into an engine, according to spec. It
// reports its work to sink.
func Save(ctx context.Context, env Env, spec Spec, members []Member, sink event.Sink) error {
	exporters, err := New(env, spec)
	if err != nil {
		return err
	}
	switch e := exporters[0].(type) {
	case *layout:
		return report(spec, "write an image layout to "+spec.Dest, sink,
			func(j *job) (string, error) {
				if err := e.add(ctx, members, j); err != nil {
					return "", fmt.Errorf("write to %s: %w", spec.Dest, err)
				}
				return members[0].Root.Digest.String(), nil
			})
	case *archive:
		return report(spec, "write "+spec.archiveName(), sink, func(j *job) (string, error) {
			err := toDest(ctx, env, spec, func(w io.Writer) error {
				return writeArchive(ctx, w, members, spec, j)
			})
			if err != nil {
				return "", fmt.Errorf("write %s: %w", spec.archiveName(), err)
			}
			return members[0].Root.Digest.String(), nil
		})
	case *loader:
		return e.members(ctx, members, sink)
	}
	panic("unreachable: " + spec.Type)
}

// entries returns the entries of the image for index.json: its root once for each name, or once
// without a name.
func (m Member) entries() []ocispec.Descriptor {
	root := m.Root
	root.Annotations = maps.Clone(root.Annotations)
	delete(root.Annotations, ocidoc.AnnotationName)
	delete(root.Annotations, ocispec.AnnotationRefName)
	if len(m.Names) == 0 {
		if m.Tag != "" {
			if root.Annotations == nil {
				root.Annotations = map[string]string{}
			}
			root.Annotations[ocispec.AnnotationRefName] = m.Tag
		}
		return []ocispec.Descriptor{root}
	}
	list := make([]ocispec.Descriptor, len(m.Names))
	for i, tag := range m.Names {
		list[i] = root
		list[i].Annotations = map[string]string{ocidoc.AnnotationName: tag.String(),
			ocispec.AnnotationRefName: tag.Tag}
		maps.Copy(list[i].Annotations, root.Annotations)
	}
	return list
}

// docker returns the image's entries of manifest.json. An archive of TypeOCI has one only if the
// image is for one platform.
func (m Member) docker(g *graph, spec Spec) ([]dockerManifest, error) {
	images := g.images()
	switch {
	case len(images) == 1:
		return []dockerManifest{dockerManifestOf(images[0], m.Names)}, nil
	case spec.Type != TypeDocker:
		return nil, nil
	case !m.AnyPlatform || len(images) == 0:
		return nil, DockerPlatformsError(len(images))
	}
	i := slices.IndexFunc(images, func(i manifest) bool {
		return i.desc.Platform != nil && platform.Same(*i.desc.Platform, platform.Host())
	})
	return []dockerManifest{dockerManifestOf(images[max(i, 0)], m.Names)}, nil
}
