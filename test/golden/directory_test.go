package golden

import (
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
)

// TestCopiedDirectories compares layers that are written from the files of the source with layers
// of snapshots.
func TestCopiedDirectories(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	DirectoryFiles(t, l)
	Directories(t, l, lab.New(t))
}
