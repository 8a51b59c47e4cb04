package dirfd

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// InLayer reports whether an extended attribute is part of a file system state that images carry:
// what programs set (user.), file capabilities, and POSIX access lists. Left out are overlay's own
// marks in both name spaces, labels that a host gives by its own policy (security.selinux,
// security.ima, …), and trusted. altogether: a step has not the capability to set it, and a user
// namespace not the one to see it, so root and rootless would differ. Attributes whose name a layer
// cannot hold are left out too (Unrecorded).
func InLayer(name []byte) bool {
	switch string(name) {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return bytes.HasPrefix(name, []byte("user.")) && !bytes.Contains(name, []byte("=")) &&
		!bytes.HasPrefix(name, []byte(ownAttributes)) &&
		!bytes.HasPrefix(name, []byte("user.overlay.")) &&
		!bytes.HasPrefix(name, []byte("user.fuseoverlayfs."))
}

// Unrecorded reports whether only the name of an attribute prevents it from being in layers. The
// keyword of a PAX record ends at the first "=" (pax(1), "pax Extended Header"), so that a reader
// takes user.a=b for the attribute user.a.
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

// Xattrs returns those extended attributes of an open file for whose name keep returns true, sorted
// by name. If the file system has none, the result is empty.
func Xattrs(fd int, keep func(name []byte) bool) ([]Xattr, error) {
	// Nearly all files have none.
	if n, err := unix.Flistxattr(fd, nil); n == 0 && err == nil || noXattrs(err) {
		return nil, nil
	}
	return xattrs(keep, func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
}

// XattrsOf is Xattrs for the file at path, of any type. If that is a link, it is the link itself.
func XattrsOf(path string, keep func(name []byte) bool) ([]Xattr, error) {
	return xattrs(keep, func(b []byte) (int, error) { return unix.Llistxattr(path, b) },
		func(name string, b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
}

// XattrsAt is XattrsOf for a name, which ends with a zero byte, in an open directory.
func XattrsAt(dir int, name []byte, keep func(name []byte) bool) ([]Xattr, error) {
	// listxattrat(2) would do, from Linux 6.13 on.
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

// grow calls read with larger buffers until what it reads fits.
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

// FDPath is a path of an open file for system calls that take no descriptor.
func FDPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
