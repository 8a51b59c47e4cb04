package export

import (
	"fmt"

	"github.com/layerbuild/layerbuild/internal/reference"
)

// normalize adds the registry and, if there is none, the tag latest to a name. A digest in the name
// is removed: the exported image has a different one.
func normalize(name string) (reference.Name, error) {
	n, err := reference.Parse(name)
	if err != nil {
		return reference.Name{}, fmt.Errorf("name %q: %w", name, err)
	}
	n.Digest = ""
	return n.OrLatest(), nil
}

// names returns the names of img and then those of spec, normalized and without repetitions.
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
