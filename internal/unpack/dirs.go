package unpack

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/safepath"
)

// linkDir is the open directory of the last hard link's target. Links to files of one directory
// often follow one another. It is closed before a name is removed: the directory could be below
// that name, or have been found through it.
type linkDir struct {
	path string
	fd   int
	open bool
	used bool // a file in it has got a link
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

// purpose determines what enter does if there is no directory at a path.
type purpose int

const (
	lookUp   purpose = iota // the error is ENOENT or ENOTDIR
	forFiles                // missing directories are made, and files with their names are removed
	// missing directories are made, to hide names of the layers below; the error is ENOTDIR if the
	// layer has a file or a whiteout with the name of one
	forMarks
)

// enter opens the directory path (clean, "" for the root). Entries mostly come in the order of a
// walk, so the directories that this path has in common with the previous one stay open. The result
// is valid until the next call.
func (u *unpacker) enter(path []byte, why purpose) (*node, error) {
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
	if why == forFiles {
		u.useBare()
	}
	for len(u.path) < len(path) {
		rest := path[len(u.path):]
		if len(u.path) > 0 {
			rest = rest[1:]
		}
		part, _, _ := bytes.Cut(rest, []byte("/"))
		if err := u.step(part, why); err != nil {
			return nil, err
		}
	}
	return &u.stack[len(u.stack)-1], nil
}

// useBare is called before a file is made in the last directory of the stack. The bare directories
// of the stack, which are its last ones, are bare no longer. If an entry has made a directory above
// opaque, they are new.
func (u *unpacker) useBare() {
	for i := len(u.stack) - 1; i > 0 && u.stack[i].bare; i-- {
		u.stack[i].bare = false
		d := u.implied[string(u.path[:u.stack[i].end])]
		d.Bare, d.New = false, u.stack[i-1].opaque
		u.implied[d.Path] = d
	}
}

// step opens a directory inside the last one of the stack.
func (u *unpacker) step(part []byte, why purpose) error {
	parent := u.stack[len(u.stack)-1]
	u.part = append(append(u.part[:0], part...), 0)
	if len(u.path) > 0 {
		u.path = append(u.path, '/')
	}
	u.path = append(u.path, part...)
	fd, err := dirfd.OpenDir(parent.fd, u.part)
	if err == unix.ENOENT && why != lookUp {
		fd, err = u.imply(parent, Implied{New: parent.opaque, Bare: why == forMarks})
	}
	// For a link the error depends on the kernel's version.
	if err == unix.ENOTDIR || err == unix.ELOOP {
		fd, err = u.notDir(parent, why)
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
	n.opaque = parent.opaque || u.marked && u.isOpaque(fd, m)
	u.stack = append(u.stack, n)
	if len(u.implied) > 0 {
		if u.stack[len(u.stack)-1].bare = u.implied[string(u.path)].Bare; why == forFiles {
			u.useBare()
		}
	}
	return nil
}

// restoreLater records the time of a directory that may already have its attributes, because the
// stream has listed it or a layer below has made it, before a file is made in it. The time is set
// again at the end.
func (u *unpacker) restoreLater(fd int, path string) error {
	if !u.flushed && u.o.Whiteouts != Delete || u.flushing || u.dirs[path] != nil {
		return nil
	}
	var st dirfd.Stat
	if err := dirfd.Fstat(fd, &st); err != nil {
		return err
	}
	// Through a link, a directory has a second path. Its time may have changed since it was entered
	// by the first one.
	id := [2]uint64{dirfd.Dev(&st), st.Ino}
	m := u.restored[id]
	if m == nil {
		m = &dirMeta{sec: st.Mtime.Sec, nsec: int64(st.Mtime.Nsec), existed: true, restore: true}
		u.restored[id] = m
	}
	u.setLater(path, m)
	return nil
}

// imply makes and opens the directory u.path, which the stream has not listed yet.
func (u *unpacker) imply(parent node, d Implied) (int, error) {
	if err := dirfd.Mkdir(parent.fd, u.part, 0o700); err != nil {
		return -1, fmt.Errorf("make directory: %w", err)
	}
	m := &dirMeta{mode: 0o755, implied: true}
	if u.o.Owner != nil {
		m.uid, m.gid = uint32(u.o.Owner.UID), uint32(u.o.Owner.GID)
	}
	d.Path = string(u.path)
	u.setLater(d.Path, m)
	u.implied[d.Path] = d
	u.isMade(u.path)
	if err := u.keepName(u.path, impliedMemory); err != nil {
		return -1, err
	}
	return dirfd.OpenDir(parent.fd, u.part)
}

// notImplied records that the directory path has an entry now, or is removed.
func (u *unpacker) notImplied(path string) {
	d, ok := u.implied[path]
	if !ok {
		return
	}
	delete(u.implied, path)
	if u.overlay() && !d.New {
		u.stats.Replaced = append(u.stats.Replaced, path)
	}
}

// notDir handles a part of a path, u.path, that is not a directory. A link is followed inside the
// root, as a process with that root directory would follow it. Any other file is removed.
func (u *unpacker) notDir(parent node, why purpose) (int, error) {
	var st dirfd.Stat
	if err := dirfd.Lstat(parent.fd, u.part, &st); err != nil {
		return -1, err
	}
	if dirfd.Type(&st) == unix.S_IFLNK {
		return u.follow(why == forFiles)
	}
	if why != forFiles {
		return -1, unix.ENOTDIR
	}
	if err := u.remove(parent.fd, u.part, string(u.path)); err != nil {
		return -1, err
	}
	fd, err := u.imply(parent, Implied{New: u.overlay()})
	if err == nil {
		u.dirs[string(u.path)].opaque = u.hidesBelow()
	}
	return fd, err
}

// hidesBelow is called when a directory takes the place of a file or a whiteout of the layer. It
// reports whether the directory must be opaque, to hide a directory of the layers below as that
// file or whiteout did.
func (u *unpacker) hidesBelow() bool {
	u.marked = u.marked || u.overlay()
	return u.overlay()
}

// isOpaque reports whether an open directory is opaque. m holds the attributes that it gets at the
// end; nil if it has them.
func (u *unpacker) isOpaque(fd int, m *dirMeta) bool {
	if m != nil && m.opaque {
		return true
	}
	var value [1]byte
	n, err := unix.Fgetxattr(fd, u.opaqueXattr(), value[:])
	return err == nil && n == 1 && value[0] == 'y'
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
	u.closeLinkDir()
	err := dirfd.Unlink(dir, name, 0)
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	err = dirfd.RemoveDirs(dir, name, path, func(path []byte) {
		delete(u.dirs, string(path))
		u.notImplied(string(path))
	})
	if err != nil {
		return fmt.Errorf("remove what was there: %w", err)
	}
	return nil
}

// hardlink adds a name to an existing file.
func (u *unpacker) hardlink(h *Header, dir *node, name []byte) error {
	target := cleanName(u.tgt[:0], h.Link)
	if u.tgt = append(target, 0); len(target) == 0 {
		return bad("a hard link to the root")
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
		if u.o.Whiteouts == Delete && from != dir.fd {
			return u.linkAlone(from, base, dir.fd, name)
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

// linkAlone makes a hard link to the file base of the directory from, and keeps the times of that
// directory and of those above it. fuse-overlayfs copies all of them to the upper directory and,
// unlike the kernel, does not restore their times.
func (u *unpacker) linkAlone(from int, base []byte, dir int, name []byte) error {
	type above struct {
		fd int
		st dirfd.Stat
	}
	var root dirfd.Stat
	if err := dirfd.Fstat(u.stack[0].fd, &root); err != nil {
		return err
	}
	list := []above{{fd: from}}
	defer func() {
		for _, d := range list[1:] {
			unix.Close(d.fd)
		}
	}()
	for {
		last := &list[len(list)-1]
		if err := dirfd.Fstat(last.fd, &last.st); err != nil {
			return err
		}
		if u.links.used || last.st.Ino == root.Ino && dirfd.Dev(&last.st) == dirfd.Dev(&root) {
			break
		}
		fd, err := dirfd.Open(last.fd, []byte("..\x00"), unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		list = append(list, above{fd: fd})
	}
	if err := dirfd.Link(from, base, dir, name); err != nil {
		return err
	}
	u.links.used = true
	for _, d := range list {
		if err := dirfd.SetTime(d.fd, []byte(".\x00"), d.st.Mtime.Sec,
			int64(d.st.Mtime.Nsec)); err != nil {
			return err
		}
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
