package job

import (
	"context"
	"errors"
	"fmt"

	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
)

// match returns the files of an input that a query names. The error for a missing file begins like
// BuildKit's, because programs that read the output of builds look for that text.
func match(ctx context.Context, f *inputs.Files, from parser.Input,
	q source.Query) (*source.Match, error) {
	m, err := f.Tree.Match(ctx, q)
	if errors.Is(err, source.ErrNotFound) {
		err = fmt.Errorf("failed to compute cache key: failed to calculate checksum of ref %s: %w",
			inputName(from), err)
	}
	return m, err
}

// inputName returns the name of an input for messages.
func inputName(in parser.Input) string {
	switch in := in.(type) {
	case parser.ImageInput:
		return in.Ref
	case parser.StageInput:
		return in.Stage.Label()
	case parser.ContextInput:
		if in.Name != "" {
			return in.Name
		}
		return "context"
	}
	return "scratch"
}
