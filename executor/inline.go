package executor

import (
	"bufio"
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/safepath"
	"github.com/layerbuild/layerbuild/internal/unpack"
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

// unpack unpacks a file into the destination if it is an archive, which its contents say and not its name.
func (c *copier) unpack(dir int, name string) (bool, error) {
	n, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, c.fail("", err)
	}
	f := os.NewFile(uintptr(n), name)
	defer f.Close()
	r, _, err := unpack.Decompress(f)
	if err != nil {
		return false, nil // what it is then, is not for us to say: it is copied
	}
	defer r.Close()
	tar := bufio.NewReaderSize(r, 64<<10)
	if head, _ := tar.Peek(512); !unpack.IsTar(head) {
		return false, nil
	}
	dest, err := c.mkdirAll(c.c.Dest)
	if err != nil {
		return false, err
	}
	defer unix.Close(dest)
	o := unpack.Options{FollowDirLinks: true}
	if c.c.Chown != "" {
		o.Owner = &unpack.Owner{UID: c.own.uid, GID: c.own.gid}
	}
	if c.spec.SingleID {
		o.OnOwnerError = func(path string, uid, gid int, err error) {
			c.ownerError(path, owner{uid, gid}, unix.EINVAL)
		}
	}
	if _, err := unpack.Tar(context.Background(), tar, dest, o); err != nil {
		return false, fmt.Errorf("unpack %s: %w", c.what, err)
	}
	return true, nil
}

// runMkdir is the child of a Mkdir.
func runMkdir(j *job, a *Mkdir, result *Result) error {
	if err := enterRoot(j.spec.Root); err != nil {
		return err
	}
	unix.Umask(0)
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	own := owner{}
	if a.User != "" {
		// As with COPY --chown, a name that the image does not know is 0: the RUN that uses it will say so.
		if own, _, err = lookupOwner(root, a.User); err != nil {
			return err
		}
	}
	c := &copier{spec: &j.spec, root: root, result: result, c: &Copy{Dest: a.Path}}
	fd, err := safepath.MkdirAll(root, a.Path, 0o755, func(parent int, base string) error {
		return c.made(parent, base, own)
	})
	if err != nil {
		return fmt.Errorf("make the directory %w", inImage(a.Path, err))
	}
	unix.Close(fd)
	return nil
}
