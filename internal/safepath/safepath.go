// Package safepath opens names inside a directory so that no link or ".." leads out of it.
//
// Everything rests on openat2(2) (Linux 5.6). Paths come from images, archives and contexts, so they are hostile:
// they are resolved by the kernel in one call, never by looking first and opening later.
package safepath

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// InRoot opens name as if dir were the root directory: ".." stops at dir, and symbolic links, absolute ones too,
// resolve inside it. flags are those of open(2); O_CLOEXEC is added. The caller closes the descriptor.
func InRoot(dir int, name string, flags int, mode uint32) (int, error) {
	return open(dir, name, flags, mode, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

// NoLinks opens name below dir and fails with ELOOP where any part of it, the last included, is a symbolic link
// (with O_PATH|O_NOFOLLOW the last may be one and is itself opened). The caller closes the descriptor.
func NoLinks(dir int, name string, flags int, mode uint32) (int, error) {
	return open(dir, name, flags, mode, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

func open(dir int, name string, flags int, mode uint32, resolve uint64) (int, error) {
	if name == "" {
		name = "."
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: resolve}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		// EAGAIN: a rename elsewhere raced with a ".." (openat2(2)); EINTR: a signal.
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "openat2", Path: name, Err: err}
		}
		return fd, nil
	}
}

// piece is the longest path that Link passes to the kernel. The kernel's limit is 4,095 bytes (PATH_MAX).
const piece = 2048

// Link makes newName in newDir another name of the file old, a path below dir without links. old may be longer than the
// limit of one system call: it is opened piece by piece.
func Link(dir int, old string, newDir int, newName string) error {
	for at := dir; ; {
		cut := -1
		if len(old) > piece {
			cut = strings.LastIndexByte(old[:piece], '/')
		}
		if cut < 0 {
			return unix.Linkat(at, old, newDir, newName, 0)
		}
		next, err := NoLinks(at, old[:cut], unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(next)
		at, old = next, old[cut+1:]
	}
}

// MkdirAll makes name and its missing parents inside dir as InRoot resolves it, and returns a descriptor of the
// directory (O_PATH|O_DIRECTORY) that the caller closes. made is called for each directory that was made, with its
// parent's descriptor and its base name, so that the caller can set owner and mode; nil: nothing is called.
// A part that exists and is neither a directory nor a link to one is ENOTDIR.
func MkdirAll(dir int, name string, mode uint32, made func(parent int, base string) error) (int, error) {
	m := maker{dir: dir, mode: mode, made: made}
	return m.all(name, 0)
}

// maxLinks is how many links to a directory yet to be made are followed, as the kernel's own limit (path_resolution(7)).
const maxLinks = 40

type maker struct {
	dir  int
	mode uint32
	made func(parent int, base string) error
}

// all keeps name as it is written: cleaning "link/.." away would resolve it other than the kernel does.
func (m maker) all(name string, links int) (int, error) {
	fd, err := InRoot(m.dir, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	parentName, base := path.Split(strings.TrimRight(name, "/"))
	if base == "" {
		return -1, err
	}
	parent, err := m.all(parentName, links)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	switch err := unix.Mkdirat(parent, base, m.mode); {
	case err == nil:
		if m.made != nil {
			if err := m.made(parent, base); err != nil {
				return -1, err
			}
		}
	case err != unix.EEXIST:
		return -1, &os.PathError{Op: "mkdirat", Path: name, Err: err}
	default:
		// Either somebody was faster, or base is a link that leads nowhere: then make what it points to.
		if target, err := readlinkat(parent, base); err == nil {
			if links == maxLinks {
				return -1, &os.PathError{Op: "mkdir", Path: name, Err: unix.ELOOP}
			}
			if !path.IsAbs(target) {
				target = parentName + "/" + target
			}
			return m.all(target, links+1)
		}
	}
	return NoLinks(parent, base, unix.O_PATH|unix.O_DIRECTORY, 0)
}

func readlinkat(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
