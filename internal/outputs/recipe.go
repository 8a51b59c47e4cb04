package outputs

import (
	"encoding/json"
	"slices"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/layers"
)

// The options of one -o apply only to that output. A recipe has those of them that determine the
// bytes of an image. The steps run once for all recipes. The layers are sealed for one recipe, and
// the images of the other recipes are made from these layers.

// Recipe holds the options for making an image from a build's layers.
type Recipe struct {
	Compression string // as in diff.Options
	Level       int    // as in diff.Options
	Force       bool   // compress the base's layers, too
	Docker      bool   // Docker's media types
	PruneDead   bool
	// Clamped annotates the layers that the build made with the epoch to which their times are
	// limited, as BuildKit does with rewrite-timestamp=true. It has no effect without an epoch.
	Clamped     bool
	Annotations []export.Annotation // in addition to those of the whole build
	Attest      bool                // add the attestations of the build
	Artifact    bool                // in manifests that are artifacts
}

// RecipeOf returns the recipe of an output, without attestations.
func RecipeOf(o export.Spec) Recipe {
	l := o.Layers
	r := Recipe{Compression: l.Compression, Force: l.Force, PruneDead: l.PruneDead,
		Annotations: o.Annotations}
	r.Clamped = l.RewriteTimestamp != nil && *l.RewriteTimestamp && !o.NoEpoch
	r.Docker = l.OCIMediaTypes != nil && !*l.OCIMediaTypes
	switch r.Compression {
	case export.Uncompressed:
		r.Compression = diff.Uncompressed
	case "gzip":
		r.Compression = ""
	}
	if l.Level != nil {
		r.Level = *l.Level
	}
	if r.Compression == "" && r.Level == diff.DefaultGzipLevel ||
		r.Compression == "zstd" && r.Level == diff.DefaultZstdLevel {
		r.Level = 0
	}
	return r
}

// key returns a string that is equal for equal recipes.
func (r Recipe) key() string {
	data, err := json.Marshal(r)
	if err != nil {
		panic("unreachable: a recipe is plain data: " + err.Error())
	}
	return string(data)
}

// sameLayers reports whether two recipes compress the layers of the build in the same way.
func (r Recipe) sameLayers(o Recipe) bool {
	return r.Compression == o.Compression && r.Level == o.Level
}

// Format returns the format in which layers are sealed.
func (r Recipe) Format(epoch *int64) layers.Format {
	return layers.Format{Compression: r.Compression, Level: r.Level, Epoch: epoch}
}

// plainRecipe returns the recipe of an output without options.
func (o *Options) plainRecipe() Recipe { return o.recipe(export.Spec{Type: export.TypeImage}) }

// StoreRecipe returns the recipe of the image in the store: the recipe of the first output of
// type=image, which names an image in the store; otherwise the recipe of all outputs, if they have
// the same one; otherwise the recipe of an output without options.
func (o *Options) StoreRecipe() Recipe {
	var all []Recipe
	for _, spec := range o.Specs {
		switch {
		case spec.Type == export.TypeImage:
			return o.recipe(spec)
		case spec.MakesImage():
			all = append(all, o.recipe(spec))
		}
	}
	if len(all) == 0 || slices.ContainsFunc(all,
		func(r Recipe) bool { return r.key() != all[0].key() }) {
		return o.plainRecipe()
	}
	return all[0]
}
