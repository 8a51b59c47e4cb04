package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// fullError is an error about a full file system, with a remedy.
type fullError struct {
	err  error
	root string
}

func (e *fullError) Error() string {
	return fmt.Sprintf("%v: the file system of the state directory %s is full; 'layerbuild "+
		"prune' removes unused data, 'layerbuild prune --all' also the build cache", e.err, e.root)
}

// Unwrap returns the error without the remedy.
func (e *fullError) Unwrap() error { return e.err }

// destinationError is an error about a full destination: Full adds no remedy to it.
type destinationError struct{ error }

// Unwrap returns the export's error.
func (e destinationError) Unwrap() error { return e.error }

// OfDestination marks an error of an export, unless it concerns a file of the state directory root.
func OfDestination(root string, err error) error {
	var path *fs.PathError
	if !noSpace(err) || errors.As(err, &path) && strings.HasPrefix(path.Path, root+"/") {
		return err
	}
	return destinationError{err}
}

// Full adds the remedy to an ENOSPC error that concerns the state directory root. It returns other
// errors, and errors that concern other files, unchanged.
func Full(root string, err error) error {
	var full *fullError
	var other destinationError
	if !noSpace(err) || errors.As(err, &full) || errors.As(err, &other) || !below(root, err) {
		return err
	}
	return &fullError{err, root}
}

// IsFull reports whether a full disk or an exhausted quota caused an error.
func IsFull(err error) bool { return noSpace(err) }

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// below reports whether an error concerns a file below root. It returns true for an error without a
// path of the host, since a step uses paths of the image.
func below(root string, err error) bool {
	var path *fs.PathError
	var link *os.LinkError
	name := ""
	switch { // errors about files of the state have absolute paths
	case errors.As(err, &path):
		name = path.Path
	case errors.As(err, &link):
		name = link.New
	}
	if name == "" || !strings.HasPrefix(name, "/") || strings.HasPrefix(name, root+"/") ||
		strings.HasPrefix(name, "/proc/") {
		return true
	}
	_, statErr := os.Lstat(name)
	return statErr != nil
}

// almostNothing is the free space below which a file system counts as full after a command has
// failed.
const almostNothing = 1 << 20

// Filled is like Full, for the error of a command. The command has printed the reason itself. If
// the file system of the state directory is full, that was probably the reason.
func (s *State) Filled(err error) error {
	if err == nil || noSpace(err) {
		return Full(s.Root, err)
	}
	st, free, statErr := s.freeSpace()
	if statErr != nil {
		return Full(s.Root, err)
	}
	if free >= almostNothing && (st.Files == 0 || st.Ffree > 0) {
		return err
	}
	return &fullError{err, s.Root}
}

// freeSpace returns the state of the file system of the state directory, and the number of bytes
// that this process can still write to it.
func (s *State) freeSpace() (st unix.Statfs_t, free int64, err error) {
	if err := unix.Statfs(s.Root, &st); err != nil {
		return st, 0, &os.PathError{Op: "statfs", Path: s.Root, Err: err}
	}
	free = int64(st.Bavail) * st.Bsize
	if s.NS.HostUID == 0 && !s.NS.Rootless {
		free = int64(st.Bfree) * st.Bsize // including blocks reserved for root
	}
	return st, free, nil
}
