package outputs

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageanalysis"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/platform"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// writeRoot writes the manifests of all platforms for a recipe, and the index if there is one.
// config is the configuration of the first platform.
func (w *Writer) writeRoot(ctx context.Context, r Recipe,
	built []Built) (root, config ocispec.Descriptor, err error) {
	var manifests, attestations []ocispec.Descriptor
	for i, b := range built {
		m, c, err := w.writeManifest(ctx, r, b)
		if err != nil {
			return root, config, err
		}
		if r.PruneDead {
			if m, c, err = w.pruneDead(ctx, m, r.Level); err != nil {
				return root, config, err
			}
		}
		if i == 0 {
			config = c
		}
		manifests = append(manifests, m)
		if r.Attest {
			a, err := w.attest(ctx, r, b, m)
			if err != nil {
				return root, config, err
			}
			attestations = append(attestations, a)
		}
	}
	if len(manifests) == 1 && !w.Options.indexed(r) {
		return manifests[0], config, nil
	}
	manifests = append(manifests, attestations...) // after all images, as in BuildKit
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests:   manifests,
		Annotations: w.annotations(r, export.Index, ocispec.Platform{}),
	}
	if r.Docker {
		index.MediaType = ocidoc.DockerManifestList
	}
	root, err = w.State.Store.WriteJSON(ctx, index.MediaType, index)
	root.Annotations = w.annotations(r, export.IndexDescriptor, ocispec.Platform{})
	return root, config, err
}

// writeManifest waits for the layers of one platform, and writes its configuration and manifest.
func (w *Writer) writeManifest(ctx context.Context, r Recipe,
	b Built) (manifest, config ocispec.Descriptor, err error) {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest}
	img := b.Config
	img.RootFS.Type = "layers"
	if m.Layers, img.RootFS.DiffIDs, err = w.layers(ctx, r, b.Layers); err != nil {
		return manifest, config, err
	}
	if m.Config, err = w.writeConfig(ctx, r, img, b, m.Layers); err != nil {
		return manifest, config, err
	}
	if err := b.Record.Keep(w.State, m.Config.Digest); err != nil {
		return manifest, config, err
	}
	m.Annotations = w.annotations(r, export.Manifest, img.Platform)
	if r.Docker {
		m.MediaType, m.Config = ocidoc.DockerManifest, ocidoc.DockerDescriptor(m.Config)
	}
	if manifest, err = w.State.Store.WriteJSON(ctx, m.MediaType, m); err != nil {
		return manifest, config, err
	}
	p := img.Platform
	manifest.Platform = &p
	manifest.Annotations = w.annotations(r, export.ManifestDescriptor, p)
	return manifest, m.Config, nil
}

// layers waits for the layers, and returns their descriptors in a recipe's format and the digests
// of their content.
func (w *Writer) layers(ctx context.Context, r Recipe,
	list []*layers.Layer) ([]ocispec.Descriptor, []digest.Digest, error) {
	descriptors, diffIDs := []ocispec.Descriptor{}, []digest.Digest{}
	if err := w.ensureBase(ctx, list); err != nil {
		return nil, nil, err
	}
	for i, l := range list {
		if err := l.Wait(ctx); err != nil {
			return nil, nil, err
		}
		d, err := w.layerAs(ctx, l, r)
		if err != nil {
			return nil, nil, err
		}
		descriptors, diffIDs = append(descriptors, d), append(diffIDs, l.DiffID)
		// Several chains can have the same snapshot. Record the first of them, and the chain of the
		// whole image.
		if i < len(list)-1 && l.NoOp {
			continue
		}
		if err := w.recordChain(ctx, diffIDs, l); err != nil {
			return nil, nil, err
		}
	}
	return descriptors, diffIDs, nil
}

// recordChain records the snapshot of the chain of layers that ends with l, so that a build on top
// of this image finds it.
//
// With an epoch the layer has other times than its snapshot: a build on top of this image unpacks
// the layer, as on a machine that has only the image. So nothing is recorded then, nor for a layer
// whose snapshot was not made.
func (w *Writer) recordChain(ctx context.Context, diffIDs []digest.Digest, l *layers.Layer) error {
	if l.Snapshot == "" || l.Base != nil || w.Options.Epoch != nil {
		return nil
	}
	if _, err := w.State.Snapshots.Stat(ctx, l.Snapshot); err != nil {
		return context.Cause(ctx)
	}
	chain := identity.ChainID(diffIDs)
	if have, ok := w.State.Cache.Chain(chain); ok && have == string(l.Snapshot) {
		return nil
	}
	return w.State.Cache.PutChain(ctx, chain, string(l.Snapshot))
}

// ensureBase downloads the blobs of base images, and checks those that were not unpacked. A build
// that only runs on their snapshots does not need them, nor does a push to a registry that has
// them.
func (w *Writer) ensureBase(ctx context.Context, list []*layers.Layer) error {
	var last *image.Image
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxFetches)
	for _, l := range list {
		if l.Base == nil || l.Base == last {
			continue
		}
		last = l.Base
		g.Go(func() error {
			err := w.Images.EnsureChecked(gctx, l.Base, image.UnpackOptions{ID: "image",
				Sink: w.Sink, Absent: w.absent.add})
			if err != nil && l.Unchecked && gctx.Err() == nil && !state.IsFull(err) {
				err = &layers.ImportError{Layer: l.Descriptor.Digest, Err: err}
			}
			return err
		})
	}
	return g.Wait()
}

// maxFetches limits the images whose layers are fetched at the same time: imported layers are
// images of one layer.
const maxFetches = 4

// layerAs returns the descriptor of a layer with the compression of a recipe.
func (w *Writer) layerAs(ctx context.Context, l *layers.Layer,
	r Recipe) (ocispec.Descriptor, error) {
	d := ocidoc.OCIDescriptor(l.Descriptor)
	var err error
	// A layer from --cache-from counts as made by the build: it is used only if it was sealed with
	// the options of the store's image.
	own := l.Base == nil || l.Text != ""
	if own && !r.sameLayers(w.Recipe) || !own && r.Force &&
		compressionOf(d.MediaType) != r.Compression {
		if d, err = l.Recompress(ctx, w.State, d, r.Format(w.Options.Epoch)); err != nil {
			return d, fmt.Errorf("compress layer %s: %w", l.Descriptor.Digest, err)
		}
	}
	if own && r.Clamped && w.Options.Epoch != nil {
		d.Annotations = maps.Clone(d.Annotations)
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[annotationClamped] = strconv.FormatInt(*w.Options.Epoch, 10)
	}
	if r.Docker {
		d = ocidoc.DockerDescriptor(d)
	}
	return d, nil
}

// annotationClamped is BuildKit's annotation of a layer whose times were limited to an epoch.
const annotationClamped = "buildkit/rewritten-timestamp"

// compressionOf returns the compression of a layer's media type, with the name that recipes use.
func compressionOf(mediaType string) string {
	switch c := ocidoc.Compression(mediaType); c {
	case "gzip":
		return ""
	case "":
		return diff.Uncompressed
	default:
		return c
	}
}

// writeConfig writes an image's configuration, with the records of its steps if the image contains
// them. written are the image's layers in the format of the recipe.
func (w *Writer) writeConfig(ctx context.Context, r Recipe, img dockerspec.DockerOCIImage, b Built,
	written []ocispec.Descriptor) (ocispec.Descriptor, error) {
	if b.Records == nil || r.PruneDead {
		return w.State.Store.WriteJSON(ctx, ocispec.MediaTypeImageConfig, img)
	}
	doc, err := b.Records(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	known := map[digest.Digest]ocispec.Descriptor{}
	for i, l := range b.Layers {
		known[l.Descriptor.Digest] = ocidoc.OCIDescriptor(written[i])
	}
	if err := w.recompressRecords(ctx, r, doc, known); err != nil {
		return ocispec.Descriptor{}, err
	}
	data, err := json.Marshal(img)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	config := map[string]json.RawMessage{}
	// not ocijson: this program has just written data
	if err := json.Unmarshal(data, &config); err != nil {
		return ocispec.Descriptor{}, err
	}
	if config[remotecache.Field], err = json.Marshal(doc); err != nil {
		return ocispec.Descriptor{}, err
	}
	return w.State.Store.WriteJSON(ctx, ocispec.MediaTypeImageConfig, config)
}

// recompressRecords replaces the layers of the store's image in the records of an image by the
// layers of a recipe. known has those that have been written, by their digests in the store's
// image.
func (w *Writer) recompressRecords(ctx context.Context, r Recipe, doc remotecache.Document,
	known map[digest.Digest]ocispec.Descriptor) error {
	if r.sameLayers(w.Recipe) {
		return nil
	}
	stored, format := w.Recipe.Format(w.Options.Epoch).String(), r.Format(w.Options.Epoch)
	for _, o := range doc.Records {
		if o.Layer == nil || o.Layer.Sealed != stored {
			continue
		}
		d, ok := known[o.Layer.Descriptor.Digest]
		if !ok {
			var err error
			if d, err = layers.Recompress(ctx, w.State, o.Layer.Descriptor.Digest.String(),
				o.Layer.Descriptor, o.Layer.DiffID, format); err != nil {
				return err
			}
		}
		o.Layer.Descriptor, o.Layer.Sealed = d, format.String()
	}
	return nil
}

// annotations returns the annotations for a target: those of the whole build, and then those of the
// recipe.
func (w *Writer) annotations(r Recipe, target export.Target,
	p ocispec.Platform) map[string]string {
	var m map[string]string
	for _, a := range slices.Concat(w.Options.Annotations, r.Annotations) {
		if a.Target != target || a.Platform != "" && !samePlatform(a.Platform, p) {
			continue
		}
		if m == nil {
			m = map[string]string{}
		}
		m[a.Key] = a.Value
	}
	return m
}

// samePlatform reports whether p is the platform that the user wrote.
func samePlatform(written string, p ocispec.Platform) bool {
	have, err := parser.ParsePlatform(written)
	return err == nil && platform.Same(have, p)
}

// pruneDead removes the dead bytes of a finished image. The cache keeps the layers as they were
// sealed.
func (w *Writer) pruneDead(ctx context.Context, manifest ocispec.Descriptor,
	level int) (_, config ocispec.Descriptor, err error) {
	img, err := w.Images.Manifest(ctx, manifest.Digest.String(), manifest, nil)
	if err != nil {
		return manifest, config, err
	}
	img.Name = "the image"
	if w.Options.makesIndex() {
		img.Name += " for " + parser.FormatPlatform(img.Platform)
	}
	res, err := imageanalysis.Prune(ctx, w.State, w.Images, img,
		imageanalysis.PruneOptions{Level: level})
	if err != nil {
		return manifest, config, err
	}
	manifest.Digest, manifest.Size = res.Manifest.Digest, res.Manifest.Size
	return manifest, res.Config, nil
}
