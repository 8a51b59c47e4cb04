package outputs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/attest"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// recipe returns the recipe of an output of the build. Without attestations it is that of RecipeOf.
func (o *Options) recipe(spec export.Spec) Recipe {
	r := RecipeOf(spec)
	if o.Attest.Any() && spec.MakesImage() {
		r.Attest = o.attests(spec)
		r.Artifact = r.Attest && spec.Layers.Artifact
	}
	return r
}

// attests reports whether the image of an output has attestations. As in BuildKit, provenance that
// is inline-only makes no index of an image for one platform, except for type=image.
func (o *Options) attests(spec export.Spec) bool {
	inline := spec.Type == export.TypeImage
	if given := spec.Layers.InlineAttestations; given != nil {
		inline = *given
	}
	return inline || o.Attest.SBOM != nil || o.Attest.Provenance != nil &&
		!o.Attest.Provenance.InlineOnly || len(o.Platforms) > 1 || o.Index
}

// indexed reports whether the image of a recipe is an index.
func (o *Options) indexed(r Recipe) bool { return o.makesIndex() || r.Attest }

// checkAttest returns an error for an output that cannot have the attestations of the build.
func (o *Options) checkAttest(spec export.Spec) error {
	r := o.recipe(spec)
	switch {
	case !r.Attest:
		return nil
	case spec.Type == export.TypeDocker:
		return errors.New("the docker format holds one image and no attestations; leave out " +
			"--provenance, --sbom and --attest, or give type=oci")
	case r.Docker:
		return errors.New("oci-mediatypes=false and attestations: Docker's format has none; " +
			"leave out one of them")
	}
	return nil
}

// attest writes the attestations of an image to the store, and returns the entry for the index.
func (w *Writer) attest(ctx context.Context, r Recipe, b Built,
	target ocispec.Descriptor) (d ocispec.Descriptor, err error) {
	data, err := w.State.Store.Read(ctx, target)
	if err != nil {
		return d, err
	}
	image, err := ocidoc.Parse(data)
	if err != nil {
		return d, err
	}
	list, err := b.Attestations(ctx, Made{Manifest: target, Layers: image.Layers,
		Pruned: r.PruneDead})
	if err != nil {
		return d, err
	}
	subjects, err := w.subjects(r, target)
	if err != nil {
		return d, err
	}
	var statements []ocispec.Descriptor
	for _, a := range list {
		data, err := encode(attest.NewStatement(a, subjects))
		if err != nil {
			return d, err
		}
		l := attest.Layer(a.PredicateType, data)
		if _, err := w.State.Store.Write(ctx, l.MediaType, data); err != nil {
			return d, err
		}
		statements = append(statements, l)
	}
	m, config, err := attest.NewManifest(target, statements, r.Artifact)
	if err != nil {
		return d, err
	}
	if _, err := w.State.Store.Write(ctx, m.Config.MediaType, config); err != nil {
		return d, err
	}
	if d, err = w.State.Store.WriteJSON(ctx, m.MediaType, m); err != nil {
		return d, fmt.Errorf("write the attestations: %w", err)
	}
	p := attest.Platform
	d.Platform, d.Annotations = &p, ocidoc.Attests(target.Digest)
	return d, nil
}

// encode returns a statement as JSON in which the predicate is unchanged.
func encode(s attest.Statement) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(s)
	return bytes.TrimSpace(b.Bytes()), err
}

// subjects returns the subjects of the statements about an image: its names, or "_" for an image
// without a name.
func (w *Writer) subjects(r Recipe, target ocispec.Descriptor) ([]attest.Subject, error) {
	names := slices.Clone(w.Options.Names)
	for _, spec := range w.Options.Specs {
		if spec.MakesImage() && w.Options.recipe(spec).key() == r.key() {
			names = append(names, spec.Names...)
		}
	}
	var list []attest.Subject
	seen := map[string]bool{}
	for _, name := range names {
		n, err := reference.Parse(name)
		if err != nil {
			return nil, fmt.Errorf("name %q: %w", name, err)
		}
		n.Digest = "" // the image has another one
		url := attest.PURL("docker", n, target.Platform)
		if !seen[url] {
			seen[url] = true
			list = append(list, attest.Subject{Name: url, Digest: attest.DigestOf(target.Digest)})
		}
	}
	if len(list) == 0 {
		list = []attest.Subject{{Name: "_", Digest: attest.DigestOf(target.Digest)}}
	}
	return list, nil
}
