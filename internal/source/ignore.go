package source

import (
	"fmt"
	"io"

	"github.com/moby/patternmatcher/ignorefile"

	"github.com/layerbuild/layerbuild/internal/pattern"
)

// ReadIgnore reads an ignore file: the patterns in it, without comments and blank lines, cleaned. name is what the file
// is called in errors.
func ReadIgnore(name string, r io.Reader) ([]string, error) {
	lines, err := ignorefile.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if _, err := pattern.New(lines); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return lines, nil
}
