package copyfs

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/fileentry"
	"github.com/layerbuild/layerbuild/internal/safepath"
)

// leaf is a file that is copied, of any type but a directory.
type leaf struct {
	up    *frame
	src   int    // the source directory that contains it
	name  string // in src
	as    string // in up.dst
	at    string // below the item's top
	alone bool   // it is the item itself, not a file below it
}

func (c *copier) sourceOf(f *leaf) string {
	if f.alone {
		return c.source("")
	}
	return c.source(f.at)
}

func (c *copier) leaf(f *leaf, e *fileentry.Entry, st *unix.Stat_t) error {
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = c.regular(f, e, st)
	case unix.S_IFLNK:
		err = c.symlink(f, e, st)
	case unix.S_IFSOCK:
		// Layers cannot contain sockets, and a socket is useless without the process that listens
		// on it.
	default:
		err = c.special(f, st)
	}
	switch err.(type) {
	case nil, *inTheWay, *ChangedError:
		return err
	}
	return fmt.Errorf("copy %s: %w", c.sourceOf(f), err)
}

// inTheWay is returned when a file would replace a directory at the destination.
type inTheWay struct{ path string }

func (e *inTheWay) Error() string {
	return fmt.Sprintf("cannot replace to directory %s with file", e.path)
}

// sameDir reports whether a directory is unchanged since it was digested. st is its status after
// its attributes were copied; attrs is set if it had any. Unlike Entry.Same it accepts another
// ctime if neither the digest nor the copy has attributes: then only the names in the directory may
// have changed, and the copy has the names that were digested.
func sameDir(e *fileentry.Entry, st *unix.Stat_t, attrs bool) bool {
	now := fileentry.FromStat(st)
	if !e.Attrs && !attrs {
		now.CtimeNs = e.CtimeNs
	}
	return e.Same(now)
}

// copied reports whether an extended attribute is copied. Attributes that a layer cannot hold are
// copied too: the sealer warns of them.
func copied(name []byte) bool { return dirfd.InLayer(name) || dirfd.Unrecorded(name) }

// make calls create. If the name exists, make removes it and calls create again.
func (c *copier) make(f *leaf, create func() error) error {
	err := create()
	if err != unix.EEXIST {
		return err
	}
	switch err := unix.Unlinkat(f.up.dst, f.as, 0); err {
	case nil, unix.ENOENT:
		return create()
	case unix.EISDIR, unix.EPERM:
		var st unix.Stat_t
		if unix.Fstatat(f.up.dst, f.as, &st, unix.AT_SYMLINK_NOFOLLOW) == nil &&
			st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return &inTheWay{c.destPath(f.at)}
		}
		return err
	default:
		return err
	}
}

// created returns the initial owner of a new file in a directory.
func created(up *frame) Owner {
	if up.now.Mode&unix.S_ISGID != 0 {
		return Owner{0, int(up.now.Gid)}
	}
	return Owner{}
}

func (c *copier) regular(f *leaf, e *fileentry.Entry, st *unix.Stat_t) error {
	if st.Nlink > 1 && !c.isStandIn(f) {
		if done, err := c.link(f, st); done || err != nil {
			return err
		}
	}
	in, err := unix.Openat(f.src, f.name, unix.O_RDONLY|unix.O_NOFOLLOW|
		unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT || err == unix.ELOOP || err == unix.ENXIO {
		return &ChangedError{Path: c.sourceOf(f)}
	}
	if err != nil {
		return err
	}
	defer unix.Close(in)
	mode := c.mode(st)
	out := -1
	err = c.make(f, func() (err error) {
		out, err = unix.Openat(f.up.dst, f.as,
			unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode&0o777)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(out)
	// it has become a directory or a fifo
	if err := c.data.Copy(in, out, st.Size, st.Blocks); err == unix.EISDIR || err == unix.EAGAIN {
		return &ChangedError{Path: c.sourceOf(f)}
	} else if err != nil {
		return err
	}
	// The owner comes first: chown(2) clears setuid bits and capabilities.
	if err := c.chown(out, f.at, st, created(f.up)); err != nil {
		return err
	}
	attrs, err := c.attributes(f.up, in, out)
	if err != nil {
		return err
	}
	if e.Known() { // this function reads nothing from in after this check
		var after unix.Stat_t
		if err := unix.Fstat(in, &after); err != nil {
			return err
		}
		if after.Size != st.Size || after.Mtim != st.Mtim || after.Ino != st.Ino ||
			after.Mode != st.Mode ||
			e.CtimeNs != 0 && after.Ctim != st.Ctim {
			return &ChangedError{Path: c.sourceOf(f)}
		}
	}
	// open(2) has set the mode except for the special bits. Setting an access control list changes
	// the mode. Setting the mode afterwards changes the list's mask, like chmod(1).
	if mode&0o7000 != 0 || c.wanted(st) != created(f.up) || attrs.acl {
		if err := unix.Fchmod(out, mode); err != nil {
			return err
		}
	}
	return dirfd.SetTime(out, nil, st.Mtim.Sec, st.Mtim.Nsec)
}

const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// hasDefaultACL reports whether an open directory has a default access control list, which new
// files in it inherit.
func hasDefaultACL(dir int) bool {
	_, err := unix.Fgetxattr(dir, defaultACL, nil)
	return err == nil
}

// copiedAttrs describes the attributes that were copied to a file.
type copiedAttrs struct {
	any bool // there were some
	acl bool // the file has or had an access control list, so that its mode must be set
}

// attributes copies the attributes of from to the new file or directory to, which is in up. It
// removes the access control list that to inherited from up.
func (c *copier) attributes(up *frame, from, to int) (a copiedAttrs, err error) {
	if up != nil && up.acl {
		a.acl = true
		for _, name := range []string{accessACL, defaultACL} {
			if err := unix.Fremovexattr(to, name); err != nil && err != unix.ENODATA &&
				err != unix.ENOTSUP {
				return a, fmt.Errorf("remove the inherited %s: %w", name, err)
			}
		}
	}
	return a, c.copyAttrs(from, to, &a)
}

// link makes a hard link if another name of the file was already copied, and reports whether it
// did. Otherwise it records the name.
func (c *copier) link(f *leaf, st *unix.Stat_t) (bool, error) {
	key := inode{st.Dev, st.Ino}
	first, ok := c.links[key]
	if !ok {
		if c.links == nil {
			c.links = map[inode]string{}
		}
		c.links[key] = f.at
		return false, nil
	}
	return true, c.make(f, func() error { return safepath.Link(c.top, first, f.up.dst, f.as) })
}

func (c *copier) symlink(f *leaf, e *fileentry.Entry, st *unix.Stat_t) error {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(f.src, f.name, buf[:])
	if err == unix.ENOENT || err == unix.EINVAL {
		return &ChangedError{Path: c.sourceOf(f)}
	}
	if err != nil {
		return err
	}
	if e.Known() {
		// The name may refer to another link since st was read.
		var after unix.Stat_t
		err := unix.Fstatat(f.src, f.name, &after, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil || after.Ino != st.Ino || after.Ctim != st.Ctim {
			return &ChangedError{Path: c.sourceOf(f)}
		}
	}
	if err := c.make(f, func() error {
		return unix.Symlinkat(string(buf[:n]), f.up.dst, f.as)
	}); err != nil {
		return err
	}
	return c.finishAt(f, st)
}

// special copies a device or fifo.
func (c *copier) special(f *leaf, st *unix.Stat_t) error {
	mode := c.mode(st) | st.Mode&unix.S_IFMT
	err := c.make(f, func() error { return unix.Mknodat(f.up.dst, f.as, mode, int(st.Rdev)) })
	if err == unix.EPERM && c.opts.UserNS {
		err = c.standIn(f, st)
	}
	if err != nil {
		return err
	}
	return c.finishAt(f, st)
}

// standIn makes a regular file that stands for a device. The caller sets its owner and time.
func (c *copier) standIn(f *leaf, st *unix.Stat_t) error {
	mode := c.mode(st)
	fd, err := unix.Openat(f.up.dst, f.as,
		unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode&0o777)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	d := dirfd.Device{Block: st.Mode&unix.S_IFMT == unix.S_IFBLK, Major: unix.Major(st.Rdev),
		Minor: unix.Minor(st.Rdev)}
	if err := d.Mark(fd); err != nil {
		return fmt.Errorf("cannot make a device node in a user namespace, and cannot mark the "+
			"file that would stand for it: %w", err)
	}
	c.standsIn(c.destPath(f.at))
	return unix.Fchmod(fd, mode)
}

// isStandIn reports whether a regular file of the source stands for a device. Several names of a
// device are copied as separate devices.
func (c *copier) isStandIn(f *leaf) bool {
	if !c.copy.StandIns || !c.opts.UserNS {
		return false
	}
	// do not use /proc, which is not mounted
	fd, err := unix.Openat(f.src, f.name, unix.O_RDONLY|unix.O_NOFOLLOW|
		unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	_, err = unix.Fgetxattr(fd, dirfd.DeviceMark, nil)
	return err == nil
}

// standsIn counts a file as the stand-in of a device.
func (c *copier) standsIn(path string) {
	if c.result.StandIns == 0 {
		c.result.FirstStandIn = path
	}
	c.result.StandIns++
}

// finishAt sets the owner and time of a file that cannot be opened, by its name.
func (c *copier) finishAt(f *leaf, st *unix.Stat_t) error {
	up, as := f.up, f.as
	if want := c.wanted(st); want != created(up) {
		err := unix.Fchownat(up.dst, as, want.UID, want.GID, unix.AT_SYMLINK_NOFOLLOW)
		if err := c.ownerError(c.destPath(f.at), want, err); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK && c.mode(st)&0o6000 != 0 {
			// not a link: it has just been made
			if err := unix.Fchmodat(up.dst, as, c.mode(st), 0); err != nil {
				return err
			}
		}
	}
	return unix.UtimesNanoAt(up.dst, as, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, st.Mtim},
		unix.AT_SYMLINK_NOFOLLOW)
}

// copyAttrs copies the extended attributes that a layer can have: file capabilities, access control
// lists and user attributes. It leaves out overlay's attributes, which would change the merged
// view, and SELinux labels, which belong to the machine. It records the copied attributes in a.
func (c *copier) copyAttrs(from, to int, a *copiedAttrs) error {
	all, err := dirfd.Xattrs(from, func(name []byte) bool {
		if string(name) == dirfd.DeviceMark {
			return c.copy.StandIns && c.opts.UserNS
		}
		return copied(name)
	})
	if err != nil {
		return fmt.Errorf("read its extended attributes: %w", err)
	}
	for _, x := range all {
		isACL := x.Name == accessACL || x.Name == defaultACL
		a.any, a.acl = true, a.acl || isACL
		switch err := unix.Fsetxattr(to, x.Name, x.Value, 0); {
		case err == nil:
		case err == unix.ENOTSUP: // tmpfs has no user attributes before Linux 6.6
		case err == unix.EINVAL && isACL && c.opts.UserNS:
			c.warnACL()
		default:
			return fmt.Errorf("copy its extended attribute %s: %w", x.Name, err)
		}
	}
	return nil
}

// warnACL warns once about an access control list with ids that are not mapped in the user
// namespace.
func (c *copier) warnACL() {
	if !c.aclLost {
		c.result.Warnings = append(c.result.Warnings,
			"access control lists were not copied: they name users or groups that this user "+
				"namespace does not have")
	}
	c.aclLost = true
}
