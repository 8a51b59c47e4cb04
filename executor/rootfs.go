package executor

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/safepath"
)

// Everything below happens in the child's own mount namespace.

// privateMounts makes that nothing mounted here shows up anywhere else.
func privateMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the step's mounts private: %w", err)
	}
	return nil
}

// stagingDirs are directories that hosts have and that are never part of what a step mounts, the best first.
var stagingDirs = []string{"/sys", "/mnt", "/media", "/srv", "/run", "/tmp"}

// staging chooses a directory of the host on which the root is put together. It is hidden by that, in this mount
// namespace and for this short time only; so it must not be one that holds something to be mounted.
func staging(sources []string) (string, error) {
next:
	for _, dir := range stagingDirs {
		if fi, err := os.Lstat(dir); err != nil || !fi.IsDir() {
			continue
		}
		for _, s := range sources {
			if s == dir || strings.HasPrefix(s, dir+"/") {
				continue next
			}
		}
		return dir, nil
	}
	return "", fmt.Errorf("put the root file system together: none of %s is a free directory", strings.Join(stagingDirs, ", "))
}

// hostPaths are the paths of the host that mounts name.
func hostPaths(mounts []mount.Mount) []string {
	var paths []string
	for _, m := range mounts {
		paths = append(paths, m.Source, m.Upper, m.Work)
		paths = append(paths, m.Lower...)
	}
	return paths
}

// enterRoot performs a root file system and makes it this process's.
func enterRoot(root []mount.Mount) error {
	if err := privateMounts(); err != nil {
		return err
	}
	dir, err := staging(hostPaths(root))
	if err != nil {
		return err
	}
	if err := mount.All(root, dir); err != nil {
		return fmt.Errorf("mount the root file system: %w", err)
	}
	return pivot(dir)
}

// pivot makes dir, which is a mount point, the root, and lets go of the old one.
func pivot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("enter the root file system: %w", err)
	}
	switch err := unix.PivotRoot(".", "."); {
	case err == nil:
		// The old root is now mounted on top of the new one, at "." (pivot_root(2)).
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("leave the old root: %w", err)
		}
	case err == unix.EINVAL:
		// The old root is the kernel's first one (an initramfs), which can't be moved away.
		if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("enter the root file system: %w", err)
		}
		if err := unix.Chroot("."); err != nil {
			return fmt.Errorf("enter the root file system: %w", err)
		}
	default:
		return fmt.Errorf("enter the root file system: pivot_root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the root file system: %w", err)
	}
	return nil
}

// newMount makes a file system without attaching it. The caller closes the descriptor.
func newMount(fsType string, attrs int, options ...string) (int, error) {
	ctx, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", fsType, err)
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigSetString(ctx, "source", fsType); err != nil {
		return -1, fmt.Errorf("mount %s: %w", fsType, err)
	}
	for _, o := range options {
		key, value, ok := strings.Cut(o, "=")
		if ok {
			err = unix.FsconfigSetString(ctx, key, value)
		} else {
			err = unix.FsconfigSetFlag(ctx, key)
		}
		if err != nil {
			return -1, fmt.Errorf("mount %s: option %s: %w", fsType, o, err)
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, fmt.Errorf("mount %s: %w", fsType, err)
	}
	m, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", fsType, err)
	}
	return m, nil
}

// cloneMount makes another mount of what name shows, without attaching it. The caller closes the descriptor.
func cloneMount(dir int, name string, flags uint) (int, error) {
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return unix.OpenTree(dir, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)
}

// attach puts a mount onto target, gives it attributes, and closes it.
func attach(m, target int, attrs uint64, recursive bool) error {
	defer unix.Close(m)
	if err := unix.MoveMount(m, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return err
	}
	return setAttrs(m, attrs, recursive)
}

// setAttrs adds attributes to the mount of which dir is the root.
func setAttrs(dir int, attrs uint64, recursive bool) error {
	if attrs == 0 {
		return nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	err := unix.MountSetattr(dir, "", flags, &unix.MountAttr{Attr_set: attrs})
	if err != unix.ENOSYS {
		return err
	}
	// Before Linux 5.12. Mounts below are left as they are.
	old := uintptr(unix.MS_BIND | unix.MS_REMOUNT)
	for attr, flag := range map[uint64]uintptr{
		unix.MOUNT_ATTR_RDONLY: unix.MS_RDONLY, unix.MOUNT_ATTR_NOSUID: unix.MS_NOSUID,
		unix.MOUNT_ATTR_NODEV: unix.MS_NODEV, unix.MOUNT_ATTR_NOEXEC: unix.MS_NOEXEC,
	} {
		if attrs&attr != 0 {
			old |= flag
		}
	}
	return unix.Mount("", fmt.Sprintf("/proc/self/fd/%d", dir), "", old, "")
}

// openIn opens a path in the root for use as a mount point or directory.
func openIn(root int, name string, flags int) (int, error) {
	return safepath.InRoot(root, name, flags|unix.O_PATH, 0)
}
