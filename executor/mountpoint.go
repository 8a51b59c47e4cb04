package executor

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/safepath"
)

// mountpoints are mount points that the image does not have. They are made before the command
// starts and removed after it, and the times of their parent directories are restored, so that they
// are in no layer.
//
// A mount point that is made inside another mount is kept. If that mount is a cache, another step
// may use the mount point at the same time, and rmdir(2) of it succeeds and detaches the mount of
// the other step (since Linux 3.18, commit 8ed936b5671b). Any other mount is discarded with its
// contents.
type mountpoints struct {
	made []mountpoint
}

type mountpoint struct {
	parent int // O_PATH; open until the end of the step
	name   string
	was    unix.Stat_t
	xattrs []dirfd.Xattr // inherited: the default access control list of the parent directory
}

// place opens a mount point in the root. If it is missing, place makes a directory or an empty
// file. It follows a dangling link, as open(2) with O_CREAT does: systemd's /etc/resolv.conf is
// one. The caller closes the descriptor.
func (s *mountpoints) place(root int, name string, dir bool) (int, error) {
	return s.placeAt(root, name, dir, 0)
}

func (s *mountpoints) placeAt(root int, name string, dir bool, links int) (int, error) {
	fd, err := openIn(root, name, 0)
	if err == nil {
		return s.checked(fd, name, dir)
	}
	if !errors.Is(err, unix.ENOENT) {
		return -1, safepath.InRootError(name, err)
	}
	parentName, base := path.Split(strings.TrimRight(name, "/"))
	if base == "" || base == ".." {
		return -1, safepath.InRootError(name, err)
	}
	parent, err := s.placeAt(root, parentName, true, links)
	if err != nil {
		return -1, err
	}
	var buf [unix.PathMax]byte
	if n, err := unix.Readlinkat(parent, base, buf[:]); err == nil {
		unix.Close(parent)
		if links == safepath.MaxLinks {
			return -1, safepath.InRootError(name, unix.ELOOP)
		}
		target := string(buf[:n])
		if !path.IsAbs(target) {
			target = parentName + "/" + target
		}
		return s.placeAt(root, target, dir, links+1)
	}
	fd, err = s.make(root, parent, base, dir)
	if errors.Is(err, unix.EEXIST) && links < safepath.MaxLinks {
		// Another step that shares the directory has just made it.
		unix.Close(parent)
		return s.placeAt(root, name, dir, links+1)
	}
	if err != nil {
		unix.Close(parent)
		return -1, safepath.InRootError(name, err)
	}
	return fd, nil
}

func (s *mountpoints) checked(fd int, name string, dir bool) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, safepath.InRootError(name, err)
	}
	if isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR; isDir != dir {
		unix.Close(fd)
		if isDir {
			return -1, safepath.InRootError(name, unix.EISDIR)
		}
		return -1, safepath.InRootError(name, unix.ENOTDIR)
	}
	return fd, nil
}

// make makes a mount point and opens it. If it succeeds, it takes ownership of the descriptor
// parent.
func (s *mountpoints) make(root, parent int, base string, dir bool) (int, error) {
	own, err := sameMount(root, parent)
	if err != nil {
		return -1, err
	}
	var before, was unix.Stat_t
	if err := unix.Fstat(parent, &before); err != nil {
		return -1, err
	}
	if dir {
		if err := unix.Mkdirat(parent, base, 0o755); err != nil {
			return -1, err
		}
	} else {
		fd, err := unix.Openat(parent, base,
			unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return -1, err
		}
		unix.Close(fd)
	}
	if err := setMtime(parent, before.Mtim); err != nil {
		return -1, err
	}
	fd, err := safepath.NoLinks(parent, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Fstat(fd, &was); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if !own {
		// The mount point stays in the cache and is visible to steps without this mount, so it gets
		// the owner of the cache.
		if err := unix.Fchownat(parent, base, int(before.Uid), int(before.Gid),
			unix.AT_SYMLINK_NOFOLLOW); err != nil {
			unix.Close(fd)
			return -1, err
		}
		unix.Close(parent)
		return fd, nil
	}
	xattrs, err := layerXattrs(parent, base)
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	s.made = append(s.made, mountpoint{parent, base, was, xattrs})
	return fd, nil
}

// sameMount reports whether two open files are in the same mount.
func sameMount(a, b int) (bool, error) {
	var sa, sb unix.Statx_t
	for fd, st := range map[int]*unix.Statx_t{a: &sa, b: &sb} {
		if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW,
			unix.STATX_MNT_ID, st); err != nil {
			return false, err
		}
	}
	return sa.Mnt_id == sb.Mnt_id, nil // always true without STATX_MNT_ID (before Linux 5.8)
}

// remove removes the mount points that are unchanged. No other process of the step may be running.
func (s *mountpoints) remove() error {
	for i := len(s.made) - 1; i >= 0; i-- {
		if err := s.made[i].uncover(); err != nil {
			return fmt.Errorf("unmount %s: %w", s.made[i].name, err)
		}
	}
	for i := len(s.made) - 1; i >= 0; i-- {
		if err := s.made[i].remove(); err != nil {
			return fmt.Errorf("remove the mount point %s: %w", s.made[i].name, err)
		}
	}
	return nil
}

// close closes the mount points' parent directories.
func (s *mountpoints) close() {
	for _, m := range s.made {
		unix.Close(m.parent)
	}
	s.made = nil
}

// uncover unmounts all mounts on the mount point, which cannot be removed otherwise.
func (s mountpoint) uncover() error {
	if err := unix.Fchdir(s.parent); err != nil {
		return err
	}
	for {
		switch err := unix.Unmount(s.name, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err {
		case nil:
		case unix.EINVAL, unix.ENOENT: // nothing is mounted there
			return nil
		default:
			return err
		}
	}
}

func (s mountpoint) remove() error {
	var now, parent unix.Stat_t
	err := unix.Fstatat(s.parent, s.name, &now, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	// The time of a directory changes when an entry is made in it and removed again; such a
	// directory is still the one made for the step. The time and size of a file change when a
	// process writes to it.
	same := now.Ino == s.was.Ino && now.Dev == s.was.Dev && now.Mode == s.was.Mode &&
		now.Uid == s.was.Uid && now.Gid == s.was.Gid
	flags := unix.AT_REMOVEDIR
	if s.was.Mode&unix.S_IFMT != unix.S_IFDIR {
		flags = 0
		same = same && now.Size == 0 && now.Mtim == s.was.Mtim && now.Nlink == 1
	}
	if !same {
		return nil
	}
	if xattrs, err := layerXattrs(s.parent, s.name); err != nil ||
		!slices.EqualFunc(xattrs, s.xattrs, dirfd.Xattr.Equal) {
		return err
	}
	if err := unix.Fstat(s.parent, &parent); err != nil {
		return err
	}
	switch err := unix.Unlinkat(s.parent, s.name, flags); err {
	case nil:
		return setMtime(s.parent, parent.Mtim)
	case unix.ENOTEMPTY, unix.EEXIST:
		return nil // the command has made an entry in it
	default:
		return err
	}
}

func setMtime(dir int, t unix.Timespec) error {
	omit := unix.Timespec{Nsec: unix.UTIME_OMIT}
	return unix.UtimesNanoAt(dir, ".", []unix.Timespec{omit, t}, 0)
}
