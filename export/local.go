package export

import (
	"context"
	"errors"
	"fmt"

	"github.com/layerbuild/layerbuild/internal/event"
)

// local exports the files of an image to a directory.
type local struct {
	env  Env
	spec Spec
}

func (l *local) Export(ctx context.Context, img *Image, sink event.Sink) error {
	return report(l.spec, "export files to "+l.spec.Dest, sink, func(j *job) (string, error) {
		return "", fmt.Errorf("export files to %s: %w", l.spec.Dest, errors.ErrUnsupported)
	})
}
