package stagedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// Options are the options of Commit. The zero value works.
type Options struct {
	// Keep reports whether an existing directory keeps its owner, mode, attributes and time.
	// Otherwise it gets those of the new directory. path is relative to the destination, which
	// always keeps its own attributes. If Keep is nil, all directories keep theirs.
	Keep func(path string) bool
	// Last is a name in the destination whose entry is moved after all others.
	Last string
	// Elsewhere has the directories in the result of Check, whose contents are not moved.
	Elsewhere []string
	// OnOwnerError and OnSkip are like those of unpack.Options: they are called for an owner or an
	// attribute that an existing directory cannot get. If they are nil, such an owner or attribute
	// is an error.
	OnOwnerError func(path string, uid, gid int, err error)
	OnSkip       func(path, what string, err error)
}

// Check returns an error if the tree cannot be moved to its destination in its current state,
// because a directory there cannot be written to or a directory that is to be replaced contains a
// mount. It returns the directories of the tree, relative to the destination, that are on other
// mounts there: rename(2) cannot move files into them. It changes nothing.
func (d *Dir) Check() (elsewhere []string, err error) {
	if !d.exists {
		return nil, nil
	}
	m := merger{d: d}
	err = m.start()
	return m.elsewhere, err
}

// Commit moves the tree to the destination. It replaces existing entries, except that it merges a
// directory into an existing directory. It does not follow links at the destination. It calls Check
// first, so that most errors leave the destination unchanged.
func (d *Dir) Commit(o Options) error {
	if !d.exists {
		err := d.appear()
		if err != unix.EEXIST {
			return pathError("rename", d.place, err)
		}
		d.exists = true // another process has just made it
	}
	elsewhere, err := d.Check()
	if err != nil {
		return err
	}
	for _, path := range elsewhere {
		if !slices.Contains(o.Elsewhere, path) {
			return &fs.PathError{Op: "move files to",
				Path: filepath.Join(d.place, path), Err: unix.EXDEV}
		}
	}
	m := merger{d: d, o: o, move: true}
	return m.start()
}

// appear renames the content to a destination that does not exist. It returns EEXIST if the
// destination exists.
func (d *Dir) appear() error {
	from := filepath.Join(d.holder, content)
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, d.place, unix.RENAME_NOREPLACE)
	if noFlags(err) {
		// rename(2) replaces a directory only if it is empty.
		if err = unix.Rename(from, d.place); err == unix.ENOTEMPTY {
			err = unix.EEXIST
		}
	}
	return err
}

// noFlags reports whether an error of renameat2(2) means that the file system or the kernel does
// not support its flags.
func noFlags(err error) bool { return err == unix.EINVAL || err == unix.ENOSYS }

// pathError adds a path to an error of a system call.
func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// merger walks the directories that a tree and its destination both have.
type merger struct {
	d         *Dir
	o         Options
	move      bool // false: only check
	mount     mount
	elsewhere []string
	replaced  int // number of entries that have been moved into the holder
}

func (m *merger) start() error {
	from, err := os.Open(filepath.Join(m.d.holder, content))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Open(m.d.place)
	if err != nil {
		return err
	}
	defer to.Close()
	if m.mount, err = mountAt(int(from.Fd())); err != nil {
		return pathError("statx", from.Name(), err)
	}
	return m.dir(int(from.Fd()), int(to.Fd()), "")
}

func mountAt(fd int) (mount, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st)
	return mountOf(&st), err
}

// dir merges the open directory from into to. path is the path of both below the place.
func (m *merger) dir(from, to int, path string) error {
	var names, there dirfd.Names
	if err := names.Read(from); err != nil {
		return m.failed("read", path, err)
	}
	if err := there.Read(to); err != nil {
		return m.failed("read", path, err)
	}
	there.Sort()
	if !m.move && len(names.Entries) > 0 {
		if err := unix.Faccessat(to, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
			return m.failed("write to", path, err)
		}
	}
	if path == m.d.rest {
		if i := slices.IndexFunc(names.Entries,
			func(e dirfd.Dirent) bool { return string(names.Name(e)) == m.o.Last }); i >= 0 {
			names.Entries = append(slices.Delete(slices.Clone(names.Entries), i, i+1),
				names.Entries[i])
		}
	}
	for _, e := range names.Entries {
		old, exists := there.Find(names.Name(e))
		if !exists && !m.move {
			continue
		}
		entry := entry{
			from: from, to: to, name: names.CName(e),
			path:  filepath.Join(path, string(names.Name(e))),
			isDir: isDir(from, names.CName(e), e.Type),
		}
		var err error
		switch {
		case !exists:
			err = m.add(entry)
		case entry.isDir && isDir(to, there.CName(old), old.Type):
			err = m.both(entry)
		default:
			err = m.replace(entry, isDir(to, there.CName(old), old.Type))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isDir reports whether an entry is a directory. typ is the type from getdents64(2), which may be
// unknown.
func isDir(dir int, name []byte, typ uint8) bool {
	if typ != unix.DT_UNKNOWN {
		return typ == unix.DT_DIR
	}
	var st dirfd.Stat
	return dirfd.Lstat(dir, name, &st) == nil && dirfd.Type(&st) == unix.S_IFDIR
}

// entry is a name that is both in a directory of the tree and in the same directory of the
// destination.
type entry struct {
	from, to int
	name     []byte // with its NUL
	path     string // path below the place
	isDir    bool   // it is a directory in the tree
}

func (e entry) base() string { return string(e.name[:len(e.name)-1]) }

// add moves an entry that the destination does not have.
func (m *merger) add(e entry) error {
	err := m.rename(e, unix.RENAME_NOREPLACE)
	if noFlags(err) {
		err = m.rename(e, 0)
	}
	if err != unix.EEXIST {
		return m.failed("move", e.path, err)
	}
	// Another process has made it meanwhile.
	old := isDir(e.to, e.name, unix.DT_UNKNOWN)
	if e.isDir && old {
		return m.both(e)
	}
	return m.replace(e, old)
}

// both merges a directory into an existing one.
func (m *merger) both(e entry) error {
	from, err := dirfd.OpenDir(e.from, e.name)
	if err != nil {
		return m.failed("open", e.path, err)
	}
	defer unix.Close(from)
	to, err := dirfd.OpenDir(e.to, e.name)
	if err != nil {
		return m.failed("open", e.path, err)
	}
	defer unix.Close(to)
	at, err := mountAt(to)
	if err != nil {
		return m.failed("statx", e.path, err)
	}
	if at != m.mount {
		m.elsewhere = append(m.elsewhere, m.inDest(e.path))
	} else if err := m.dir(from, to, e.path); err != nil {
		return err
	}
	if !m.move || m.keeps(e.path) {
		return nil
	}
	return m.attributes(from, to, e.path)
}

// replace replaces an entry at the destination. One of the two may be a directory. Unless both are
// files, replace exchanges the old one and the new one. This moves the old one into the holder,
// with which it is removed.
func (m *merger) replace(e entry, oldIsDir bool) error {
	if !m.move {
		if oldIsDir {
			return m.failed("replace", e.path, m.withoutMounts(e.to, e.name))
		}
		return nil
	}
	if !e.isDir && !oldIsDir {
		return m.failed("move", e.path, m.rename(e, 0))
	}
	err := m.rename(e, unix.RENAME_EXCHANGE)
	if noFlags(err) {
		m.replaced++
		aside := fmt.Sprint(replaced, m.replaced)
		if err = unix.Renameat(e.to, e.base(), int(m.d.lock.File().Fd()), aside); err == nil {
			err = m.rename(e, 0)
		}
	}
	return m.failed("move", e.path, err)
}

// rename moves an entry to the destination.
func (m *merger) rename(e entry, flags uint) error {
	err := unix.Renameat2(e.from, e.base(), e.to, e.base(), flags)
	if flags == 0 && err == unix.ENOSYS {
		err = unix.Renameat(e.from, e.base(), e.to, e.base())
	}
	if err != unix.EACCES || !e.isDir {
		return err
	}
	// The rename changes the directory's "..", for which the owner needs write permission on it.
	var st dirfd.Stat
	fd, err := dirfd.OpenDir(e.from, e.name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := dirfd.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&0o200 != 0 {
		return unix.EACCES
	}
	if err := unix.Fchmod(fd, uint32(st.Mode)&0o7777|0o200); err != nil {
		return err
	}
	err = unix.Renameat2(e.from, e.base(), e.to, e.base(), flags)
	return errors.Join(err, unix.Fchmod(fd, uint32(st.Mode)&0o7777))
}

// withoutMounts returns an error if a directory that is to be removed contains a mount.
func (m *merger) withoutMounts(dir int, name []byte) error {
	fd, err := dirfd.OpenDir(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch at, err := mountAt(fd); {
	case err != nil:
		return err
	case at != m.mount:
		return unix.EBUSY
	}
	var names dirfd.Names
	if err := names.Read(fd); err != nil {
		return err
	}
	for _, e := range names.Entries {
		if isDir(fd, names.CName(e), e.Type) {
			if err := m.withoutMounts(fd, names.CName(e)); err != nil {
				return err
			}
		}
	}
	return nil
}

// inDest converts a path below the place to a path below the destination.
func (m *merger) inDest(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, m.d.rest), "/")
}

// keeps reports whether an existing directory keeps its attributes.
func (m *merger) keeps(path string) bool {
	above := path == m.d.rest || strings.HasPrefix(m.d.rest, path+"/")
	return above || m.o.Keep == nil || m.o.Keep(m.inDest(path))
}

// attributes copies the owner, attributes, mode and time of from to the directory to, in the order
// of package unpack.
func (m *merger) attributes(from, to int, path string) error {
	var want, have dirfd.Stat
	if err := errors.Join(dirfd.Fstat(from, &want), dirfd.Fstat(to, &have)); err != nil {
		return m.failed("stat", path, err)
	}
	if want.Uid != have.Uid || want.Gid != have.Gid {
		err := unix.Fchown(to, int(want.Uid), int(want.Gid))
		switch {
		case err == nil:
		case m.o.OnOwnerError != nil && (err == unix.EPERM || err == unix.EINVAL):
			m.o.OnOwnerError(m.inDest(path), int(want.Uid), int(want.Gid), err)
		default:
			return m.failed("set the owner of", path, err)
		}
	}
	xattrs, err := dirfd.Xattrs(from, dirfd.InLayer)
	if err != nil {
		return m.failed("list attributes of", path, err)
	}
	for _, x := range xattrs {
		err := unix.Fsetxattr(to, x.Name, x.Value, 0)
		switch {
		case err == nil:
		case m.o.OnSkip != nil && (err == unix.ENOTSUP || err == unix.EPERM || err == unix.EINVAL):
			m.o.OnSkip(m.inDest(path), "attribute "+x.Name, err)
		default:
			return m.failed("set attribute "+x.Name+" of", path, err)
		}
	}
	if err := unix.Fchmod(to, uint32(want.Mode)&0o7777); err != nil {
		return m.failed("set the mode of", path, err)
	}
	return m.failed("set the time of", path,
		dirfd.SetTime(to, nil, want.Mtime.Sec, int64(want.Mtime.Nsec)))
}

func (m *merger) failed(op, path string, err error) error {
	return pathError(op, filepath.Join(m.d.place, path), err)
}
