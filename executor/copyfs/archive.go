package copyfs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/fileentry"
	"github.com/layerbuild/layerbuild/internal/safepath"
)

// unpackFile unpacks a file into the destination if it is an archive.
func (c *copier) unpackFile(dir int, name string, e *fileentry.Entry) (bool, error) {
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
	if c.copy.Chown != "" {
		o.Owner = c.own
	}
	if c.opts.SingleID {
		o.OnOwnerError = func(path string, uid, gid int, _ error) {
			c.ownerError(path, Owner{uid, gid}, unix.EINVAL)
		}
	}
	if c.opts.UserNS {
		o.OnStandIn = c.standsIn
		o.OnSkip = func(path, what string, _ error) {
			if c.result.AttrsLost == 0 {
				c.result.FirstAttr = path + ": " + what
			}
			c.result.AttrsLost++
		}
	}
	done, err := c.opts.Unpack(f, o)
	var st unix.Stat_t
	if serr := unix.Fstat(n, &st); serr != nil {
		return false, c.fail("", serr)
	}
	if !e.Same(fileentry.FromStat(&st)) { // check before err: the change may have caused it
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
	c, name := d.c, d.c.copy.Dest
	if fd, err := safepath.InRoot(c.root, name, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
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
	place, err := c.pathInRoot(d.fd)
	return ArchiveDest{Dir: d.fd, Root: c.root, Path: place}, err
}

// finish restores the time of a destination that existed.
func (d *archiveDest) finish() error {
	if !d.existed {
		return nil
	}
	return dirfd.SetTime(d.fd, nil, d.st.Mtim.Sec, d.st.Mtim.Nsec)
}

func (d *archiveDest) close() {
	if d.fd >= 0 {
		unix.Close(d.fd)
	}
}
