package executor

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/safepath"
)

// The functions below run in the step's own mount namespace.

// privateMounts makes all mounts private, so that mounts made here do not propagate to other
// namespaces.
func privateMounts() error {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == unix.EINVAL {
		return errors.New("the root directory of layerbuild is not a mount point, as in a " +
			"chroot; before chroot DIR, mount it on itself: mount --bind DIR DIR")
	}
	if err != nil {
		return fmt.Errorf("make the step's mounts private: %w", err)
	}
	return nil
}

// stagingDirs are directories that hosts have and that a step's mounts usually do not use, in order
// of preference.
var stagingDirs = []string{"/sys", "/mnt", "/media", "/srv", "/run", "/tmp"}

// chooseStaging returns a directory of the host to mount the root on before pivot_root(2). The
// mount hides the directory's contents, in this mount namespace only, so the directory must not
// contain any of the sources.
func chooseStaging(sources []string) (string, error) {
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
	return "", fmt.Errorf(
		"mount the root file system: none of %s can be used as a staging directory",
		strings.Join(stagingDirs, ", "))
}

// hostPaths returns the host's paths that mounts name.
func hostPaths(mounts []mount.Mount) []string {
	var paths []string
	for _, m := range mounts {
		paths = append(paths, m.Source, m.Upper, m.Work)
		paths = append(paths, m.Lower...)
	}
	return paths
}

// enterRoot mounts a root file system and makes it the root of this thread or process.
func enterRoot(root []mount.Mount) error {
	if err := privateMounts(); err != nil {
		return err
	}
	dir, err := chooseStaging(hostPaths(root))
	if err != nil {
		return err
	}
	if err := mount.All(root, dir); err != nil {
		return fmt.Errorf("mount the root file system: %w", err)
	}
	return pivot(dir)
}

// pivot makes dir, which is a mount point, the root, and detaches the old root.
func pivot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("enter the root file system: %w", err)
	}
	switch err := unix.PivotRoot(".", "."); {
	case err == nil:
		// The old root is now mounted on top of the new one, at "." (pivot_root(2)).
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("detach the old root: %w", err)
		}
	case err == unix.EINVAL:
		// The old root is the kernel's first one (an initramfs), which cannot be moved.
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

// cloneMount clones the mount of the file name in dir, or of dir if name is "", without attaching
// the clone. The caller closes the descriptor.
func cloneMount(dir int, name string, flags uint) (int, error) {
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return unix.OpenTree(dir, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)
}

// attach attaches a mount at target and sets its attributes. It closes the mount's descriptor, also
// if it fails.
func attach(m, target int, attrs uint64, recursive bool) error {
	defer unix.Close(m)
	if err := unix.MoveMount(m, "", target, "",
		unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
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
	// Before Linux 5.12. This does not change mounts below.
	old := uintptr(unix.MS_BIND | unix.MS_REMOUNT)
	for attr, flag := range map[uint64]uintptr{
		unix.MOUNT_ATTR_RDONLY: unix.MS_RDONLY, unix.MOUNT_ATTR_NOSUID: unix.MS_NOSUID,
		unix.MOUNT_ATTR_NODEV: unix.MS_NODEV, unix.MOUNT_ATTR_NOEXEC: unix.MS_NOEXEC,
	} {
		if attrs&attr != 0 {
			old |= flag
		}
	}
	return unix.Mount("", dirfd.FDPath(dir), "", old, "")
}

// openIn opens a path in the root with O_PATH.
func openIn(root int, name string, flags int) (int, error) {
	return safepath.InRoot(root, name, flags|unix.O_PATH, 0)
}
