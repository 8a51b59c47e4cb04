package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// btrfs stores every snapshot as a subvolume, which is a btrfs snapshot of the parent's subvolume:
// a whole tree that shares all data. btrfs and plainCopies can read and remove each other's
// snapshots, so both use the same directory.
type btrfs struct{ plainCopies }

func (btrfs) name() string { return "btrfs" }

func (btrfs) prepare(ctx context.Context, dir string, chain []string) error {
	fd, err := openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if len(chain) == 0 {
		if err := subvolume(fd, btrfsSubvolCreate, -1); err != nil {
			return fmt.Errorf("make a subvolume in %s: %w", dir, err)
		}
		return plainRoot(filepath.Join(dir, fsDir))
	}
	parent, err := openDir(chain[0])
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	var st unix.Stat_t
	if err := unix.Fstat(parent, &st); err != nil {
		return &os.PathError{Op: "fstat", Path: chain[0], Err: err}
	}
	if st.Ino != subvolumeRoot {
		return plainCopies{}.prepare(ctx, dir, chain) // the parent was made by plainCopies
	}
	if err := subvolume(fd, btrfsSnapCreate, parent); err != nil {
		return fmt.Errorf("snapshot of %s in %s: %w", chain[0], dir, err)
	}
	return nil
}

func (btrfs) remove(tmp int, name string) error {
	fd, err := unix.Openat(tmp, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC,
		0)
	if err == nil {
		// This removes the subvolume at once and not file by file. It needs root, or the mount
		// option user_subvol_rm_allowed. An empty subvolume can be removed like a directory (Linux
		// 4.18), so if the call fails, the code below removes it.
		_ = subvolume(fd, btrfsSnapDestroy, -1)
		unix.Close(fd)
	}
	return removeTree(tmp, name)
}

// subvolumeRoot is the inode number of every subvolume's root (BTRFS_FIRST_FREE_OBJECTID).
const subvolumeRoot = 256

// The requests of linux/btrfs.h that take a btrfs_ioctl_vol_args.
const (
	btrfsSnapCreate   = 0x50009401
	btrfsSubvolCreate = 0x5000940e
	btrfsSnapDestroy  = 0x5000940f
)

// volArgs is struct btrfs_ioctl_vol_args.
type volArgs struct {
	fd   int64
	name [4088]byte
}

// subvolume performs a request on the subvolume fs of the directory dir.
func subvolume(dir int, request uintptr, source int) error {
	args := volArgs{fd: int64(source)}
	copy(args.name[:], fsDir)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(dir), request,
		uintptr(unsafe.Pointer(&args)))
	if errno != 0 {
		return errno
	}
	return nil
}

var errNotBtrfs = errors.New("the state directory is not on btrfs, " +
	"and the driver btrfs keeps snapshots as subvolumes; see docs/LAYERS.md")

func isBtrfs(st unix.Statfs_t) bool { return int64(uint32(st.Type)) == unix.BTRFS_SUPER_MAGIC }

func tryBtrfs(root string, o Options) (driver, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: root, Err: err}
	}
	if !isBtrfs(st) {
		return nil, errNotBtrfs
	}
	if _, err := tryCopy(root, o); err != nil {
		return nil, err
	}
	d := btrfs{}
	if err := d.probe(root); err != nil {
		return nil, fmt.Errorf("cannot make subvolumes: %w", err)
	}
	return d, nil
}

// probe makes a subvolume and a snapshot of it.
func (d btrfs) probe(root string) (err error) {
	var chain []string
	for range 2 {
		s := &Store{root: root, drv: d}
		work, err := s.newWorkDir()
		if err != nil {
			return err
		}
		defer work.remove()
		// This prepare makes a subvolume, or a snapshot of an empty one, and does not wait.
		if err := d.prepare(context.Background(), work.path, chain); err != nil {
			return err
		}
		chain = []string{filepath.Join(work.path, fsDir)}
	}
	return nil
}
