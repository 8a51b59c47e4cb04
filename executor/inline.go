package executor

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/safepath"
)

// inline makes a file from data.
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
		out, err = unix.Openat(up.dst, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode&0o777)
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

// Unpacker unpacks f if it is an archive, and says whether it is one. If it is not, nothing has been done, and f may
// have been read to any place.
type Unpacker func(f io.Reader, o UnpackOptions) (bool, error)

// UnpackOptions say where an archive is unpacked to and how.
type UnpackOptions struct {
	// Dest opens the destination, which it makes if it is missing.
	Dest func() (int, error)
	// Owned says that everything belongs to UID and GID, whatever the archive says.
	Owned    bool
	UID, GID int
	// OnOwnerError is told of an owner that can't be had. nil: it is an error.
	OnOwnerError func(path string, uid, gid int, err error)
}

// unpackFile unpacks a file into the destination if it is an archive.
func (c *copier) unpackFile(dir int, name string) (bool, error) {
	n, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, c.fail("", err)
	}
	f := os.NewFile(uintptr(n), name)
	defer f.Close()
	dest := -1
	o := UnpackOptions{Dest: func() (int, error) {
		var err error
		dest, err = c.mkdirAll(c.c.Dest)
		return dest, err
	}}
	if c.c.Chown != "" {
		o.Owned, o.UID, o.GID = true, c.own.uid, c.own.gid
	}
	if c.spec.SingleID {
		o.OnOwnerError = func(path string, uid, gid int, err error) {
			c.ownerError(path, owner{uid, gid}, unix.EINVAL)
		}
	}
	done, err := c.unpack(f, o)
	if dest >= 0 {
		unix.Close(dest)
	}
	if err != nil {
		return false, fmt.Errorf("unpack %s: %w", c.what, err)
	}
	return done, nil
}

// runMkdir does a Mkdir, in its own mount namespace.
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
		// As with COPY --chown, a name that the image does not know is 0: the RUN that uses it will say so.
		if own, _, err = lookupOwner(root, a.User); err != nil {
			return err
		}
	}
	c := &copier{spec: s, root: root, result: result, c: &Copy{Dest: a.Path}}
	fd, err := safepath.MkdirAll(root, a.Path, 0o755, func(parent int, base string) error {
		return c.made(parent, base, own)
	})
	if err != nil {
		return fmt.Errorf("make the directory %w", inImage(a.Path, err))
	}
	unix.Close(fd)
	return nil
}
