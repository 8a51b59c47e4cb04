package copyfs

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/fileentry"
	"github.com/layerbuild/layerbuild/internal/safepath"
	"golang.org/x/sys/unix"
)

// target returns the destination directory and name of an item that is not a directory. It makes
// the directory if it is missing.
func (c *copier) target(src int, it *Item) (stack []frame, base string, err error) {
	if it.Target != "" {
		stack, err = c.enterDest(c.copy.Dest)
		if err != nil {
			return nil, "", err
		}
		stack, err = c.enterTarget(stack, src, it)
		return stack, path.Base(it.Target), err
	}
	dest, base := c.copy.Dest, it.Name
	if base == "" {
		base = path.Base(path.Clean(it.Path))
	}
	if !c.isDir(dest) {
		var parent int
		if parent, base, err = c.resolveLast(dest); err != nil {
			return nil, "", err
		}
		defer unix.Close(parent)
		f, err := c.openDest(parent, path.Dir(path.Clean(dest)))
		return []frame{f}, base, err
	}
	stack, err = c.enterDest(dest)
	return stack, base, err
}

// isDir reports whether a destination is a directory, either by its spelling (it ends in a slash,
// "." or "..") or because a directory exists there.
func (c *copier) isDir(dest string) bool {
	switch path.Base("x" + dest) {
	case ".", "..":
		return true
	}
	if strings.HasSuffix(dest, "/") {
		return true
	}
	fd, err := safepath.InRoot(c.root, dest, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// resolveLast resolves a path in the root, including links in its last part, until the last part is
// not a link. It makes missing parents. The caller closes the returned directory.
func (c *copier) resolveLast(dest string) (parent int, base string, err error) {
	for range safepath.MaxLinks {
		var parentName string
		parentName, base = path.Split(strings.TrimRight(dest, "/"))
		if parent, err = c.mkdirAll(parentName, c.parentMode()); err != nil {
			return -1, "", err
		}
		var buf [unix.PathMax]byte
		n, err := unix.Readlinkat(parent, base, buf[:])
		if err != nil {
			return parent, base, nil
		}
		unix.Close(parent)
		if target := string(buf[:n]); path.IsAbs(target) {
			dest = target
		} else {
			dest = parentName + "/" + target
		}
	}
	return -1, "", safepath.InRootError(dest, unix.ELOOP)
}

// mkdirAll makes a directory of the destination with its missing parents. Each of them gets the
// given mode.
func (c *copier) mkdirAll(name string, mode uint32) (int, error) {
	fd, err := safepath.MkdirAll(c.root, name, mode, func(parent int, base string) error {
		own := c.own
		if own == nil {
			own = &Owner{}
		}
		if mode != 0o755 && c.isMountPoint(parent, base) {
			// not a link: this copy has just made it
			if err := unix.Fchmodat(parent, base, 0o755, 0); err != nil {
				return err
			}
		}
		return c.made(parent, base, *own)
	})
	if errors.Is(err, unix.ENOTDIR) {
		return -1, fmt.Errorf("cannot copy to non-directory: %s", path.Join("/", name))
	}
	if err != nil {
		return -1, safepath.InRootError(name, err)
	}
	return fd, nil
}

// isMountPoint reports whether a directory is one of Options.MountPoints. Its mode is 0755 while a
// command runs, and it is in no layer. A copy that makes it therefore uses that mode, also with
// --chmod.
func (c *copier) isMountPoint(parent int, base string) bool {
	if !slices.Contains(c.opts.MountPoints, base) {
		return false
	}
	var st, root unix.Stat_t
	return unix.Fstat(parent, &st) == nil && unix.Fstat(c.root, &root) == nil &&
		st.Dev == root.Dev && st.Ino == root.Ino
}

// parentMode returns the mode of the destination's missing parent directories.
func (c *copier) parentMode() uint32 {
	if c.chmod != nil && c.chmod.clauses == nil {
		return c.chmod.octal
	}
	return 0o755
}

// made sets the owner and time of a new directory.
func (c *copier) made(parent int, base string, own Owner) error {
	if own != (Owner{}) {
		err := unix.Fchownat(parent, base, own.UID, own.GID, unix.AT_SYMLINK_NOFOLLOW)
		if err := c.ownerError(base, own, err); err != nil {
			return err
		}
	}
	if c.opts.Epoch != nil {
		t := unix.NsecToTimespec(*c.opts.Epoch * 1e9)
		return unix.UtimesNanoAt(parent, base, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
	}
	return nil
}

// ownerError returns the error for a failed chown. If the user namespace has a single id, it counts
// the file in the result and returns nil.
func (c *copier) ownerError(name string, own Owner, err error) error {
	if err == nil {
		return nil
	}
	if c.opts.SingleID && (err == unix.EINVAL || err == unix.EPERM) {
		if c.result.OwnersLost == 0 {
			c.result.FirstOwner = fmt.Sprintf("%s: %d:%d", name, own.UID, own.GID)
		}
		c.result.OwnersLost++
		return nil
	}
	if err == unix.EINVAL && c.opts.UserNS {
		return fmt.Errorf("set the owner %d:%d: there is no such id in this user namespace "+
			"(/etc/subuid and /etc/subgid list the ids that a user may use)", own.UID, own.GID)
	}
	return fmt.Errorf("set the owner %d:%d: %w", own.UID, own.GID, err)
}

// enterDest makes the destination directory if it is missing, and opens it.
func (c *copier) enterDest(name string) ([]frame, error) {
	at, err := c.mkdirAll(name, c.parentMode())
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	f, err := c.openDest(at, name)
	if err != nil {
		return nil, err
	}
	return []frame{f}, nil
}

// openDest opens the directory at again, for reading, so that its attributes can be read and set.
func (c *copier) openDest(at int, name string) (frame, error) {
	c.dest = path.Join("/", name)
	f := frame{src: -1, dst: -1, frozen: -1}
	var err error
	if f.dst, err = unix.Openat(at, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC,
		0); err != nil {
		return f, safepath.InRootError(name, err)
	}
	if err := unix.Fstat(f.dst, &f.now); err != nil {
		unix.Close(f.dst)
		return f, safepath.InRootError(name, err)
	}
	f.acl = hasDefaultACL(f.dst)
	return f, nil
}

// enterTarget makes and enters the directories in an item's target name. A directory that exists at
// the source gets the attributes of that one.
func (c *copier) enterTarget(stack []frame, src int, it *Item) ([]frame, error) {
	dir := path.Dir(path.Clean(it.Target))
	if dir == "." {
		return stack, nil
	}
	prefix, same := strings.CutSuffix(path.Clean(it.Path), path.Clean(it.Target))
	at := ""
	for _, part := range strings.Split(dir, "/") {
		at = path.Join(at, part)
		var err error
		if same {
			stack, err = c.enterParent(stack, src, path.Join(prefix, at), part)
		} else {
			stack, err = c.enterPlain(stack, part)
		}
		if err != nil {
			return stack, err
		}
	}
	return stack, nil
}

func (c *copier) enterParent(stack []frame, src int, name, part string) ([]frame, error) {
	dir, err := safepath.NoLinks(src, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		return c.enterPlain(stack, part)
	}
	if err != nil {
		return stack, c.fail("", err)
	}
	f, made, err := c.enterFD(&stack[len(stack)-1], dir, -1, part, &fileentry.Entry{})
	if err != nil {
		return stack, err
	}
	if !made {
		f.on = setMode
	}
	return append(stack, f), nil
}

// enterPlain makes a directory with the mode, owner and time of the destination's missing parents,
// and enters it.
func (c *copier) enterPlain(stack []frame, part string) ([]frame, error) {
	up := &stack[len(stack)-1]
	f := frame{src: -1, frozen: -1, path: path.Join(up.path, part)}
	err := unix.Mkdirat(up.dst, part, c.parentMode())
	if err == nil {
		own := Owner{}
		if c.own != nil {
			own = *c.own
		}
		err = c.made(up.dst, part, own)
	} else if err == unix.EEXIST {
		err = nil
	}
	if err != nil {
		return stack, c.fail(f.path, err)
	}
	if err := c.openInto(up, &f, part); err != nil {
		return stack, err
	}
	return append(stack, f), nil
}

// Mkdir makes a directory in root, as Run does, and its missing parents. user, if it is not "", is
// the user[:group] that owns each new directory. Existing directories keep their owners.
func Mkdir(root int, name, user string, o Options) (Result, error) {
	c := &copier{opts: o, root: root}
	own := Owner{}
	if user != "" {
		// As with Copy.Chown, a name that the image does not have is 0. The RUN that uses the name
		// reports it.
		var err error
		if own, _, err = o.LookupOwner(root, user); err != nil {
			return Result{}, err
		}
	}
	fd, err := safepath.MkdirAll(root, name, 0o755, func(parent int, base string) error {
		return c.made(parent, base, own)
	})
	if err != nil {
		return c.result, fmt.Errorf("make the directory %w", safepath.InRootError(name, err))
	}
	unix.Close(fd)
	return c.result, nil
}
