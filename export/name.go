package export

import (
	"fmt"

	"github.com/distribution/reference"
)

// normalize gives name its registry and, where it has neither tag nor digest, the tag latest.
func normalize(name string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", name, err)
	}
	return reference.TagNameOnly(named), nil
}

// names are the names of img and of spec, normalized, in that order, each once. A digest in a name is dropped: what
// is exported has a digest of its own.
func names(img *Image, spec Spec) ([]reference.NamedTagged, error) {
	var list []reference.NamedTagged
	seen := map[string]bool{}
	for _, from := range [][]string{img.Names, spec.Names} {
		for _, name := range from {
			named, err := normalize(name)
			if err != nil {
				return nil, err
			}
			tagged, ok := named.(reference.NamedTagged)
			if !ok {
				tagged = reference.TagNameOnly(reference.TrimNamed(named)).(reference.NamedTagged)
			}
			tagged, err = reference.WithTag(reference.TrimNamed(tagged), tagged.Tag())
			if err != nil {
				return nil, fmt.Errorf("name %q: %w", name, err)
			}
			if !seen[tagged.String()] {
				seen[tagged.String()] = true
				list = append(list, tagged)
			}
		}
	}
	return list, nil
}
