package golden

import (
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
)

// TestStraight: the layer of a COPY that ends the image, which is written straight from the files, is the same as that
// of one with something after it, whose snapshot is made first.
func TestStraight(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	StraightFiles(t, l)
	Straight(t, l)
}
