package executor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/mount"
)

// MakeMountPoints makes a directory for Spec.MountPoints if it does not exist. It makes a directory
// in temp, whose name begins with prefix, and renames that to dir: both are on one file system.
// Several processes may call it at the same time.
func MakeMountPoints(dir, temp, prefix string) error {
	if wholeMountPoints(dir) {
		return nil
	}
	tmp, err := os.MkdirTemp(temp, prefix)
	if err != nil {
		return err
	}
	if err = fillMountPoints(tmp); err == nil {
		err = replaceMountPoints(tmp, dir)
	}
	return errors.Join(err, os.RemoveAll(tmp))
}

// replaceMountPoints renames tmp, which has all mount points, to dir. Other processes may do the
// same at this moment, and their directory may be in use, so it is not removed. Afterwards tmp is
// missing, or is a directory that is not in use.
func replaceMountPoints(tmp, dir string) error {
	err := os.Rename(tmp, dir)
	if err == nil || wholeMountPoints(dir) {
		return nil // made here, or by another process
	}
	if !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOTEMPTY) &&
		!errors.Is(err, unix.ENOTDIR) {
		return err
	}
	// Some mount points were removed or replaced.
	exchange := func() error {
		err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
		if err != nil {
			return &os.LinkError{Op: "exchange", Old: tmp, New: dir, Err: err}
		}
		return nil
	}
	if err := exchange(); err != nil {
		return err
	}
	if wholeMountPoints(tmp) { // another process was faster
		return exchange()
	}
	return nil
}

// wholeMountPoints reports whether the directory contains all mount points.
func wholeMountPoints(dir string) bool {
	var st unix.Stat_t
	for _, name := range append([]string{""}, pointNames...) {
		if unix.Lstat(filepath.Join(dir, name), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return false
		}
	}
	for _, name := range pointFiles {
		if unix.Lstat(filepath.Join(dir, name), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			return false
		}
	}
	return true
}

// pointNames are the mount points in the root directory.
var pointNames = []string{"proc", "dev", "sys", "etc"}

// pointFiles are the mount points of files.
var pointFiles = []string{"etc/hosts", "etc/resolv.conf"}

func fillMountPoints(top string) error {
	for _, name := range append([]string{""}, pointNames...) {
		dir := filepath.Join(top, name)
		if name != "" {
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	for _, name := range pointFiles {
		file := filepath.Join(top, name)
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			return err
		}
		if err := os.Chmod(file, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// maxLowerPoints is the largest number of lower directories that an overlay may have before the
// mount points are added: the options of mount(2) are limited to one page.
const maxLowerPoints = 100

// hasLowerMountPoints reports whether the mount points are the lowest directory of the step's root.
func (s *Spec) hasLowerMountPoints() bool {
	return s.MountPoints != "" && len(s.Root) == 1 && s.Root[0].Type == mount.Overlay &&
		len(s.Root[0].Lower) <= maxLowerPoints
}

// rootMounts returns the mounts of the root, including the mount points. The mount points are the
// lowest directory of the overlay and belong to no snapshot, so they are in no layer. dropPoints
// handles mount points that overlay copies up.
func (b *sandbox) rootMounts() []mount.Mount {
	if !b.spec.hasLowerMountPoints() {
		return b.spec.Root
	}
	m := b.spec.Root[0]
	m.Lower = append(slices.Clone(m.Lower), b.spec.MountPoints)
	return []mount.Mount{m}
}

// dropPoints removes from the upper directory the mount points that overlay copied up and the
// command did not change. Overlay copies a directory up when its mode, owner, time or an attribute
// is set, even to the same value, and when a name is made in it and removed again. For a root
// without the directory of mount points, mountpoint.remove does the same.
func dropPoints(s *Spec) error {
	if _, ok := s.Action.(*Process); !ok || !s.hasLowerMountPoints() {
		return nil
	}
	for _, name := range pointNames {
		var st unix.Stat_t
		err := unix.Lstat(filepath.Join(s.Root[0].Upper, name), &st)
		if err == unix.ENOENT {
			continue
		}
		if err == nil {
			err = dropPoint(s, name, &st)
		}
		if err != nil {
			return fmt.Errorf("remove the mount point /%s: %w", name, err)
		}
	}
	return nil
}

// dropPoint removes a mount point from the upper directory, where its status is st, if no image
// layer has that name and it differs from the original directory only in its time.
func dropPoint(s *Spec, name string, st *unix.Stat_t) error {
	var was unix.Stat_t
	if err := unix.Lstat(filepath.Join(s.MountPoints, name), &was); err != nil {
		return err
	}
	if st.Mode != was.Mode || st.Uid != was.Uid || st.Gid != was.Gid {
		return nil
	}
	for _, lower := range s.Root[0].Lower {
		var there unix.Stat_t
		if err := unix.Lstat(filepath.Join(lower, name), &there); err != unix.ENOENT {
			return err
		}
	}
	upper := filepath.Join(s.Root[0].Upper, name)
	xattrs, err := layerXattrs(unix.AT_FDCWD, upper)
	if err != nil || len(xattrs) > 0 {
		return err
	}
	if err := unix.Rmdir(upper); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}

// layerXattrs returns the extended attributes of a directory or a regular file that a layer would
// have.
func layerXattrs(dir int, name string) ([]dirfd.Xattr, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC,
		0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return dirfd.Xattrs(fd, dirfd.InLayer)
}
