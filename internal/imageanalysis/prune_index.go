package imageanalysis

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/ocijson"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/parser"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PrunedIndex is an index of images without their dead bytes.
type PrunedIndex struct {
	// Root is the new index, or the old one if none of its images had dead bytes.
	Root ocispec.Descriptor
	// Images are the images of the index, in its order.
	Images []PrunedPlatform
	// Dropped has the platforms whose attestations were removed, because they describe the old
	// image.
	Dropped []ocispec.Platform
}

// PrunedPlatform is the image of an index for one platform.
type PrunedPlatform struct {
	Platform ocispec.Platform
	*Pruned
}

// PruneIndex removes the dead bytes of all images of the index in which img was found. The index
// keeps its other entries, except attestations of images that changed. The new index is in the
// store, without a name.
func PruneIndex(ctx context.Context, s *state.State, images *image.Resolver, img *image.Image,
	o PruneOptions) (*PrunedIndex, error) {
	p := &indexPruning{s: s, images: images, img: img, o: o, res: &PrunedIndex{},
		changed: map[digest.Digest]ocispec.Descriptor{}}
	root, err := p.index(ctx, img.Root, 0)
	p.res.Root = root
	return p.res, err
}

type indexPruning struct {
	s      *state.State
	images *image.Resolver
	img    *image.Image
	o      PruneOptions
	res    *PrunedIndex
	// changed has the manifests that were replaced, by their old digest.
	changed map[digest.Digest]ocispec.Descriptor
}

// index rewrites one index.
func (p *indexPruning) index(ctx context.Context, d ocispec.Descriptor,
	depth int) (ocispec.Descriptor, error) {
	if depth == ocidoc.MaxNesting {
		return d, fmt.Errorf("index %s: %w", d.Digest, ocidoc.ErrNesting)
	}
	data, err := p.images.Document(ctx, d, p.img)
	if err != nil {
		return d, err
	}
	var doc map[string]json.RawMessage
	var entries []ocispec.Descriptor
	// the same entries, including fields that this program does not know
	var raw []map[string]json.RawMessage
	if err := ocijson.Unmarshal(data, &doc); err != nil {
		return d, fmt.Errorf("index %s: %w", d.Digest, err)
	}
	for _, list := range []any{&entries, &raw} {
		if err := ocijson.Unmarshal(doc["manifests"], list); err != nil {
			return d, fmt.Errorf("index %s: %w", d.Digest, err)
		}
	}
	changed := false
	for i, e := range entries {
		now, err := p.entry(ctx, e, depth)
		if err != nil {
			return d, err
		}
		if now.Digest == e.Digest {
			continue
		}
		changed = true
		delete(raw[i], "data")
		for key, v := range map[string]any{"digest": now.Digest, "size": now.Size} {
			if raw[i][key], err = json.Marshal(v); err != nil {
				return d, err
			}
		}
	}
	if !changed || p.o.DryRun {
		return d, nil
	}
	if doc["manifests"], err = json.Marshal(p.dropAttestations(entries, raw)); err != nil {
		return d, err
	}
	w, err := p.s.Store.WriteJSON(ctx, d.MediaType, doc)
	d.Digest, d.Size, d.Data = w.Digest, w.Size, nil
	return d, err
}

// entry returns the entry for the rewritten object to which an entry of an index refers.
func (p *indexPruning) entry(ctx context.Context, d ocispec.Descriptor,
	depth int) (ocispec.Descriptor, error) {
	if ocidoc.IsIndex(d.MediaType) {
		return p.index(ctx, d, depth+1)
	}
	if !ocidoc.IsImage(d) {
		return d, p.keep(ctx, d)
	}
	if now, ok := p.changed[d.Digest]; ok {
		return now, nil
	}
	img, err := p.images.Manifest(ctx, p.img.Name, d, p.img)
	if err != nil {
		return d, fmt.Errorf("%w (--platform prunes the image for one platform)", err)
	}
	img.Name += " for " + parser.FormatPlatform(img.Platform)
	res, err := Prune(ctx, p.s, p.images, img, p.o)
	if err != nil {
		return d, err
	}
	p.res.Images = append(p.res.Images, PrunedPlatform{img.Platform, res})
	p.changed[d.Digest] = res.Manifest
	return res.Manifest, nil
}

// keep copies an entry that is not an image into the store.
func (p *indexPruning) keep(ctx context.Context, d ocispec.Descriptor) error {
	if p.o.DryRun || p.attestsOther(d) {
		return nil
	}
	return p.images.EnsureManifest(ctx, d, p.img)
}

// attestsOther reports whether d is an attestation of an image that was replaced.
func (p *indexPruning) attestsOther(d ocispec.Descriptor) bool {
	old := digest.Digest(ocidoc.Attested(d))
	now, ok := p.changed[old]
	return ok && now.Digest != old
}

// dropAttestations removes the attestations of images that changed.
func (p *indexPruning) dropAttestations(entries []ocispec.Descriptor,
	raw []map[string]json.RawMessage) []map[string]json.RawMessage {
	var kept []map[string]json.RawMessage
	for i, e := range entries {
		if !p.attestsOther(e) {
			kept = append(kept, raw[i])
			continue
		}
		for _, of := range entries {
			if of.Digest == digest.Digest(ocidoc.Attested(e)) && of.Platform != nil {
				p.res.Dropped = append(p.res.Dropped, *of.Platform)
			}
		}
	}
	return kept
}
