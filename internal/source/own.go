package source

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OwnState is the directory in which the builder keeps its state. It is never part of a context, wherever it is: what a
// build writes there would be in the image, and change while it is copied.
type OwnState struct {
	// Dir is the directory; "" is none.
	Dir string
	// Holds reports whether a name in Dir is the builder's. It is asked where the context is Dir itself.
	Holds func(name string) bool
	// Notice is told once of a tree that path, the directory in it, is left out; may be nil.
	Notice func(path string)
}

// ownDir is an OwnState, known by its device and inode, so that links and bind mounts do not hide it. The zero value is
// none.
type ownDir struct {
	OwnState
	dir  *os.File // keeps the inode, and so its number, where a file system makes numbers up
	st   unix.Statx_t
	root bool // it is the tree's directory itself
	told bool
}

func openOwn(s OwnState, root int) (ownDir, error) {
	if s.Dir == "" {
		return ownDir{}, nil
	}
	d := ownDir{OwnState: s}
	var err error
	if d.dir, err = os.OpenFile(s.Dir, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return ownDir{}, fmt.Errorf("open the state directory: %w", err)
	}
	var st unix.Statx_t
	err = statFD(int(d.dir.Fd()), &d.st)
	if err == nil {
		err = statFD(root, &st)
	}
	if err != nil {
		d.dir.Close()
		return ownDir{}, fmt.Errorf("look at the state directory: %w", err)
	}
	d.root = d.is(&st)
	return d, nil
}

func (d *ownDir) close() error {
	if d.dir == nil {
		return nil
	}
	return d.dir.Close()
}

// is reports whether st describes the state directory.
func (d *ownDir) is(st *unix.Statx_t) bool {
	return d.dir != nil && st.Ino == d.st.Ino && device(st) == device(&d.st)
}

// holds reports whether a name in the tree's directory is the builder's.
func (d *ownDir) holds(name string) bool { return d.root && d.Holds != nil && d.Holds(name) }

// tell tells that the state is left out of the tree.
func (d *ownDir) tell(path string) {
	if !d.told && d.Notice != nil {
		d.Notice(path)
	}
	d.told = true
}
