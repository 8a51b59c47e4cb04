package outputs

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/attest"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/platform"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options determine which images are made from a build, and their destinations.
type Options struct {
	// Names are given to the image in the store.
	Names []string
	// Annotations are the annotations of all outputs. An output may have further ones.
	Annotations []export.Annotation
	// Specs are the values of -o. Without any, the image is only in the store.
	Specs []export.Spec
	// Platforms are the platforms of the build, as requested by the user; none: the host's
	// platform.
	Platforms []ocispec.Platform
	// Index requests an index even for a single platform.
	Index bool
	// InlineCache is set if the images contain cache records (--cache-to type=inline).
	InlineCache bool
	// Attest selects the attestations of the images and of exported files.
	Attest attest.Options
	// Epoch is the creation time of new layers and history entries, in seconds since 1970; nil: the
	// real time.
	Epoch *int64
}

// WantsImage reports whether an image is made, and not only its files exported.
// With type=cacheonly alone, no image is made even if it would have names, as with buildx.
func (o *Options) WantsImage() bool {
	if len(o.Specs) == 0 {
		return true
	}
	return slices.ContainsFunc(o.Specs, export.Spec.MakesImage) ||
		len(o.Names) > 0 && !o.cacheOnly()
}

// cacheOnly reports whether the results are only wanted in the cache.
func (o *Options) cacheOnly() bool {
	return len(o.Specs) > 0 && !slices.ContainsFunc(o.Specs,
		func(s export.Spec) bool { return s.Type != export.TypeCacheOnly })
}

// WantsFiles reports whether an output needs the files of the image, and not its layers.
func (o *Options) WantsFiles() bool {
	return slices.ContainsFunc(o.Specs, export.Spec.Flat)
}

// makesIndex reports whether an index is made instead of a single manifest.
func (o *Options) makesIndex() bool { return len(o.Platforms) > 1 || o.Index }

// now returns the creation time of new layers and history entries.
func (o *Options) now() time.Time {
	if o.Epoch != nil {
		return time.Unix(*o.Epoch, 0).UTC()
	}
	return time.Now().UTC()
}

// Check returns an error for outputs and annotations that contradict each other, before anything
// runs.
func (o *Options) Check() error {
	var errs []error
	stored := o.indexed(o.StoreRecipe())
	for _, a := range o.Annotations {
		errs = append(errs, o.checkAnnotation("--annotation "+a.String(), a, stored))
	}
	given := map[string]string{} // the recipe of the image that has a name
	for _, spec := range o.Specs {
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

// checkNames returns an error if two outputs give the same name to different images.
func (o *Options) checkNames(spec export.Spec, given map[string]string) error {
	key := o.recipe(spec).key()
	for _, n := range slices.Concat(o.Names, spec.Names) {
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
	case spec.Push || spec.NoPush: // a pipeline that sets push by a variable gives the others, too
	case spec.ByDigest:
		return errors.New("push-by-digest has no effect without push=true")
	case spec.Insecure:
		return errors.New("registry.insecure has no effect without push=true")
	}
	if spec.Type == export.TypeDocker && len(o.Platforms) > 1 {
		return export.DockerPlatformsError(len(o.Platforms))
	}
	if !spec.MakesImage() {
		return nil
	}
	for _, a := range spec.Annotations {
		if err := o.checkAnnotation(a.String(), a, o.indexed(o.recipe(spec))); err != nil {
			return err
		}
	}
	if err := o.checkAttest(spec); err != nil {
		return err
	}
	if RecipeOf(spec).Docker {
		for _, a := range slices.Concat(o.Annotations, spec.Annotations) {
			if a.Target == export.Manifest || a.Target == export.Index ||
				a.Target == export.ManifestDescriptor && o.makesIndex() {
				return fmt.Errorf(
					"oci-mediatypes=false and annotation %s: Docker's format has no annotations",
					a.Key)
			}
		}
	}
	return nil
}

// checkAnnotation returns an error for an annotation of a document that the build does not make.
// The error begins with name. indexed is set if an index is made.
func (o *Options) checkAnnotation(name string, a export.Annotation, indexed bool) error {
	index := a.Target == export.Index || a.Target == export.IndexDescriptor
	switch {
	case index && !indexed:
		return fmt.Errorf("%s: an image for one platform has no index", name)
	case index && a.Platform != "":
		return fmt.Errorf("%s: an index has no platform", name)
	case a.Platform == "":
		return nil
	}
	p, err := parser.ParsePlatform(a.Platform)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
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
	return fmt.Errorf("%s: the build has no platform %s", name, parser.FormatPlatform(p))
}

// Warn sends a warning for each option that has no effect.
func (o *Options) Warn(sink event.Sink) {
	warn := func(format string, args ...any) {
		sink(event.Warning{Message: fmt.Sprintf(format, args...), Time: time.Now()})
	}
	if len(o.Annotations) > 0 && !o.WantsImage() {
		warn("--annotation has no effect: the outputs are files or cacheonly, and no image is made")
	}
	if len(o.Names) > 0 && o.cacheOnly() {
		warn("--tag has no effect: with --output type=cacheonly no image is made")
	}
	if o.InlineCache && !o.WantsImage() {
		warn("--cache-to type=inline has no effect: the outputs are files or cacheonly, and no " +
			"image is made")
	}
	if o.Attest.Any() && o.cacheOnly() {
		warn("--provenance, --sbom and --attest have no effect: with --output type=cacheonly " +
			"nothing is written")
	}
	for _, spec := range o.Specs {
		switch rewrite := spec.Layers.RewriteTimestamp; {
		case rewrite == nil:
		case *rewrite && o.Epoch == nil:
			warn("output %s: rewrite-timestamp has no effect without SOURCE_DATE_EPOCH", spec)
		case !*rewrite && o.Epoch != nil:
			warn("output %s: rewrite-timestamp=false has no effect: with SOURCE_DATE_EPOCH the "+
				"times in layers are always clamped", spec)
		}
		if key := attestKey(spec); key != "" && !o.Attest.Any() {
			warn("output %s: %s has no effect: the build has no attestations", spec, key)
		}
		if spec.Layers.PruneDead && o.InlineCache {
			warn("output %s: it has no cache records (--cache-to type=inline), because they "+
				"would describe layers with dead bytes", spec)
		}
	}
}

// attestKey returns an attribute of an output that changes only attestations, or "".
func attestKey(spec export.Spec) string {
	inline := spec.Layers.InlineAttestations
	switch {
	case spec.Layers.Artifact:
		return "oci-artifact=true"
	case inline != nil && *inline:
		return "attestation-inline=true"
	case spec.AttestationPrefix != "":
		return "attestation-prefix"
	}
	return ""
}
