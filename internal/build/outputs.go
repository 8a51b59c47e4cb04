package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/platform"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The options of one -o apply to that output only. A recipe is the part of them that the bytes of an image depend on.
// The steps are run once for all recipes. The layers are sealed for one of them, and the images of the others are made
// from these layers.

// recipe holds the options by which an image is made of a build's layers.
type recipe struct {
	Compression string // as in diff.Options
	Level       int    // as in diff.Options
	Force       bool   // compress the base's layers, too
	Docker      bool   // Docker's media types
	PruneDead   bool
	Annotations []export.Annotation // besides those of the whole build
}

// recipeOf returns the recipe of an output.
func recipeOf(o export.Spec) recipe {
	l := o.Layers
	r := recipe{Compression: l.Compression, Force: l.Force, PruneDead: l.PruneDead, Annotations: o.Annotations}
	r.Docker = l.OCIMediaTypes != nil && !*l.OCIMediaTypes
	switch r.Compression {
	case "uncompressed":
		r.Compression = "none"
	case "gzip":
		r.Compression = ""
	}
	if l.Level != nil {
		r.Level = *l.Level
	}
	if r.Compression == "" && r.Level == diff.DefaultGzipLevel || r.Compression == "zstd" && r.Level == diff.DefaultZstdLevel {
		r.Level = 0
	}
	return r
}

// key is equal for equal recipes.
func (r recipe) key() string {
	data, err := json.Marshal(r)
	if err != nil {
		panic("unreachable: a recipe is plain data: " + err.Error())
	}
	return string(data)
}

// sameLayers reports whether two recipes compress the layers of the build in the same way.
func (r recipe) sameLayers(o recipe) bool {
	return r.Compression == o.Compression && r.Level == o.Level
}

// format returns the format that layers are sealed in.
func (r recipe) format(epoch *int64) layers.Format {
	return layers.Format{Compression: r.Compression, Level: r.Level, Epoch: epoch}
}

// storeRecipe is the recipe of the image in the store: that of the first output of type=image, which names an image in
// the store; else that of all outputs, if they have the same; else that of an output without options.
func (o *Options) storeRecipe() recipe {
	var all []recipe
	for _, spec := range o.Outputs {
		switch {
		case spec.Type == export.TypeImage:
			return recipeOf(spec)
		case !spec.Flat():
			all = append(all, recipeOf(spec))
		}
	}
	if len(all) == 0 || slices.ContainsFunc(all, func(r recipe) bool { return r.key() != all[0].key() }) {
		return recipe{}
	}
	return all[0]
}

// makesIndex reports whether an index is made, and not a single manifest.
func (o *Options) makesIndex() bool {
	b := builder{opts: *o}
	return len(o.Platforms) > 1 || b.multiPlatform()
}

// CheckOutputs returns an error for outputs and annotations that contradict each other, before anything runs.
func (o *Options) CheckOutputs() error {
	var errs []error
	for _, a := range o.Image.Annotations {
		errs = append(errs, o.checkAnnotation("--annotation "+a.String(), a))
	}
	given := map[string]string{} // the recipe of the image that has a name
	for _, spec := range o.Outputs {
		err := o.checkOutput(spec)
		if spec.Type == export.TypeImage && !spec.ByDigest {
			err = errors.Join(err, o.checkNames(spec, given))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("output %s: %w", spec, err))
		}
	}
	return errors.Join(errs...)
}

// checkNames returns an error where two outputs give one name to different images.
func (o *Options) checkNames(spec export.Spec, given map[string]string) error {
	key := recipeOf(spec).key()
	for _, n := range slices.Concat(o.Image.Names, spec.Names) {
		name, err := store.Name(n)
		if err != nil {
			return err
		}
		if other, ok := given[name]; ok && other != key {
			return fmt.Errorf("another output gives the name %s to another image", n)
		}
		given[name] = key
	}
	return nil
}

func (o *Options) checkOutput(spec export.Spec) error {
	switch {
	case spec.ByDigest && !spec.Push:
		return errors.New("push-by-digest has no effect without push=true")
	case spec.Insecure && !spec.Push:
		return errors.New("registry.insecure has no effect without push=true")
	}
	if spec.Type == export.TypeDocker && len(o.Platforms) > 1 {
		return fmt.Errorf("type=docker holds an image for one platform and this is for %d: use type=oci", len(o.Platforms))
	}
	if spec.Flat() {
		return nil
	}
	for _, a := range spec.Annotations {
		if err := o.checkAnnotation(a.String(), a); err != nil {
			return err
		}
	}
	if recipeOf(spec).Docker {
		for _, a := range slices.Concat(o.Image.Annotations, spec.Annotations) {
			if a.Target == "manifest" || a.Target == "index" || a.Target == "manifest-descriptor" && o.makesIndex() {
				return fmt.Errorf("oci-mediatypes=false and annotation %s: Docker's format has no annotations", a.Key)
			}
		}
	}
	return nil
}

// checkAnnotation returns an error for an annotation of something that the build does not make.
func (o *Options) checkAnnotation(said string, a export.Annotation) error {
	index := a.Target == "index" || a.Target == "index-descriptor"
	switch {
	case index && !o.makesIndex():
		return fmt.Errorf("%s: an image for one platform has no index", said)
	case index && a.Platform != "":
		return fmt.Errorf("%s: an index has no platform", said)
	case a.Platform == "":
		return nil
	}
	p, err := parser.ParsePlatform(a.Platform)
	if err != nil {
		return fmt.Errorf("%s: %w", said, err)
	}
	platforms := o.Platforms
	if len(platforms) == 0 {
		platforms = []ocispec.Platform{parser.HostPlatform()}
	}
	for _, have := range platforms {
		if have.OS == "" {
			have = parser.HostPlatform()
		}
		if platform.Same(have, p) {
			return nil
		}
	}
	return fmt.Errorf("%s: the build has no platform %s", said, parser.FormatPlatform(p))
}

// warnOutputs warns about options that have no effect.
func (b *builder) warnOutputs() {
	warn := func(format string, args ...any) {
		b.sink(event.Warning{Message: fmt.Sprintf(format, args...), Time: time.Now()})
	}
	if len(b.opts.Image.Annotations) > 0 && !b.wantsImage() {
		warn("--annotation has no effect: only files are exported, and no image is made")
	}
	for _, o := range b.opts.Outputs {
		switch rewrite := o.Layers.RewriteTimestamp; {
		case rewrite == nil:
		case *rewrite && b.opts.Image.Epoch == nil:
			warn("output %s: rewrite-timestamp has no effect without SOURCE_DATE_EPOCH", o)
		case !*rewrite && b.opts.Image.Epoch != nil:
			warn("output %s: rewrite-timestamp=false has no effect: with SOURCE_DATE_EPOCH the times in layers are always clamped", o)
		}
		if o.Layers.PruneDead && b.exportsInline() {
			warn("output %s: it has no cache records (--cache-to type=inline), because they would describe layers with dead bytes", o)
		}
	}
}

// rootFor returns the image of a recipe. It makes the image unless an earlier output had the same recipe.
func (b *builder) rootFor(ctx context.Context, made map[string]ocispec.Descriptor, r recipe, solvers []*solver, targets []rootfs) (ocispec.Descriptor, error) {
	if root, ok := made[r.key()]; ok {
		return root, nil
	}
	id := event.ID(fmt.Sprint("image ", len(made)))
	b.sink(event.Start{ID: id, Name: "exporting to another image", Time: time.Now()})
	root, _, err := b.writeRoot(ctx, r, solvers, targets)
	b.sink(event.Done{ID: id, Err: err, Note: root.Digest.String(), Time: time.Now()})
	made[r.key()] = root
	return root, err
}

// layerAs returns the descriptor of a layer with the compression of a recipe.
func (b *builder) layerAs(ctx context.Context, l *layers.Layer, r recipe) (ocispec.Descriptor, error) {
	d := image.OCIDescriptor(l.Descriptor)
	var err error
	// A layer from --cache-from counts as made by the build: it was taken because it was sealed with the options of the
	// store's image.
	own := l.Base == nil || l.Text != ""
	if own && !r.sameLayers(b.recipe) || !own && r.Force && compressionOf(d.MediaType) != r.Compression {
		if d, err = l.Recompress(ctx, b.state, d, r.format(b.epoch)); err != nil {
			return d, fmt.Errorf("compress layer %s: %w", l.Descriptor.Digest, err)
		}
	}
	if r.Docker {
		d = image.DockerDescriptor(d)
	}
	return d, nil
}

// compressionOf returns the compression that a layer's media type names, as a recipe has it.
func compressionOf(mediaType string) string {
	switch {
	case strings.HasSuffix(mediaType, "+gzip"):
		return ""
	case strings.HasSuffix(mediaType, "+zstd"):
		return "zstd"
	}
	return "none"
}
