package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageanalysis"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/platform"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (b *builder) wantsImage() bool { return b.opts.WantsImage() }

// exporters looks at the destinations before anything is built.
func (b *builder) exporters() ([]export.Exporter, error) {
	return export.New(b.opts.Export, b.opts.Outputs...)
}

// finish awaits the layers, writes config and manifest, gives the names and runs the exporters.
func (b *builder) finish(ctx context.Context, res *Result, solvers []*solver, targets []rootfs, exporters []export.Exporter) error {
	if b.wantsImage() {
		if err := b.writeImage(ctx, res, solvers, targets); err != nil {
			return err
		}
	}
	img := &export.Image{Root: res.Root, Names: res.Names, Content: b.state.Store}
	res.Names = b.outputNames(res.Names)
	for i, t := range targets {
		img.Trees = append(img.Trees, export.Tree{
			Platform: solvers[i].plan.Target.Platform,
			Tar:      func(ctx context.Context, w io.Writer) error { return b.flatten(ctx, w, t) },
		})
	}
	if res.Root.Digest != "" {
		meta, err := export.Describe(ctx, img, b.opts.Outputs...)
		if err != nil {
			return err
		}
		res.Metadata = meta
	}
	made := map[string]ocispec.Descriptor{b.recipe.key(): res.Root}
	for i, e := range exporters {
		of := *img
		if spec := b.opts.Outputs[i]; !spec.Flat() {
			root, err := b.rootFor(ctx, made, recipeOf(spec), solvers, targets)
			if err != nil {
				return err
			}
			of.Root = root
			if err := b.verify(ctx, spec, root); err != nil {
				return err
			}
		}
		if err := e.Export(ctx, &of, b.sink); err != nil {
			return state.OfDestination(b.state.Root, err)
		}
	}
	if err := b.exportRecords(ctx, solvers); err != nil {
		return err
	}
	if b.opts.Cache.Sync {
		if err := b.state.Sync(ctx); err != nil {
			return err
		}
	}
	b.sink(event.Result{Names: res.Names, Digest: res.Root.Digest.String(), Time: time.Now()})
	return nil
}

// verify reads all blobs of an image that is written to standard output, because output cannot be undone when a damaged
// blob is found.
func (b *builder) verify(ctx context.Context, spec export.Spec, root ocispec.Descriptor) error {
	if spec.Dest != "-" {
		return nil
	}
	return b.state.Store.Verify(ctx, root)
}

// writeImage writes everything that makes the layers an image, and names it.
func (b *builder) writeImage(ctx context.Context, res *Result, solvers []*solver, targets []rootfs) (err error) {
	id := event.ID("image")
	b.sink(event.Start{ID: id, Name: "exporting to image", Time: time.Now()})
	defer func() {
		b.sink(event.Done{ID: id, Err: err, Note: res.Root.Digest.String(), Time: time.Now()})
	}()
	if res.Root, res.Config, err = b.writeRoot(ctx, b.recipe, solvers, targets); err != nil {
		return err
	}
	return b.tag(ctx, res)
}

// writeRoot writes the manifests of all platforms by a recipe, and the index if there is one. config is that of the
// first platform.
func (b *builder) writeRoot(ctx context.Context, r recipe, solvers []*solver, targets []rootfs) (root, config ocispec.Descriptor, err error) {
	var manifests []ocispec.Descriptor
	for i, t := range targets {
		m, c, err := b.writeManifest(ctx, r, solvers[i], t)
		if err != nil {
			return root, config, err
		}
		if r.PruneDead {
			if m, c, err = b.pruneDead(ctx, m, r.Level); err != nil {
				return root, config, err
			}
		}
		if i == 0 {
			config = c
		}
		manifests = append(manifests, m)
	}
	if len(manifests) == 1 && !b.multiPlatform() {
		return manifests[0], config, nil
	}
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
		Annotations: b.annotations(r, "index", ocispec.Platform{}),
	}
	if r.Docker {
		index.MediaType = registry.DockerManifestList
	}
	root, err = b.writeJSON(ctx, index.MediaType, index)
	root.Annotations = b.annotations(r, "index-descriptor", ocispec.Platform{})
	return root, config, err
}

// outputNames adds to the names of -t those that outputs give to the image in the store.
func (b *builder) outputNames(names []string) []string {
	names = slices.Clone(names)
	for _, o := range b.opts.Outputs {
		if o.Type != export.TypeImage {
			continue
		}
		for _, n := range o.Names {
			if full, err := store.Name(n); err == nil && !slices.Contains(names, full) {
				names = append(names, full)
			}
		}
	}
	return names
}

// tag gives the image its names, or keeps it without one. Names of an output are given by the output.
func (b *builder) tag(ctx context.Context, res *Result) error {
	if len(b.opts.Image.Names) == 0 {
		if slices.ContainsFunc(b.opts.Outputs, func(o export.Spec) bool {
			return o.Type == export.TypeImage && len(o.Names) > 0 && !o.ByDigest && recipeOf(o).key() == b.recipe.key()
		}) {
			return nil
		}
		return b.state.Store.Tag(ctx, "", res.Root)
	}
	for _, n := range b.opts.Image.Names {
		full, err := store.Name(n)
		if err != nil {
			return err
		}
		if err := b.state.Store.Tag(ctx, full, res.Root); err != nil {
			return err
		}
		res.Names = append(res.Names, full)
	}
	return nil
}

// writeManifest writes config and manifest of one platform, when its layers are there.
func (b *builder) writeManifest(ctx context.Context, r recipe, s *solver, t rootfs) (manifest, config ocispec.Descriptor, err error) {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	img := t.config
	img.RootFS.Type, img.RootFS.DiffIDs = "layers", []digest.Digest{}
	if img.Created == nil || b.opts.Image.Epoch != nil {
		now := b.now()
		img.Created = &now
	}
	if err := b.ensureBase(ctx, t.layers); err != nil {
		return manifest, config, err
	}
	for i, l := range t.layers {
		if err := l.Wait(ctx); err != nil {
			return manifest, config, err
		}
		d, err := b.layerAs(ctx, l, r)
		if err != nil {
			return manifest, config, err
		}
		m.Layers = append(m.Layers, d)
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, l.DiffID)
		// Of several chains that come to one snapshot the first and the image's own are found again.
		if i < len(t.layers)-1 && l.NoOp {
			continue
		}
		// With an epoch the layer has other times than its snapshot: a build on top of this image unpacks the layer, as
		// on a machine that has only the image.
		if l.Snapshot != "" && l.Base == nil && b.opts.Image.Epoch == nil && b.exists(l.Snapshot) {
			if err := b.recordChain(img.RootFS.DiffIDs, string(l.Snapshot)); err != nil {
				return manifest, config, err
			}
		}
	}
	if m.Config, err = s.writeConfig(ctx, r, img); err != nil {
		return manifest, config, err
	}
	if err := s.recordBuild(ctx, m.Config.Digest, t); err != nil {
		return manifest, config, err
	}
	m.Annotations = b.annotations(r, "manifest", img.Platform)
	if r.Docker {
		m.MediaType, m.Config = registry.DockerManifest, image.DockerDescriptor(m.Config)
	}
	if manifest, err = b.writeJSON(ctx, m.MediaType, m); err != nil {
		return manifest, config, err
	}
	p := img.Platform
	manifest.Platform = &p
	manifest.Annotations = b.annotations(r, "manifest-descriptor", p)
	return manifest, m.Config, nil
}

// writeConfig writes an image's configuration, with the records of its steps where they are to travel in it.
func (s *solver) writeConfig(ctx context.Context, r recipe, img imageConfig) (ocispec.Descriptor, error) {
	if !s.b.exportsInline() || r.PruneDead {
		return s.b.writeJSON(ctx, ocispec.MediaTypeImageConfig, img)
	}
	doc, err := s.collector.Document(ctx, s.e.sealer, false)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := s.layersAs(ctx, r, doc); err != nil {
		return ocispec.Descriptor{}, err
	}
	data, err := json.Marshal(img)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	config := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &config); err != nil {
		return ocispec.Descriptor{}, err
	}
	if config[remotecache.Field], err = json.Marshal(doc); err != nil {
		return ocispec.Descriptor{}, err
	}
	return s.b.writeJSON(ctx, ocispec.MediaTypeImageConfig, config)
}

// layersAs puts the layers of a recipe into the records of an image, which are those of the store otherwise.
func (s *solver) layersAs(ctx context.Context, r recipe, doc remotecache.Document) error {
	if r.sameLayers(s.b.recipe) {
		return nil
	}
	format := r.format(s.b.epoch)
	for _, o := range doc.Records {
		if o.Layer == nil || o.Layer.Sealed != s.e.sealer.Format() {
			continue
		}
		d, err := layers.Recompress(ctx, s.b.state, o.Layer.Descriptor.Digest.String(), o.Layer.Descriptor, o.Layer.DiffID, format)
		if err != nil {
			return err
		}
		o.Layer.Descriptor, o.Layer.Sealed = d, format.String()
	}
	return nil
}

// ensureBase brings the blobs of base images here, which a build that only ran on their snapshots did without.
func (b *builder) ensureBase(ctx context.Context, layers []*layers.Layer) error {
	var done *image.Image
	for _, l := range layers {
		if l.Base == nil || l.Base == done {
			continue
		}
		done = l.Base
		if err := b.images.Ensure(ctx, l.Base, image.UnpackOptions{ID: "image", Sink: b.sink}); err != nil {
			return err
		}
	}
	return nil
}

// exists says whether a snapshot is there, and not only promised.
func (b *builder) exists(id snapshot.ID) bool {
	_, err := b.state.Snapshots.Stat(id)
	return err == nil
}

// recordChain remembers the snapshot of a chain of layers, so that a build on top of this image finds it.
func (b *builder) recordChain(diffIDs []digest.Digest, id string) error {
	chain := identity.ChainID(diffIDs)
	if have, ok := b.state.Cache.Chain(chain); ok && have == id {
		return nil
	}
	return b.state.Cache.PutChain(chain, id)
}

// annotations returns those for a target: the build's, and then the recipe's.
func (b *builder) annotations(r recipe, target string, p ocispec.Platform) map[string]string {
	var m map[string]string
	for _, a := range slices.Concat(b.opts.Image.Annotations, r.Annotations) {
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

// samePlatform reports whether p is the platform that a user has written.
func samePlatform(written string, p ocispec.Platform) bool {
	w, err := parser.ParsePlatform(written)
	return err == nil && platform.Same(w, p)
}

func (b *builder) writeJSON(ctx context.Context, mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("write %s: %w", mediaType, err)
	}
	return b.state.Store.Write(ctx, mediaType, data)
}

// flatten writes the whole file system as a tar.
func (b *builder) flatten(ctx context.Context, w io.Writer, t rootfs) (err error) {
	if err := b.e.lazy.Materialize(ctx, t.top); err != nil {
		return err
	}
	mounts, err := b.state.Snapshots.View(ctx, t.top)
	if err != nil {
		return err
	}
	dir, err := mount.Open(mounts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	_, err = diff.Write(ctx, w, diff.Tree{Dir: "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())), Full: true, StandIns: b.state.NS.Rootless}, diff.Options{Epoch: b.opts.Image.Epoch})
	return err
}

// origin is the instruction that an entry of the history comes from.
type origin struct {
	stage *parser.Stage
	text  string
	lines parser.Range
}

// recordBuild keeps which lines of the Dockerfile made which entries of an image's history.
func (s *solver) recordBuild(ctx context.Context, config digest.Digest, t rootfs) error {
	rec := imageanalysis.Record{Dockerfile: s.b.name}
	first := s.plan.Target
	for {
		base, ok := first.Base.(parser.StageInput)
		if !ok {
			break
		}
		first = base.Stage
	}
	in, ok := first.Base.(parser.ImageInput)
	if c, context := first.Base.(parser.ContextInput); context {
		in, ok = s.in.ContextImage(c)
	}
	if ok {
		img, err := s.in.Resolve(ctx, in)
		if err != nil {
			return err
		}
		rec.Base = imageanalysis.RecordedBase{Name: img.Name, Digest: img.Descriptor.Digest.String(), Layers: len(img.Manifest.Layers), History: len(img.Config.History)}
	}
	for _, o := range t.origins {
		rec.Steps = append(rec.Steps, imageanalysis.RecordStep{
			Text: o.text, Stage: o.stage.Name, Line: o.lines.Start, End: o.lines.End, Earlier: o.stage != s.plan.Target,
		})
	}
	return rec.Keep(s.b.state, config)
}

// pruneDead takes the dead bytes out of an image that is finished. The cache keeps the layers as they were sealed.
func (b *builder) pruneDead(ctx context.Context, manifest ocispec.Descriptor, level int) (_, config ocispec.Descriptor, err error) {
	img, err := b.images.Manifest(ctx, manifest.Digest.String(), manifest, nil)
	if err != nil {
		return manifest, config, err
	}
	img.Name = "the image"
	if b.multiPlatform() {
		img.Name += " for " + parser.FormatPlatform(img.Platform)
	}
	res, err := imageanalysis.Prune(ctx, b.state, b.images, img, imageanalysis.PruneOptions{Level: level})
	if err != nil {
		return manifest, config, err
	}
	manifest.Digest, manifest.Size = res.Manifest.Digest, res.Manifest.Size
	return manifest, res.Config, nil
}

// Epoch reads SOURCE_DATE_EPOCH: seconds since 1970; "" is nil.
func Epoch(s string) (*time.Time, error) {
	if s = strings.TrimSpace(s); s == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH: %q is not a number of seconds", s)
	}
	t := time.Unix(n, 0).UTC()
	return &t, nil
}
