package source

import (
	"fmt"
	"os"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"golang.org/x/sys/unix"
)

// OwnState describes the state directory of this program. Contexts do not contain it: otherwise an
// image would contain files that the build itself writes, and files would change while they are
// copied.
type OwnState struct {
	// Dir is the directory; "": none.
	Dir string
	// Holds reports whether a name in Dir belongs to the state. It is used if the context is Dir
	// itself.
	Holds func(name string) bool
	// Notice is called once for a tree, with the path of the excluded directory in the tree; may
	// be nil.
	Notice func(path string)
}

// ownDir is an OwnState identified by device and inode, so that links and bind mounts are
// recognized. The zero value means that there is none.
type ownDir struct {
	OwnState
	dir  *os.File // keeps the inode in memory, for file systems without fixed inode numbers
	st   unix.Statx_t
	root bool // the state directory is the tree's directory itself
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
	err = dirfd.Fstat(int(d.dir.Fd()), &d.st)
	if err == nil {
		err = dirfd.Fstat(root, &st)
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
	return d.dir != nil && st.Ino == d.st.Ino && dirfd.Dev(st) == dirfd.Dev(&d.st)
}

// holds reports whether a name in the tree's directory belongs to the state.
func (d *ownDir) holds(name string) bool { return d.root && d.Holds != nil && d.Holds(name) }

// tell calls Notice once.
func (d *ownDir) tell(path string) {
	if !d.told && d.Notice != nil {
		d.Notice(path)
	}
	d.told = true
}
