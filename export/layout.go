package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/hostfile"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/ocijson"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/stagedir"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// index returns an index.json with the given entries.
func index(list []ocispec.Descriptor) ocispec.Index {
	return ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex, Manifests: list}
}

// dockerManifest is an entry of manifest.json, which docker load reads.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// DockerPlatformsError returns the error for an output of type=docker and an image for n platforms,
// where n is not 1.
func DockerPlatformsError(n int) error {
	return fmt.Errorf(
		"type=docker holds an image for one platform, and this image is for %d; use type=oci", n)
}

// dockerManifestOf returns the entry of manifest.json for an image.
func dockerManifestOf(m manifest, tags []reference.Name) dockerManifest {
	d := dockerManifest{Config: blobPath(m.config), Layers: []string{}}
	for _, tag := range tags {
		d.RepoTags = append(d.RepoTags, tag.Familiar())
	}
	for _, l := range m.layers {
		d.Layers = append(d.Layers, blobPath(l))
	}
	return d
}

func blobPath(d ocispec.Descriptor) string {
	return "blobs/" + d.Digest.Algorithm().String() + "/" + d.Digest.Encoded()
}

// layout exports to a directory: an OCI image layout. The image is added to an existing layout.
type layout struct{ spec Spec }

func (l *layout) Export(ctx context.Context, img *Image, sink event.Sink) error {
	return report(l.spec, "export an image layout to "+l.spec.Dest, sink,
		func(j *job) (string, error) {
			if err := l.export(ctx, img, j); err != nil {
				return "", fmt.Errorf("export to %s: %w", l.spec.Dest, err)
			}
			return img.Root.Digest.String(), nil
		})
}

func (l *layout) export(ctx context.Context, img *Image, j *job) error {
	m, err := member(img, l.spec)
	if err != nil {
		return err
	}
	return l.add(ctx, []Member{m}, j)
}

// add adds images to the layout.
func (l *layout) add(ctx context.Context, members []Member, j *job) error {
	g, err := readGraphs(ctx, members)
	if err != nil {
		return err
	}
	if _, err := readIndex(l.spec.Dest); err != nil {
		return err
	}
	files := map[string][]byte{ocispec.ImageLayoutFile: []byte(ocidoc.LayoutFile)}
	if l.spec.Type == TypeDocker {
		docker, err := members[0].docker(g.roots[0], l.spec)
		if err != nil {
			return err
		}
		if files["manifest.json"], err = json.Marshal(docker); err != nil {
			return err
		}
	}
	return inStage(l.spec.Dest, func(stage *stagedir.Dir) error {
		j.begin("copy blobs", g.size)
		buf := make([]byte, 256<<10)
		for _, d := range g.blobs {
			if err := l.addBlob(ctx, stage.Path(), g, d, buf, j); err != nil {
				return err
			}
		}
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(stage.Path(), name), data, 0o666); err != nil {
				return err
			}
		}
		return l.commit(ctx, stage, members)
	})
}

// commit moves the files of a stage into the layout, and adds the images to its index.
func (l *layout) commit(ctx context.Context, stage *stagedir.Dir, members []Member) error {
	// Another build may be adding an image, or may have added one.
	if err := stage.Lock(ctx); err != nil {
		return err
	}
	all, err := readIndex(l.spec.Dest)
	if err != nil {
		return err
	}
	for _, m := range members {
		all = merge(all, m.entries())
	}
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(stage.Path(), ocispec.ImageIndexFile),
		data, 0o666); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// The index is moved last: until then the layout contains the earlier images.
	return stage.Commit(stagedir.Options{Last: ocispec.ImageIndexFile})
}

// readIndex reads the index of an existing layout; it returns an empty one if there is no
// layout.
func readIndex(dir string) (ocispec.Index, error) {
	data, err := hostfile.ReadRegular(filepath.Join(dir, ocispec.ImageIndexFile))
	if errors.Is(err, os.ErrNotExist) {
		return index(nil), nil
	}
	if err != nil {
		return ocispec.Index{}, err
	}
	var ix ocispec.Index
	if err := ocijson.Unmarshal(data, &ix); err != nil || ix.SchemaVersion != 2 {
		return ocispec.Index{}, errors.New("the existing index.json is not that of an image layout")
	}
	return ix, nil
}

// merge adds list to old. A tag refers to one image in a layout, so entries of old with one of
// the list's tags lose it. An entry without a name is removed if its image gets a name.
func merge(old ocispec.Index, list []ocispec.Descriptor) ocispec.Index {
	if len(list) == 1 && list[0].Annotations[ocispec.AnnotationRefName] == "" &&
		slices.ContainsFunc(old.Manifests, func(have ocispec.Descriptor) bool {
			return have.Digest == list[0].Digest
		}) {
		return old
	}
	old.Manifests = slices.DeleteFunc(slices.Clone(old.Manifests),
		func(have ocispec.Descriptor) bool {
			tag := have.Annotations[ocispec.AnnotationRefName]
			return slices.ContainsFunc(list, func(d ocispec.Descriptor) bool {
				if tag == "" {
					return have.Digest == d.Digest
				}
				return tag == d.Annotations[ocispec.AnnotationRefName]
			})
		})
	old.Manifests = append(old.Manifests, list...)
	return old
}

// addBlob copies a blob to dir, through buf, unless the layout has it.
func (l *layout) addBlob(ctx context.Context, dir string, g *graphs, d ocispec.Descriptor,
	buf []byte, j *job) error {
	fi, err := os.Stat(filepath.Join(l.spec.Dest, blobPath(d)))
	if err == nil && fi.Mode().IsRegular() && fi.Size() == d.Size {
		j.advance(int(d.Size))
		return nil
	}
	r, err := g.open(ctx, d)
	if err != nil || r == nil {
		return err
	}
	defer r.Close()
	path := filepath.Join(dir, blobPath(d))
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	err = copyBlob(ctx, w, r, d.Size, buf, j)
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("copy %s: %w", d.Digest, err)
	}
	return nil
}
