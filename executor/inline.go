package executor

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/safepath"
)

// inline makes a file with the given contents.
func (c *copier) inline(f *File) error {
	c.what, c.links = f.Name, nil
	stack, base, err := c.target(-1, &Item{Path: f.Name})
	if err != nil {
		return err
	}
	defer c.closeAll(stack)
	up := &stack[len(stack)-1]
	c.top = stack[0].dst
	file := &leaf{up: up, as: base, at: base, alone: true}
	st := unix.Stat_t{Mode: unix.S_IFREG | f.Mode}
	if f.Mode == 0 {
		st.Mode |= 0o644
	}
	mode := c.mode(&st)
	out := -1
	err = c.make(file, func() (err error) {
		out, err = unix.Openat(up.dst, base,
			unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode&0o777)
		return err
	})
	if err != nil {
		return c.fail("", err)
	}
	defer unix.Close(out)
	if _, err := fd(out).Write(f.Data); err != nil {
		return c.fail("", err)
	}
	if err := c.give(out, base, &st, created(up)); err != nil {
		return c.fail("", err)
	}
	if up.acl {
		if err := unix.Fremovexattr(out, accessACL); err != nil && err != unix.ENODATA {
			return c.fail("", err)
		}
	}
	if err := unix.Fchmod(out, mode); err != nil {
		return c.fail("", err)
	}
	if c.spec.Epoch != nil {
		if err := setTimes(out, unix.NsecToTimespec(*c.spec.Epoch*1e9)); err != nil {
			return c.fail("", err)
		}
	}
	return nil
}

// Unpacker unpacks f if it is an archive, and reports whether it is one. If it is not, nothing has
// been written, and any part of f may have been read.
type Unpacker func(f io.Reader, o UnpackOptions) (bool, error)

// UnpackOptions are the destination of an archive and how it is unpacked.
type UnpackOptions struct {
	// Dest makes the destination if it is missing, and opens it.
	Dest func() (ArchiveDest, error)
	// Owned is set if all files get the owner UID:GID and the owners in the archive are ignored.
	Owned    bool
	UID, GID int
	// OnOwnerError is called for an owner that cannot be set. If it is nil, such an owner is an
	// error.
	OnOwnerError func(path string, uid, gid int, err error)
	// OnStandIn is called for a device that cannot be made and that a regular file stands for, and
	// OnSkip for an attribute that cannot be set. If they are nil, these are errors.
	OnStandIn func(path string)
	OnSkip    func(path, what string, err error)
}

// ArchiveDest is the directory that an archive is unpacked into.
type ArchiveDest struct {
	Dir int
	// Root is the image's root directory, in which links are resolved, and Path is the path of Dir
	// in it.
	Root int
	Path string
}

// unpackFile unpacks a file into the destination if it is an archive.
func (c *copier) unpackFile(dir int, name string, e *Entry) (bool, error) {
	n, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC,
		0)
	if err != nil {
		return false, c.missing(e, "", err)
	}
	f := os.NewFile(uintptr(n), name)
	defer f.Close()
	dest := &archiveDest{c: c, fd: -1}
	defer dest.close()
	o := UnpackOptions{Dest: dest.open}
	if c.c.Chown != "" {
		o.Owned, o.UID, o.GID = true, c.own.uid, c.own.gid
	}
	if c.spec.SingleID {
		o.OnOwnerError = func(path string, uid, gid int, err error) {
			c.ownerError(path, owner{uid, gid}, unix.EINVAL)
		}
	}
	if c.spec.UserNS {
		o.OnStandIn = c.standsIn
		o.OnSkip = func(path, what string, _ error) {
			if c.result.AttrsLost == 0 {
				c.result.FirstAttr = path + ": " + what
			}
			c.result.AttrsLost++
		}
	}
	done, err := c.unpack(f, o)
	var st unix.Stat_t
	if serr := unix.Fstat(n, &st); serr != nil {
		return false, c.fail("", serr)
	}
	if !e.same(&st) { // check before err: the change may have caused it
		return false, &ChangedError{Path: c.source("")}
	}
	if err == nil {
		err = dest.finish()
	}
	if err != nil {
		return false, fmt.Errorf("unpack %s: %w", c.what, err)
	}
	return done, nil
}

// archiveDest is the destination of an archive. An existing directory keeps its mode, owner and
// time. A new one gets the mode 0755, also with --chmod. As in BuildKit, --chmod applies neither to
// it nor to the contents of archives.
type archiveDest struct {
	c       *copier
	fd      int
	existed bool
	st      unix.Stat_t // before unpacking
}

func (d *archiveDest) open() (ArchiveDest, error) {
	c, name := d.c, d.c.c.Dest
	if fd, err := openIn(c.root, name, unix.O_DIRECTORY); err == nil {
		d.existed = true
		unix.Close(fd)
	}
	at, err := c.mkdirAll(name, 0o755)
	if err != nil {
		return ArchiveDest{}, err
	}
	defer unix.Close(at)
	if d.fd, err = unix.Openat(at, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC,
		0); err != nil {
		return ArchiveDest{}, safepath.InRootError(name, err)
	}
	if err := unix.Fstat(d.fd, &d.st); err != nil {
		return ArchiveDest{}, safepath.InRootError(name, err)
	}
	place, err := pathOf(d.fd)
	return ArchiveDest{Dir: d.fd, Root: c.root, Path: place}, err
}

// finish restores the time of a destination that existed.
func (d *archiveDest) finish() error {
	if !d.existed {
		return nil
	}
	return setTimes(d.fd, d.st.Mtim)
}

func (d *archiveDest) close() {
	if d.fd >= 0 {
		unix.Close(d.fd)
	}
}

// pathOf returns the path of an open directory in this thread's root directory.
func pathOf(dir int) (string, error) {
	var buf [unix.PathMax]byte
	if err := unix.Fchdir(dir); err != nil {
		return "", err
	}
	n, err := unix.Getcwd(buf[:])
	if err != nil {
		return "", err
	}
	if n < 2 || buf[0] != '/' { // "(unreachable)": getcwd(2)
		return "", unix.ENOENT
	}
	return string(buf[:n-1]), nil
}

// runMkdir performs a Mkdir, in its own mount namespace.
func runMkdir(s *Spec, a *Mkdir, result *Result) error {
	if err := enterRoot(s.Root); err != nil {
		return err
	}
	unix.Umask(0)
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	own := owner{}
	if a.User != "" {
		// As with COPY --chown, a name that the image does not have is 0. The RUN that uses the
		// name reports it.
		if own, _, err = lookupOwner(root, a.User); err != nil {
			return err
		}
	}
	c := &copier{spec: s, root: root, result: result, c: &Copy{Dest: a.Path}}
	fd, err := safepath.MkdirAll(root, a.Path, 0o755, func(parent int, base string) error {
		return c.made(parent, base, own)
	})
	if err != nil {
		return fmt.Errorf("make the directory %w", safepath.InRootError(a.Path, err))
	}
	unix.Close(fd)
	return nil
}
