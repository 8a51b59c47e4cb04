package dirfd

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The prefixes of the attributes with which overlay, overlay with the mount option userxattr, and
// fuse-overlayfs mark files and directories. Such marks are not attributes of the stored files.
const (
	OverlayXattrs       = "trusted.overlay."
	OverlayUserXattrs   = "user.overlay."
	FuseOverlayfsXattrs = "user.fuseoverlayfs."
)

// InLayer reports whether an extended attribute is part of the file system state in a layer:
// attributes of programs (user.), file capabilities, and POSIX access control lists. Overlay's own
// marks in both name spaces are not, nor are labels that a host sets by its own policy
// (security.selinux, security.ima, …), nor any trusted attributes: a step lacks the capability to
// set them, and a process in a user namespace lacks the capability to read them, so that layers of
// root and of other users would differ. Attributes with a name that a layer cannot hold are not
// part of it either (Unrecorded).
func InLayer(name []byte) bool {
	switch string(name) {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return bytes.HasPrefix(name, []byte("user.")) && !bytes.Contains(name, []byte("=")) &&
		!bytes.HasPrefix(name, []byte(ownAttributes)) &&
		!bytes.HasPrefix(name, []byte(OverlayUserXattrs)) &&
		!bytes.HasPrefix(name, []byte(FuseOverlayfsXattrs))
}

// Unrecorded reports whether only the name of an attribute prevents it from being in layers. The
// keyword of a PAX record ends at the first "=" (pax(1), "pax Extended Header"), so that a reader
// would read the attribute user.a=b as user.a.
func Unrecorded(name []byte) bool {
	plain, _, cut := bytes.Cut(name, []byte("="))
	return cut && InLayer(plain)
}

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// Equal reports whether x and y have the same name and value.
func (x Xattr) Equal(y Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) }

// Xattrs returns the extended attributes of an open file, sorted by name, if keep returns true for
// their name. If the file system has none, the result is empty.
func Xattrs(fd int, keep func(name []byte) bool) ([]Xattr, error) {
	// Nearly all files have no attributes.
	if n, err := unix.Flistxattr(fd, nil); n == 0 && err == nil || noXattrs(err) {
		return nil, nil
	}
	return xattrs(keep, func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
}

// XattrsOf is like Xattrs for the file at path, of any type. It does not follow a link.
func XattrsOf(path string, keep func(name []byte) bool) ([]Xattr, error) {
	return xattrs(keep, func(b []byte) (int, error) { return unix.Llistxattr(path, b) },
		func(name string, b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
}

// XattrsAt is like XattrsOf for a name, which ends with a zero byte, in an open directory.
func XattrsAt(dir int, name []byte, keep func(name []byte) bool) ([]Xattr, error) {
	// From Linux 6.13 on, listxattrat(2) could be used.
	return XattrsOf(FDPath(dir)+"/"+string(bytes.TrimSuffix(name, []byte{0})), keep)
}

func noXattrs(err error) bool { return err == unix.ENOTSUP || err == unix.ENOSYS }

func xattrs(keep func([]byte) bool, list func([]byte) (int, error),
	get func(string, []byte) (int, error)) ([]Xattr, error) {
	var small [256]byte
	names, err := grow(small[:], list)
	if len(names) == 0 && err == nil || noXattrs(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []Xattr
	for len(names) > 0 {
		end := bytes.IndexByte(names, 0)
		if keep(names[:end]) {
			name := string(names[:end])
			value, err := grow(make([]byte, 128),
				func(b []byte) (int, error) { return get(name, b) })
			if err == nil {
				found = append(found, Xattr{name, value})
			} else if err != unix.ENODATA { // it was removed meanwhile
				return nil, err
			}
		}
		names = names[end+1:]
	}
	slices.SortFunc(found, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

// grow calls read with larger buffers until the result fits.
func grow(buf []byte, read func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := read(buf)
		if err == unix.EINTR {
			continue
		}
		if err == unix.ERANGE && len(buf) < 1<<17 {
			buf = make([]byte, 1<<17) // both are at most 64 KiB (xattr(7))
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}

// FDPath returns a path of an open file, for system calls that take no descriptor.
func FDPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
