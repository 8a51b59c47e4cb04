package soundness

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
)

// mkfifo is the only text of a command in which the name of a fifo may be.
var mkfifo = regexp.MustCompile(`\[ -e [/a-z]+/fifo \] \|\| mkfifo [/a-z]+/fifo`)

// TestNoFifoIsOpened checks that fifos have names that no command opens: a round would wait for the other end for ever.
func TestNoFifoIsOpened(t *testing.T) {
	b := &bench{lab: lab.New(t), drivers: []string{"overlay"}}
	made, inContext := 0, 0
	for seed := range uint64(300) {
		w := b.newInputs(t, seed, t.TempDir())
		w.own = "own"
		for range 20 {
			w.edit()
			for _, top := range []string{w.context, w.named} {
				w.check(filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
					is := err == nil && d.Type() == fs.ModeNamedPipe
					if is != (filepath.Base(path) == fifo) {
						t.Errorf("seed %d: %s: %v", seed, path, d)
					}
					if is {
						inContext++
					}
					return err
				}))
			}
		}
		for line := range strings.Lines(w.dockerfile()) {
			made += len(mkfifo.FindAllString(line, -1))
			if verb, _, _ := strings.Cut(line, " "); verb == "COPY" || verb == "ADD" {
				continue // these do not open fifos
			}
			if strings.Contains(mkfifo.ReplaceAllString(line, ""), fifo) {
				t.Errorf("seed %d: a command names a fifo: %s", seed, line)
			}
		}
	}
	if made < 20 || inContext < 20 {
		t.Errorf("%d commands make a fifo, and contexts have %d", made, inContext)
	}
}
