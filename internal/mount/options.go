package mount

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// attributes are the attributes of a mount, as opposed to those of its file system. They have the
// values of mount_setattr(2).
type attributes struct {
	set, clear uint64
	// propagation is MS_PRIVATE, MS_SLAVE, …; 0 does not change it.
	propagation uint64
	recursive   bool
}

// flag is a mount(8) option that sets or clears an attribute of the mount, and is not passed to the
// file system.
type flag struct {
	name       string
	set, clear uint64
}

// flags is sorted by name. "ro" applies to the mount and not to the superblock, since proc and
// sysfs refuse a second superblock with other flags.
var flags = []flag{
	{"atime", 0, unix.MOUNT_ATTR__ATIME},
	{"defaults", 0, 0},
	{"dev", 0, unix.MOUNT_ATTR_NODEV},
	{"diratime", 0, unix.MOUNT_ATTR_NODIRATIME},
	{"exec", 0, unix.MOUNT_ATTR_NOEXEC},
	{"noatime", unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR__ATIME},
	{"nodev", unix.MOUNT_ATTR_NODEV, 0},
	{"nodiratime", unix.MOUNT_ATTR_NODIRATIME, 0},
	{"noexec", unix.MOUNT_ATTR_NOEXEC, 0},
	{"nosuid", unix.MOUNT_ATTR_NOSUID, 0},
	{"nosymfollow", unix.MOUNT_ATTR_NOSYMFOLLOW, 0},
	{"relatime", unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME},
	{"ro", unix.MOUNT_ATTR_RDONLY, 0},
	{"rw", 0, unix.MOUNT_ATTR_RDONLY},
	{"strictatime", unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME},
	{"suid", 0, unix.MOUNT_ATTR_NOSUID},
	{"symfollow", 0, unix.MOUNT_ATTR_NOSYMFOLLOW},
}

var propagations = map[string]uint64{
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE, "slave": unix.MS_SLAVE,
	"rslave": unix.MS_SLAVE,
	"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED, "unbindable": unix.MS_UNBINDABLE,
	"runbindable": unix.MS_UNBINDABLE,
}

// split separates the options of the kernel's mount layer from the data for the file system, which
// keep their order. A later option overrides an earlier one ("ro", "rw").
func split(options []string) (a attributes, data []string) {
	for _, o := range options {
		if p, ok := propagations[o]; ok {
			a.propagation = p
			continue
		}
		if o == "bind" || o == "rbind" {
			a.recursive = a.recursive || o == "rbind"
			continue
		}
		i, ok := slices.BinarySearchFunc(flags, o,
			func(f flag, name string) int { return strings.Compare(f.name, name) })
		if !ok {
			data = append(data, o)
			continue
		}
		f := flags[i]
		a.set = a.set&^f.clear | f.set
		a.clear = a.clear&^f.set | f.clear
	}
	return a, data
}

// attr returns a as the argument of mount_setattr(2).
func (a attributes) attr() *unix.MountAttr {
	return &unix.MountAttr{Attr_set: a.set, Attr_clr: a.clear, Propagation: a.propagation}
}

// msFlags returns the attributes as flags of mount(2).
func (a attributes) msFlags() uintptr {
	var ms uintptr
	for _, b := range [...]struct {
		attr uint64
		ms   uintptr
	}{
		{unix.MOUNT_ATTR_RDONLY, unix.MS_RDONLY},
		{unix.MOUNT_ATTR_NOSUID, unix.MS_NOSUID},
		{unix.MOUNT_ATTR_NODEV, unix.MS_NODEV},
		{unix.MOUNT_ATTR_NOEXEC, unix.MS_NOEXEC},
		{unix.MOUNT_ATTR_NOATIME, unix.MS_NOATIME},
		{unix.MOUNT_ATTR_NODIRATIME, unix.MS_NODIRATIME},
		{unix.MOUNT_ATTR_STRICTATIME, unix.MS_STRICTATIME},
		{unix.MOUNT_ATTR_NOSYMFOLLOW, msNoSymFollow},
	} {
		if a.set&b.attr != 0 {
			ms |= b.ms
		}
	}
	return ms
}

// msNoSymFollow is MS_NOSYMFOLLOW (Linux 5.10), which package unix lacks.
const msNoSymFollow = 0x100

// escape escapes the characters that separate options (and, in a list of lower directories, paths)
// in an overlay's option string. Overlay removes a backslash before any character (ovl_unescape),
// for mount(2) as for fsconfig(2).
func escape(path, separators string) string {
	if !strings.ContainsAny(path, separators) {
		return path
	}
	var b strings.Builder
	for i := range len(path) {
		if strings.IndexByte(separators, path[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(path[i])
	}
	return b.String()
}
