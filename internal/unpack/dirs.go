package unpack

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/safepath"
)

// linkDir is the open directory of the last hard link's target. Links to files of one directory
// often follow one another.
type linkDir struct {
	path string
	fd   int
	open bool
}

func (u *unpacker) close() {
	u.leave(0)
	u.closeLinkDir()
}

func (u *unpacker) closeLinkDir() {
	if u.links.open {
		unix.Close(u.links.fd)
		u.links.open = false
	}
}

// leave closes the directories of the stack from index n on.
func (u *unpacker) leave(n int) {
	for _, d := range u.stack[min(n, len(u.stack)):] {
		unix.Close(d.fd)
	}
	u.stack = u.stack[:min(n, len(u.stack))]
}

// enter opens the directory path (clean, "" for the root). Entries mostly come in the order of a
// walk, so the directories that this path has in common with the previous one stay open. If create
// is set, missing directories are made, and files with their names are removed. Otherwise the error
// is ENOENT or ENOTDIR. The result is valid until the next call.
func (u *unpacker) enter(path []byte, create bool) (*node, error) {
	top := len(u.stack) - 1
	for ; top > 0; top-- {
		end := u.stack[top].end
		if end <= len(path) && bytes.Equal(u.path[:end], path[:end]) &&
			(end == len(path) || path[end] == '/') {
			break
		}
	}
	u.leave(top + 1)
	u.path = u.path[:u.stack[top].end]
	for len(u.path) < len(path) {
		rest := path[len(u.path):]
		if len(u.path) > 0 {
			rest = rest[1:]
		}
		part, _, _ := bytes.Cut(rest, []byte("/"))
		if err := u.step(part, create); err != nil {
			return nil, err
		}
	}
	return &u.stack[len(u.stack)-1], nil
}

// step opens a directory inside the last one of the stack.
func (u *unpacker) step(part []byte, create bool) error {
	parent := u.stack[len(u.stack)-1]
	u.part = append(append(u.part[:0], part...), 0)
	if len(u.path) > 0 {
		u.path = append(u.path, '/')
	}
	u.path = append(u.path, part...)
	fd, err := dirfd.OpenDir(parent.fd, u.part)
	if err == unix.ENOENT && create {
		fd, err = u.imply(parent.fd, false)
	}
	// For a link the error depends on the kernel's version.
	if err == unix.ENOTDIR || err == unix.ELOOP {
		fd, err = u.notDir(parent.fd, create)
	}
	if err != nil {
		u.path = u.path[:parent.end]
		return err
	}
	n := node{fd: fd, end: len(u.path), setgid: parent.setgid, acl: parent.acl}
	m := u.dirs[string(u.path)]
	if m == nil || m.existed {
		if n, err = u.examine(fd); err != nil {
			unix.Close(fd)
			u.path = u.path[:parent.end]
			return err
		}
	}
	if err := u.restoreLater(fd, string(u.path)); err != nil {
		unix.Close(fd)
		u.path = u.path[:parent.end]
		return err
	}
	u.stack = append(u.stack, n)
	return nil
}

// restoreLater records the time of a directory that may already have its attributes, before a file
// is made in it. The time is set again at the end.
func (u *unpacker) restoreLater(fd int, path string) error {
	if !u.flushed || u.flushing || u.dirs[path] != nil || path == "" {
		return nil
	}
	var st dirfd.Stat
	if err := dirfd.Fstat(fd, &st); err != nil {
		return err
	}
	u.dirs[path] = &dirMeta{sec: st.Mtime.Sec, nsec: int64(st.Mtime.Nsec),
		existed: true, restore: true}
	return nil
}

// imply makes and opens the directory u.path, which the stream has not listed yet.
func (u *unpacker) imply(parent int, opaque bool) (int, error) {
	if err := dirfd.Mkdir(parent, u.part, 0o700); err != nil {
		return -1, fmt.Errorf("make directory: %w", err)
	}
	m := &dirMeta{mode: 0o755, implied: true, opaque: opaque}
	if u.o.Owner != nil {
		m.uid, m.gid = uint32(u.o.Owner.UID), uint32(u.o.Owner.GID)
	}
	u.dirs[string(u.path)] = m
	u.implied[string(u.path)] = struct{}{}
	if u.made != nil {
		u.made[u.nameHash(string(u.path))] = struct{}{}
	}
	if err := u.keepName(u.path, impliedMemory); err != nil {
		return -1, err
	}
	return dirfd.OpenDir(parent, u.part)
}

// notDir handles a part of a path, u.path, that is not a directory. A link is followed inside the
// root, as a process with that root directory would follow it. Any other file is removed.
func (u *unpacker) notDir(parent int, create bool) (int, error) {
	var st dirfd.Stat
	if err := dirfd.Lstat(parent, u.part, &st); err != nil {
		return -1, err
	}
	if dirfd.Type(&st) == unix.S_IFLNK {
		return u.follow(create)
	}
	if !create {
		return -1, unix.ENOTDIR
	}
	if err := u.remove(parent, u.part, string(u.path)); err != nil {
		return -1, err
	}
	return u.imply(parent, u.overlay() && dirfd.IsWhiteout(&st))
}

func (u *unpacker) follow(create bool) (int, error) {
	path := string(u.path)
	if u.overlay() {
		return -1, fmt.Errorf("%w: %q is a link", ErrNeedsParent, path)
	}
	if !u.ended && !slices.Contains(u.followed, path) {
		u.followed = append(u.followed, path)
	}
	root, name := u.linkRoot(path)
	fd, err := safepath.InRoot(root, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if !errors.Is(err, unix.ENOENT) || !create {
		return fd, err
	}
	made, err := safepath.MkdirAll(root, name, 0o755, func(parent int, base string) error {
		uid, gid := 0, 0
		if u.o.Owner != nil {
			uid, gid = u.o.Owner.UID, u.o.Owner.GID
		}
		if err := unix.Fchownat(parent, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			if err := u.ownerError(uint32(uid), uint32(gid), err); err != nil {
				return err
			}
		}
		return unix.Fchmodat(parent, base, 0o755, 0)
	})
	if err != nil {
		return -1, err
	}
	unix.Close(made)
	return safepath.InRoot(root, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// linkRoot returns the directory in which the links of path are resolved, and the name of path in
// it.
func (u *unpacker) linkRoot(path string) (int, string) {
	if l := u.o.Links; l != nil {
		return l.Dir, l.Path + "/" + path
	}
	return u.stack[0].fd, path
}

// leadsToDir reports whether path is a link to a directory inside the root.
func (u *unpacker) leadsToDir(path string) bool {
	root, name := u.linkRoot(path)
	fd, err := safepath.InRoot(root, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// remove removes the file or directory name in dir, with everything in it. path is its path.
func (u *unpacker) remove(dir int, name []byte, path string) error {
	err := dirfd.Unlink(dir, name, 0)
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	u.closeLinkDir() // the target's directory may be below
	if err := dirfd.RemoveTree(dir, name); err != nil {
		return fmt.Errorf("remove what was there: %w", err)
	}
	inside := func(p string) bool {
		return strings.HasPrefix(p, path) && (len(p) == len(path) || p[len(path)] == '/')
	}
	maps.DeleteFunc(u.dirs, func(p string, _ *dirMeta) bool { return inside(p) })
	maps.DeleteFunc(u.implied, func(p string, _ struct{}) bool { return inside(p) })
	return nil
}

// hardlink adds a name to an existing file.
func (u *unpacker) hardlink(h *Header, dir *node, name []byte) error {
	target := cleanName(u.tgt[:0], h.Link)
	if u.tgt = append(target, 0); len(target) == 0 {
		return bad("a hard link to the root")
	}
	if bytes.Equal(target, u.clean) {
		return nil
	}
	parent, base := split(target)
	base = u.tgt[len(target)-len(base):]
	err := u.create(dir, name, func() error {
		// Open the directory each time: removing the old file may have closed the earlier
		// descriptor.
		from, err := u.linkTarget(parent, dir)
		if err != nil {
			return err
		}
		var st dirfd.Stat
		if err := dirfd.Lstat(from, base, &st); err != nil {
			return err
		}
		if u.overlay() && dirfd.IsWhiteout(&st) {
			return unix.ENOENT
		}
		return dirfd.Link(from, base, dir.fd, name)
	})
	if errors.Is(err, unix.ENOENT) && u.overlay() {
		err = ErrNeedsParent
	}
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", h.Link, err)
	}
	return nil
}

// linkTarget opens the directory of a hard link's target. dir is the directory of the new name.
func (u *unpacker) linkTarget(path []byte, dir *node) (int, error) {
	if bytes.Equal(path, u.path[:dir.end]) {
		return dir.fd, nil
	}
	if u.links.open && u.links.path == string(path) {
		return u.links.fd, nil
	}
	u.closeLinkDir()
	name, root := string(path), u.stack[0].fd
	fd, err := safepath.NoLinks(root, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		if u.overlay() {
			return -1, ErrNeedsParent
		}
		linkRoot, inside := u.linkRoot(name)
		fd, err = safepath.InRoot(linkRoot, inside, unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return -1, err
	}
	u.links = linkDir{path: name, fd: fd, open: true}
	return fd, nil
}
