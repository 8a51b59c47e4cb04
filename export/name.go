package export

import (
	"fmt"

	"github.com/layerbuild/layerbuild/internal/reference"
)

// normalize gives name its registry and, where it has none, the tag latest. A digest in a name is dropped: what is
// exported has a digest of its own.
func normalize(name string) (reference.Name, error) {
	n, err := reference.Parse(name)
	if err != nil {
		return reference.Name{}, fmt.Errorf("name %q: %w", name, err)
	}
	n.Digest = ""
	return n.OrLatest(), nil
}

// names are the names of img and of spec, normalized, in that order, each once.
func names(img *Image, spec Spec) ([]reference.Name, error) {
	var list []reference.Name
	seen := map[reference.Name]bool{}
	for _, from := range [][]string{img.Names, spec.Names} {
		for _, name := range from {
			n, err := normalize(name)
			if err != nil {
				return nil, err
			}
			if !seen[n] {
				seen[n] = true
				list = append(list, n)
			}
		}
	}
	return list, nil
}
