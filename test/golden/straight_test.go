package golden

import (
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
)

// TestStraight: layers that are written straight from the files that are copied are the same as those of snapshots.
func TestStraight(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	StraightFiles(t, l)
	Straight(t, l, lab.New(t))
}
