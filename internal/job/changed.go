package job

import (
	"errors"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/source"
)

// A context may change during a build. If a step finds a file that has changed since it was
// digested for the key, the step starts again: the file is digested from a private copy
// (source.Tree.Changed), the step gets another key, and it copies the private copy.

// maxAttempts limits how often a step digests a changing context. Each time at least one more file
// has a private copy.
const maxAttempts = 20

// StartsAgain reports whether a step that failed with err starts again. attempts is the number of
// times that it has digested its context.
func StartsAgain(err error, attempts int) bool {
	var changed *copyfs.ChangedError
	return attempts < maxAttempts &&
		(errors.As(err, &changed) || errors.Is(err, source.ErrRemoteChanged))
}

// noteChanged reports whether err is about a file that has changed, and records the file in the
// tree that is copied from.
func noteChanged(f *inputs.Files, err error) bool {
	var changed *copyfs.ChangedError
	if !errors.As(err, &changed) {
		return false
	}
	if f.Snapshot == nil {
		f.Tree.Changed(changed.Path, changed.Below)
	}
	return true
}
