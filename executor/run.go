package executor

import (
	"context"
	"errors"
	"io"
)

// Main does a step's work and ends the process, if this process is a step's child; otherwise it returns at once. It
// is the first thing that main does.
func Main() {}

// Result is what is worth knowing about a step that succeeded.
type Result struct {
	// OwnersLost are how many files could not be given their owner, because the user namespace has one id only.
	OwnersLost int
	// FirstOwner is the first of them, as "path: uid:gid".
	FirstOwner string
}

// Run runs one step and waits for its end, when nothing of it is left: neither processes nor mounts. A command that
// ran and failed is an *ExitError. When ctx ends everything is killed, and Run returns ctx's error.
func Run(ctx context.Context, s *Spec, stdout, stderr io.Writer) (Result, error) {
	return Result{}, errors.New("running steps is not built yet")
}
