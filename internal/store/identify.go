package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MinShortID is the minimum number of digits of the beginning of a digest.
const MinShortID = 4

// IsShortID reports whether a word can be a digest or the beginning of one: at least MinShortID
// hexadecimal digits, with or without the prefix "sha256:".
func IsShortID(s string) bool {
	s = strings.TrimPrefix(s, "sha256:")
	return MinShortID <= len(s) && len(s) <= 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// AmbiguousError is returned when several images match the beginning of a digest.
type AmbiguousError struct {
	ID string
	// Candidates describe the images: the digest that begins with ID, and the names.
	Candidates []string
}

// Error lists the images that the ID may refer to.
func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%s is ambiguous; give more digits: %s", e.ID,
		strings.Join(e.Candidates, ", "))
}

// ResolveID returns an image by a digest or the beginning of one (see IsShortID): of an index, of a
// manifest, or of a configuration. It searches the images of the store and the images in others. It
// returns ErrNotFound when there is none, and an *AmbiguousError when several images match.
func (s *Store) ResolveID(ctx context.Context, id string,
	others []ocispec.Descriptor) (ocispec.Descriptor, error) {
	list, err := s.list(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	hex := strings.TrimPrefix(id, "sha256:")
	return s.identify(ctx, slices.Concat(list, others), id, func(d digest.Digest) bool {
		return d.Algorithm() == digest.SHA256 && strings.HasPrefix(d.Encoded(), hex)
	})
}

// candidate is an image that was found by a digest.
type candidate struct {
	image ocispec.Descriptor
	by    digest.Digest // the digest that matches
	names []string
}

// identify returns the only image that matches: one of the entries, or an image to which an entry
// refers.
func (s *Store) identify(ctx context.Context, list []ocispec.Descriptor, id string,
	fits func(digest.Digest) bool) (ocispec.Descriptor, error) {
	var found []*candidate
	layerOf := ""
	for _, e := range list {
		name := entryName(e)
		add := func(image ocispec.Descriptor, by digest.Digest) {
			i := slices.IndexFunc(found, func(c *candidate) bool {
				return c.image.Digest == image.Digest
			})
			if i < 0 {
				i = len(found)
				found = append(found, &candidate{image: image, by: by})
			}
			if name != "" && !slices.Contains(found[i].names, name) {
				found[i].names = append(found[i].names, name)
			}
		}
		// Indexes may refer to missing manifests; documents that cannot be read do not match.
		s.walk(ctx, plain(e), map[digest.Digest]bool{}, func(d ocispec.Descriptor,
			doc *ocidoc.Document) {
			if doc == nil {
				return
			}
			switch {
			case fits(d.Digest):
				add(d, d.Digest)
			case doc.Config != nil && fits(doc.Config.Digest):
				add(d, doc.Config.Digest)
			case s.hasLayer(ctx, doc, fits):
				if name != "" || layerOf == "" {
					layerOf = cmp.Or(name, d.Digest.String())
				}
			}
		})
	}
	if err := ctx.Err(); err != nil {
		return ocispec.Descriptor{}, err
	}
	switch {
	case len(found) == 1:
		return found[0].image, nil
	case len(found) > 1:
		return ocispec.Descriptor{}, ambiguous(id, found)
	case layerOf != "":
		return ocispec.Descriptor{}, fmt.Errorf("%s is a layer of %s, and an image is expected", id,
			layerOf)
	}
	return ocispec.Descriptor{}, fmt.Errorf("image %s: %w", id, ErrNotFound)
}

// hasLayer reports whether one of the layers of a manifest has a digest that matches, or a matching
// diffID, which 'layerbuild inspect' prints.
func (s *Store) hasLayer(ctx context.Context, doc *ocidoc.Document,
	fits func(digest.Digest) bool) bool {
	if slices.ContainsFunc(doc.Layers,
		func(l ocispec.Descriptor) bool { return fits(l.Digest) }) {
		return true
	}
	if doc.Config == nil {
		return false
	}
	var config struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	data, err := s.Read(ctx, *doc.Config)
	return err == nil && json.Unmarshal(data, &config) == nil &&
		slices.ContainsFunc(config.RootFS.DiffIDs, fits)
}

func ambiguous(id string, found []*candidate) error {
	e := &AmbiguousError{ID: id}
	for _, c := range found {
		text := c.by.String()
		if len(c.names) > 0 {
			text += " (" + strings.Join(c.names, ", ") + ")"
		}
		e.Candidates = append(e.Candidates, text)
	}
	slices.Sort(e.Candidates)
	return e
}
