package copyfs

import (
	"github.com/layerbuild/layerbuild/internal/dirfd"
	"golang.org/x/sys/unix"
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
	if err := dirfd.Write(out, f.Data); err != nil {
		return c.fail("", err)
	}
	if err := c.chown(out, base, &st, created(up)); err != nil {
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
	if c.opts.Epoch != nil {
		if err := dirfd.SetTime(out, nil, *c.opts.Epoch, 0); err != nil {
			return c.fail("", err)
		}
	}
	return nil
}
