package safepath

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// InRoot opens name as if dir were the root directory: ".." stops at dir, and symbolic links,
// including absolute ones, are resolved inside it. name may be longer than the limit of one system
// call. flags are those of open(2); O_CLOEXEC is added. The caller closes the descriptor.
func InRoot(dir int, name string, flags int, mode uint32) (int, error) {
	return open(dir, name, flags, mode, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

// NoLinks opens name below dir. It returns ELOOP if any part of it, including the last, is a
// symbolic link (with O_PATH|O_NOFOLLOW it opens a link in the last part). name may be longer than
// the limit of one system call. The caller closes the descriptor.
func NoLinks(dir int, name string, flags int, mode uint32) (int, error) {
	return open(dir, name, flags, mode, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|
		unix.RESOLVE_NO_MAGICLINKS)
}

func open(dir int, name string, flags int, mode uint32, resolve uint64) (int, error) {
	if name == "" {
		name = "."
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: resolve}
	for tries := 1; ; tries++ {
		fd, err := unix.Openat2(dir, name, &how)
		// EAGAIN: a rename raced with the resolution of a ".." (openat2(2)); EINTR: a signal.
		if err == unix.EINTR || err == unix.EAGAIN && tries < maxTries {
			continue
		}
		// ENAMETOOLONG: name is longer than the limit of one system call, or a part of it is too
		// long, which resolveParts finds.
		if err == unix.EAGAIN || err == unix.ENAMETOOLONG && len(name) >= unix.PathMax {
			fd, err = resolveParts(dir, name, how)
		}
		if err != nil {
			return -1, &os.PathError{Op: "openat2", Path: name, Err: err}
		}
		return fd, nil
	}
}

// maxTries limits the calls of openat2(2) that fail with EAGAIN. On overlayfs, Linux 6.18 always
// returns EAGAIN for some loops of links that contain "..".
const maxTries = 100

// resolveParts opens name like openat2(2) with how, whose Resolve has RESOLVE_IN_ROOT or
// RESOLVE_BENEATH. It opens one part after the other, and never passes ".." to the kernel.
func resolveParts(dir int, name string, how unix.OpenHow) (int, error) {
	var way []int // the directories between dir and the present one
	defer func() {
		for _, fd := range way {
			unix.Close(fd)
		}
	}()
	leave := func(n int) {
		for _, fd := range way[n:] {
			unix.Close(fd)
		}
		way = way[:n]
	}
	inRoot := how.Resolve&unix.RESOLVE_IN_ROOT != 0
	rest, links := name, 0
	for {
		if strings.HasPrefix(rest, "/") {
			if !inRoot {
				return -1, unix.EXDEV
			}
			leave(0)
		}
		part, after, more := strings.Cut(strings.TrimLeft(rest, "/"), "/")
		after = strings.TrimLeft(after, "/")
		last := after == ""
		if last && more && how.Flags&unix.O_CREAT != 0 {
			return -1, unix.EISDIR
		}
		at := dir
		if len(way) > 0 {
			at = way[len(way)-1]
		}
		one := unix.OpenHow{
			Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS |
				how.Resolve&unix.RESOLVE_NO_XDEV,
		}
		if part == ".." {
			if len(way) == 0 && !inRoot {
				return -1, unix.EXDEV
			}
			leave(max(len(way)-1, 0))
			part, at = ".", dir
			if len(way) > 0 {
				at = way[len(way)-1]
			}
		}
		if part == "" {
			part = "."
		}
		follow := !last || more || how.Flags&unix.O_NOFOLLOW == 0 &&
			how.Flags&(unix.O_CREAT|unix.O_EXCL) != unix.O_CREAT|unix.O_EXCL
		if target, err := readlinkat(at, part); err == nil && follow && part != "." {
			if how.Resolve&unix.RESOLVE_NO_SYMLINKS != 0 || links == MaxLinks {
				return -1, unix.ELOOP
			}
			links++
			if rest = target; more {
				rest += "/" + after
			}
			continue
		}
		if last {
			one.Flags, one.Mode = how.Flags, how.Mode
			if more {
				one.Flags |= unix.O_DIRECTORY
			}
			return unix.Openat2(at, part, &one)
		}
		if part != "." {
			fd, err := unix.Openat2(at, part, &one)
			if err != nil {
				return -1, err
			}
			way = append(way, fd)
		}
		rest = after
	}
}

// piece is the longest path that Link passes to the kernel. The kernel's limit is 4,095 bytes
// (PATH_MAX).
const piece = 2048

// Link makes newName in newDir a hard link to the file old, a path below dir without links. old may
// be longer than the limit of one system call: Link opens it in pieces.
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

// MkdirAll makes name and its missing parents inside dir, resolved like InRoot, and returns a
// descriptor of the directory (O_PATH|O_DIRECTORY) that the caller closes. It calls made, if it is
// not nil, for each directory that it has made, with the parent's descriptor and the base name, so
// that the caller can set owner and mode. It returns ENOTDIR if a part of name exists and is
// neither a directory nor a link to one.
func MkdirAll(dir int, name string, mode uint32,
	made func(parent int, base string) error) (int, error) {
	m := maker{dir: dir, mode: mode, made: made}
	return m.all(name, 0)
}

// MaxLinks is the number of links that the kernel follows in one path (path_resolution(7)).
// MkdirAll follows as many dangling links.
const MaxLinks = 40

type maker struct {
	dir  int
	mode uint32
	made func(parent int, base string) error
}

// all does not clean name: removing "link/.." would resolve it differently from the kernel.
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
		// Either another process has made it, or base is a dangling link. In that case make the
		// link's target.
		if target, err := readlinkat(parent, base); err == nil {
			if links == MaxLinks {
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

// InRootError returns err. If err is an *os.PathError, its path is replaced by name, a path in a
// root directory.
func InRootError(name string, err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		err = pe.Err
	}
	return fmt.Errorf("%s: %w", path.Join("/", name), err)
}
