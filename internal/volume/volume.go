package volume

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/smallfile"
)

// Volume describes a file system from which files are read.
type Volume struct {
	// ID identifies the file system, across boots. 0: its times are not trusted, and what was read
	// from its files is not stored.
	ID uint64
	// fine and coarse are the longest times between two changes that get the same ctime. coarse
	// applies if ctime is a whole number of seconds.
	fine, coarse time.Duration
}

// What was read from a file is used as long as its ctime is the same. That is sound only if this
// machine's kernel sets ctime, from its own clock, at each change, and if no other file system with
// the same times can be mounted at the same path. So there is an allow-list of file system types,
// and each file system is identified:
//
//   - On squashfs, erofs, iso9660 and the like, ctime is the value in the image. vfat and exfat
//     have none. On FUSE, NFS, CIFS, 9p, virtiofs and Ceph, it comes from a program or another
//     machine.
//   - An overlay shows the ctime of its lower file systems, and gives no way to identify them. It
//     is trusted within one mount of one boot, identified by its unique number
//     (STATX_MNT_ID_UNIQUE, since Linux 6.8).
//   - All others are identified by their UUID (FS_IOC_GETFSUUID, since Linux 6.9) or by the f_fsid
//     of statfs(2), so that an image that replaces another at the same mount point has another
//     id.
//
// One kind of change is missed on all of them: a program that has mapped a file (MAP_SHARED,
// writable) changes ctime when it first writes to a page, and not again before the kernel has
// written that page back.
var trusted = map[int64]bool{
	unix.EXT4_SUPER_MAGIC:  true, // ext2, ext3, ext4
	unix.XFS_SUPER_MAGIC:   true,
	unix.BTRFS_SUPER_MAGIC: true,
	unix.TMPFS_MAGIC:       true,
	unix.F2FS_SUPER_MAGIC:  true,
	zfsMagic:               true,
	bcachefsMagic:          true,
}

const (
	zfsMagic      = 0x2fc12fc1
	bcachefsMagic = 0xca451a4e

	// From include/uapi/linux/fs.h and stat.h. x/sys does not have these two yet.
	fsIocGetFSUUID    = 0x80111500
	statxMntIDUnique  = 0x4000
	overlayVolumeMark = "overlay"
)

// Of returns the volume that contains the file fd. dev is its device number.
func Of(fd int, dev uint64) Volume {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return Volume{}
	}
	// A ctime with a fraction of a second comes from a clock that moves with the kernel's timer, at
	// least 100 times a second. Others may be whole seconds.
	v := Volume{fine: 25 * time.Millisecond, coarse: 2500 * time.Millisecond}
	kind := int64(uint32(st.Type)) // it is signed on some architectures
	switch {
	case kind == unix.OVERLAYFS_SUPER_MAGIC:
		v.ID = mountVolume(fd)
	case trusted[kind]:
		v.ID = volumeID(fd, kind, st.Fsid, dev)
	}
	return v
}

// volumeID identifies a file system by its UUID, or by the f_fsid of statfs(2). On btrfs the
// subvolumes use the same inode numbers and have the same UUID, and only f_fsid differs.
func volumeID(fd int, kind int64, fsid unix.Fsid, dev uint64) uint64 {
	var uuid struct {
		len  uint8
		uuid [16]byte
	}
	b := binary.LittleEndian.AppendUint64(nil, uint64(kind))
	if kind != unix.BTRFS_SUPER_MAGIC {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsIocGetFSUUID,
			uintptr(unsafe.Pointer(&uuid)))
		if errno == 0 && uuid.len > 0 {
			return hashID(append(b, uuid.uuid[:min(uuid.len, 16)]...))
		}
	}
	if fsid.Val == [2]int32{} {
		return hashID(binary.LittleEndian.AppendUint64(b, dev))
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(fsid.Val[0]))
	return hashID(binary.LittleEndian.AppendUint32(b, uint32(fsid.Val[1])))
}

// mountVolume identifies a mount within this boot. It returns 0 if the kernel has no unique number
// for it.
func mountVolume(fd int) uint64 {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, statxMntIDUnique, &st); err != nil ||
		st.Mask&statxMntIDUnique == 0 {
		return 0
	}
	boot, err := smallfile.BootID()
	if err != nil {
		return 0
	}
	return hashID(binary.LittleEndian.AppendUint64([]byte(overlayVolumeMark+boot), st.Mnt_id))
}

// hashID returns a hash that is never 0.
func hashID(b []byte) uint64 {
	h := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(h[:]) | 1
}

// Racy reports whether a file with this ctime, in nanoseconds since 1970, can still be changed at
// the time now without changing its ctime.
func (v Volume) Racy(ctime, now int64) bool {
	slack := v.fine
	if ctime%1e9 == 0 {
		slack = v.coarse
	}
	return ctime >= now-int64(slack)
}

// Stamp returns a text that differs after each change of the content of an open file, and is the
// same in later boots. It returns "" if a change could go unnoticed: the file system is not
// trusted, or f is not a regular file. settled is false if the last change is so recent that
// another one could get the same stamp.
func Stamp(f *os.File) (stamp string, settled bool) {
	var st unix.Stat_t
	fd := int(f.Fd())
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", false
	}
	now := time.Now().UnixNano()
	v := Of(fd, st.Dev)
	if v.ID == 0 {
		return "", false
	}
	return fmt.Sprintf("%x %d %d %d %d", v.ID, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()),
		!v.Racy(st.Ctim.Nano(), now)
}
