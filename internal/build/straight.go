package build

import (
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/parser"
)

// A COPY that ends an image is needed as a layer only. It is written straight from the files that are copied, and the
// snapshot is promised: it is unpacked from the layer should a later build, or anybody, need it.

// endsImage says whether of step n of a stage nobody needs anything but the layer.
func (s *solver) endsImage(st *parser.Stage, n int) bool {
	if st != s.plan.Target || n != s.total(st)+1 || !s.b.opts.WantsImage() || s.b.opts.Analyze || !s.b.state.Snapshots.Layered() {
		return false
	}
	o := s.b.opts.outputs()
	return !o.WantsFiles()
}

// takeLeft gives what a copier has left to the caller.
func (c *copier) takeLeft() *executor.Left {
	left := c.left
	c.left = nil
	return left
}

// dropLeft closes what a copier has left.
func (c *copier) dropLeft() error {
	if left := c.takeLeft(); left != nil {
		return left.Dir.Close()
	}
	return nil
}

// A COPY that others run after is needed as a snapshot and as a layer. Both are made at once: the layer straight from
// the files, while they are copied.

// Directories above a destination change when something is made in them. The layer has the times of the first attempt,
// and so the snapshot gets them, too.

func timesAbove(top, dir string) (map[string]time.Time, error) {
	times := map[string]time.Time{}
	for dir = path.Dir(dir); dir != "."; dir = path.Dir(dir) {
		fi, err := os.Lstat(filepath.Join(top, dir))
		if err != nil {
			return nil, err
		}
		times[dir] = fi.ModTime()
	}
	return times, nil
}

func setTimes(top string, times map[string]time.Time) error {
	for dir, t := range times {
		if err := os.Chtimes(filepath.Join(top, dir), time.Time{}, t); err != nil {
			return err
		}
	}
	return nil
}
