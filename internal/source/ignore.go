package source

import (
	"fmt"
	"io"

	"github.com/moby/patternmatcher/ignorefile"

	"github.com/layerbuild/layerbuild/internal/pattern"
)

// ReadIgnore reads an ignore file and returns its patterns, cleaned, without comments and blank
// lines. name is the file's name for errors.
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
