package outputs

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/attest"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageanalysis"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Built is the result of a build for one platform.
type Built struct {
	Platform ocispec.Platform
	// Config is the image's configuration without its layers.
	Config dockerspec.DockerOCIImage
	// Layers are the layers, lowest first. Layers of steps may still be being sealed.
	Layers []*layers.Layer
	// Record has the instructions of the Dockerfile, for package analyze.
	Record imageanalysis.Record
	// Records returns the cache records for the image; nil: it has none.
	Records func(ctx context.Context) (remotecache.Document, error)
	// Files writes the files of the image as a tar stream.
	Files func(ctx context.Context, w io.Writer) error
	// Attestations returns the attestations of an image, or of exported files. It is nil if
	// Options.Attest is empty.
	Attestations func(context.Context, Made) ([]attest.Attestation, error)
	// Provenance is the provenance for the metadata; nil: it has none.
	Provenance json.RawMessage
}

// Made is an image that was made for one platform. It is zero if only files are exported.
type Made struct {
	Manifest ocispec.Descriptor
	// Layers are the image's layers, in the format of the output.
	Layers []ocispec.Descriptor
	// Pruned is set if dead bytes were removed: the contents of the layers are others than those
	// of the build.
	Pruned bool
}

// Result describes the written image.
type Result struct {
	// Root is the image's manifest, or its index if it has several platforms; zero if only files
	// were exported.
	Root ocispec.Descriptor
	// Config is the configuration of the first platform.
	Config ocispec.Descriptor
	// Names are all names of the image in the store, in full.
	Names []string
	// Absent is the number of layers that are in the registries and not in the store. If there are
	// some, the names are those in the registries, and the store does not have them.
	Absent int
	// Metadata is the content of the file of --metadata-file.
	Metadata export.Metadata
}

// Writer writes the images of a build.
type Writer struct {
	State     *state.State
	Images    *image.Resolver
	Options   Options
	Recipe    Recipe            // of the image in the store; layers are sealed for it
	Exporters []export.Exporter // one for each of Options.Specs
	// Remote finds out which layers the registries have, to which the image is pushed: they are not
	// fetched if nothing else needs them. nil: all layers are fetched.
	Remote Uploader
	Sink   event.Sink

	absent *absent // of the image that is being written
}

// Write waits for the layers, writes the image to the store, gives it its names and runs the
// exporters.
func (w *Writer) Write(ctx context.Context, built []Built) (res Result, err error) {
	built = w.dated(built)
	w.absent = w.newAbsent()
	if w.Options.WantsImage() {
		if res, err = w.storeImage(ctx, built); err != nil {
			return res, err
		}
	}
	img := &export.Image{Root: res.Root, Names: res.Names, Content: w.State.Store,
		Absent: res.Absent > 0}
	res.Names = w.allNames(res.Names)
	for _, b := range built {
		t := export.Tree{Platform: b.Platform, Tar: b.Files, Time: w.Options.now()}
		if b.Attestations != nil {
			t.Attestations = func(ctx context.Context) ([]attest.Attestation, error) {
				return b.Attestations(ctx, Made{})
			}
		}
		img.Trees = append(img.Trees, t)
	}
	if res.Root.Digest != "" {
		if res.Metadata, err = export.Describe(ctx, img, w.Options.Specs...); err != nil {
			return res, err
		}
	}
	res.Metadata.Provenance = provenanceOf(built)
	made := map[string]ocispec.Descriptor{w.Recipe.key(): res.Root}
	for i, e := range w.Exporters {
		of := *img
		if spec := w.Options.Specs[i]; spec.MakesImage() {
			if of.Root, err = w.rootFor(ctx, made, w.Options.recipe(spec), built); err != nil {
				return res, err
			}
			if err := w.verify(ctx, spec, of.Root); err != nil {
				return res, err
			}
		}
		if err := e.Export(ctx, &of, w.Sink); err != nil {
			return res, state.OfDestination(w.State.Root, err)
		}
	}
	return res, nil
}

// provenanceOf returns the provenance for the metadata, by platform; "" if there is one platform.
func provenanceOf(built []Built) map[string]json.RawMessage {
	m := map[string]json.RawMessage{}
	for _, b := range built {
		name := ""
		if len(built) > 1 {
			name = parser.FormatPlatform(b.Platform)
		}
		if b.Provenance != nil {
			m[name] = b.Provenance
		}
	}
	return m
}

// dated returns the results with the creation times of their images, which are the same for all
// recipes.
func (w *Writer) dated(built []Built) []Built {
	built = slices.Clone(built)
	now := w.Options.now()
	for i := range built {
		c := &built[i].Config
		if c.Created == nil {
			// No instruction has made a step: as in BuildKit, the time is that of the base's last
			// step, so that the image is the same each time.
			c.Created = lastTime(c.History)
		}
		if c.Created == nil || w.Options.Epoch != nil {
			c.Created = &now
		}
	}
	return built
}

// lastTime returns the time of the last entry that has one, or nil.
func lastTime(history []ocispec.History) *time.Time {
	for _, h := range slices.Backward(history) {
		if h.Created != nil {
			at := h.Created.UTC()
			return &at
		}
	}
	return nil
}

// verify reads all blobs of an image that is written to standard output, because output cannot be
// undone when a damaged blob is found.
func (w *Writer) verify(ctx context.Context, spec export.Spec, root ocispec.Descriptor) error {
	if spec.Dest != "-" {
		return nil
	}
	return w.State.Store.Verify(ctx, root)
}

// storeImage writes the image of the store, and names it. The result has the names of -t.
func (w *Writer) storeImage(ctx context.Context, built []Built) (res Result, err error) {
	id := event.ID("image")
	w.Sink(event.Start{ID: id, Name: "exporting to image", Time: time.Now()})
	defer func() {
		note := res.Root.Digest.String()
		if res.Absent > 0 {
			note += fmt.Sprintf(", not in the store: only the registry has %d of its layers",
				res.Absent)
		}
		w.Sink(event.Done{ID: id, Err: err, Note: note, Time: time.Now()})
	}()
	if res.Root, res.Config, err = w.writeRoot(ctx, w.Recipe, built); err != nil {
		return res, err
	}
	if res.Absent = w.absent.len(); res.Absent > 0 {
		res.Names, err = w.untag(ctx)
		return res, err
	}
	res.Names, err = w.tag(ctx, res.Root)
	return res, err
}

// rootFor returns the image of a recipe. It makes the image unless an earlier output had the same
// recipe.
func (w *Writer) rootFor(ctx context.Context, made map[string]ocispec.Descriptor, r Recipe,
	built []Built) (ocispec.Descriptor, error) {
	if root, ok := made[r.key()]; ok {
		return root, nil
	}
	id := event.ID(fmt.Sprint("image ", len(made)))
	w.Sink(event.Start{ID: id, Name: "exporting to another image", Time: time.Now()})
	root, _, err := w.writeRoot(ctx, r, built)
	w.Sink(event.Done{ID: id, Err: err, Note: root.Digest.String(), Time: time.Now()})
	made[r.key()] = root
	return root, err
}

// allNames returns the names of -t and the names that outputs give to the image in the store.
func (w *Writer) allNames(names []string) []string {
	names = slices.Clone(names)
	for _, o := range w.Options.Specs {
		if !w.isStored(o) {
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

// isStored reports whether an output gives its names to the image in the store. Outputs of another
// recipe give them to another image.
func (w *Writer) isStored(o export.Spec) bool {
	return o.Type == export.TypeImage && !o.ByDigest && w.Options.recipe(o).key() == w.Recipe.key()
}

// tag gives the image the names of -t and returns them in full. Without -t, the image is stored
// without a name, unless an output names it.
func (w *Writer) tag(ctx context.Context, root ocispec.Descriptor) (names []string, err error) {
	if len(w.Options.Names) == 0 {
		if slices.ContainsFunc(w.Options.Specs, func(o export.Spec) bool {
			return w.isStored(o) && len(o.Names) > 0
		}) {
			return nil, nil
		}
		return nil, w.State.Store.Tag(ctx, "", root)
	}
	for _, n := range w.Options.Names {
		full, err := store.Name(n)
		if err != nil {
			return names, err
		}
		if err := w.State.Store.Tag(ctx, full, root); err != nil {
			return names, err
		}
		names = append(names, full)
	}
	return names, nil
}
