package executor

import (
	"context"
	"os"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"golang.org/x/sys/unix"
)

// runFiles performs a *copyfs.Copy or *Mkdir, in its own mount namespace.
func runFiles(ctx context.Context, s *Spec, unpack copyfs.Unpacker, result *Result) error {
	if err := enterRoot(s.Root); err != nil {
		return err
	}
	unix.Umask(0)
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	o := copyfs.Options{UserNS: s.UserNS, SingleID: s.SingleID, Epoch: s.Epoch,
		MountPoints: pointNames, LookupOwner: lookupOwner, Unpack: unpack}
	switch a := s.Action.(type) {
	case *copyfs.Copy:
		result.Files, err = copyfs.Run(ctx, root, a, o)
	case *Mkdir:
		result.Files, err = copyfs.Mkdir(root, a.Path, a.User, o)
	default:
		panic("unreachable")
	}
	return err
}

// setOpenDirs replaces the directories that OpenDirs returns by inherited descriptors.
func setOpenDirs(a *copyfs.Copy, dirs []int) {
	for i, fd := range dirs {
		f := os.NewFile(uintptr(fd), "source")
		if i < len(a.Sources) {
			a.Sources[i].Dir = f
		} else {
			a.Frozen = f
		}
	}
}
