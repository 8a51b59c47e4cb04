package unpack

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// OCI image spec v1.1.1, layer.md: "Whiteouts" and "Opaque Whiteout".
const (
	WhiteoutPrefix = ".wh."
	OpaqueName     = ".wh..wh..opq"
	aufsPrefix     = ".wh..wh." // aufs's own data; images use only the opaque mark
)

// whiteout applies the names that have a meaning in a layer. handled reports whether base in parent
// is such a name.
func (u *unpacker) whiteout(parent, base []byte) (handled bool, err error) {
	if bytes.Contains(parent, []byte(WhiteoutPrefix)) {
		for part := range bytes.SplitSeq(parent, []byte("/")) {
			if bytes.HasPrefix(part, []byte(aufsPrefix)) {
				return true, nil
			}
			if bytes.HasPrefix(part, []byte(WhiteoutPrefix)) {
				return true, bad("a name below the whiteout %q", part)
			}
		}
	}
	name, ok := bytes.CutPrefix(base, []byte(WhiteoutPrefix))
	if !ok {
		return false, nil
	}
	if string(base) == OpaqueName {
		return true, u.opaque(parent)
	}
	if bytes.HasPrefix(base, []byte(aufsPrefix)) {
		return true, nil
	}
	if len(name) == 0 || string(name) == "." || string(name) == ".." {
		return true, bad("a whiteout of %q", name)
	}
	// From here on u.base is the name that the entry hides.
	u.base = append(append(u.base[:0], name...), 0)
	u.clean = append(u.clean[:len(u.clean)-len(base)], u.base[:len(u.base)-1]...)
	parent, _ = split(u.clean)
	if u.o.Whiteouts == Delete {
		dir, err := u.enter(parent, lookUp)
		if gone(err) {
			return true, nil
		}
		if err != nil {
			return true, err
		}
		if u.isPurged(string(parent)) {
			return true, nil
		}
		return true, u.purge(dir.fd, u.base, string(u.clean))
	}
	dir, err := u.enter(parent, forMarks)
	if gone(err) {
		return true, nil // the layer itself hides the directory
	}
	if err != nil {
		return true, err
	}
	err = dirfd.Mknod(dir.fd, u.base, unix.S_IFCHR, 0)
	if err == unix.EEXIST && u.implied[string(u.clean)].Bare {
		if err := u.remove(dir.fd, u.base, string(u.clean)); err != nil {
			return true, err
		}
		err = dirfd.Mknod(dir.fd, u.base, unix.S_IFCHR, 0)
	}
	if err == unix.EEXIST {
		// The layer also has an entry with that name. A whiteout hides only the layers below, and a
		// file hides them anyway.
		return true, u.whiteoutOfOwn(dir)
	}
	if err != nil {
		return true, fmt.Errorf("make a whiteout: %w", err)
	}
	u.stats.Whiteouts = append(u.stats.Whiteouts, string(u.clean))
	return true, u.keepName(u.clean, whiteoutMemory)
}

// whiteoutOfOwn handles a whiteout of u.base in dir, if the layer has an entry with that name, too.
// A directory of that name becomes opaque.
func (u *unpacker) whiteoutOfOwn(dir *node) error {
	if m := u.dirs[string(u.clean)]; m != nil && !m.restore {
		m.opaque, u.marked = true, true
		return nil
	}
	if !u.flushed {
		return nil
	}
	fd, err := dirfd.OpenDir(dir.fd, u.base)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return nil // a file
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return u.setOpaque(fd)
}

func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) }

// opaque hides the files of the layers below in a directory.
func (u *unpacker) opaque(path []byte) error {
	if u.o.Whiteouts != Delete {
		if len(path) == 0 {
			// Overlay does not look for the mark on its root.
			return fmt.Errorf("%w: the root is opaque", ErrNeedsParent)
		}
		dir, err := u.enter(path, forMarks)
		if gone(err) {
			return nil // the layer itself hides the directory
		}
		if err != nil {
			return err
		}
		dir.opaque = true
		return u.setOpaque(dir.fd)
	}
	dir, err := u.enter(path, lookUp)
	if gone(err) {
		return nil
	}
	if err != nil || u.isPurged(string(path)) {
		return err
	}
	return u.purgeIn(dir.fd, string(path))
}

func (u *unpacker) setOpaque(fd int) error {
	u.marked = true
	if err := unix.Fsetxattr(fd, u.opaqueXattr(), []byte("y"), 0); err != nil {
		return fmt.Errorf("make opaque: %w", err)
	}
	return nil
}

func (u *unpacker) opaqueXattr() string {
	if u.o.Whiteouts == OverlayUser {
		return dirfd.OverlayUserXattrs + "opaque"
	}
	return dirfd.OverlayXattrs + "opaque"
}

// isPurged reports whether purgeIn was called for a directory, or for one above it. Since then only
// the stream has made files there.
func (u *unpacker) isPurged(path string) bool {
	for !u.purged.empty() {
		if ok := u.purged.has(u.nameHash(path)); ok || path == "" {
			return ok
		}
		path = path[:max(strings.LastIndexByte(path, '/'), 0)]
	}
	return false
}

// purge removes a name, but not the files below it that were made from the stream.
func (u *unpacker) purge(dir int, name []byte, path string) error {
	made := u.made.has(u.nameHash(path))
	made = made || u.dirs[path] != nil && !u.dirs[path].restore
	u.closeLinkDir()
	var st dirfd.Stat
	if err := dirfd.Lstat(dir, name, &st); err != nil {
		if err == unix.ENOENT {
			return nil
		}
		return err
	}
	if dirfd.Type(&st) != unix.S_IFDIR {
		if made {
			return nil
		}
		return dirfd.Unlink(dir, name, 0)
	}
	fd, err := dirfd.OpenSame(dir, name)
	if err != nil {
		return err
	}
	err = u.purgeIn(fd, path)
	unix.Close(fd)
	if err != nil || made {
		return err
	}
	if err := dirfd.Unlink(dir, name, unix.AT_REMOVEDIR); err != nil {
		if err == unix.ENOTEMPTY {
			err = nil
		}
		return err
	}
	delete(u.dirs, path) // its name may become that of a link to another directory
	return nil
}

// purgeIn purges all names in a directory, once. Otherwise a layer with many marks for one
// directory would take quadratic time.
func (u *unpacker) purgeIn(fd int, path string) error {
	key := u.nameHash(path)
	if u.purged.has(key) {
		return nil
	}
	u.purged.add(key)
	if err := u.restoreLater(fd, path); err != nil {
		return err
	}
	var names dirfd.Names
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return err
	}
	if err := names.Read(fd); err != nil {
		return err
	}
	if path != "" {
		path += "/"
	}
	for _, e := range names.Entries {
		if err := u.purge(fd, names.CName(e), path+string(names.Name(e))); err != nil {
			return err
		}
	}
	return nil
}
