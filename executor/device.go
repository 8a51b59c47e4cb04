package executor

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// nodeTypes maps the types of nodes to their bits.
var nodeTypes = map[string]uint32{"b": unix.S_IFBLK, "c": unix.S_IFCHR, "p": unix.S_IFIFO}

// mountDevice mounts a node at target.
func (b *sandbox) mountDevice(target, name string, d Device) error {
	st, err := d.resolve()
	if err != nil {
		return err
	}
	m, own, err := b.node(name, d, st)
	if err != nil {
		return err
	}
	attrs := uint64(0)
	if !own {
		// This prevents changes of the node's owner and mode, but not writing to the device.
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	if d.Closed {
		attrs |= unix.MOUNT_ATTR_NODEV
	}
	return b.putAndClose(m, target, false, attrs, false)
}

// resolve returns the type, mode and number of the node. It returns an error if they are those of
// the host's node and there is none.
func (d *Device) resolve() (st unix.Stat_t, err error) {
	var host unix.Stat_t
	err = unix.Lstat(d.Host, &host)
	whole := d.Type == "p" || d.Type != "" && d.Major != 0
	if err != nil && !whole {
		return st, fmt.Errorf("look at %s of the host: %w", d.Host, err)
	}
	mode, hostType := uint32(0o666), uint32(0)
	if err == nil {
		hostType = host.Mode & unix.S_IFMT
		mode = host.Mode & 0o777
	}
	if d.Mode != nil {
		mode = *d.Mode & 0o777
	}
	typ, ok := nodeTypes[d.Type]
	switch {
	case d.Type == "" && isNode(hostType):
		typ = hostType
	case !ok:
		return st, fmt.Errorf("%s of the host is not a device node", d.Host)
	case !whole && typ != hostType:
		return st, fmt.Errorf("%s of the host is not of the type %s", d.Host, d.Type)
	}
	st.Mode = typ | mode
	switch {
	case typ == unix.S_IFIFO:
	case d.Major != 0:
		st.Rdev = unix.Mkdev(d.Major, d.Minor)
	default:
		st.Rdev = host.Rdev
	}
	return st, nil
}

// isNode reports whether files of a type are device nodes or fifos.
func isNode(typ uint32) bool {
	return typ == unix.S_IFBLK || typ == unix.S_IFCHR || typ == unix.S_IFIFO
}

// node returns a mount of a node, and whether the node is a new one.
func (b *sandbox) node(name string, d Device, st unix.Stat_t) (m int, own bool, err error) {
	if !b.spec.UserNS || st.Mode&unix.S_IFMT == unix.S_IFIFO {
		err := unix.Mknodat(b.stagingFD, name, st.Mode, int(st.Rdev))
		if err == nil {
			if err := b.own(name, d, st.Mode); err != nil {
				return -1, false, err
			}
			m, err = cloneMount(b.stagingFD, name, 0)
			return m, true, err
		}
		if !errors.Is(err, unix.EPERM) {
			return -1, false, fmt.Errorf("make the node: %w", err)
		}
	}
	m, err = b.hostNode(d, st)
	return m, false, err
}

// own sets the owner and mode of a new node.
func (b *sandbox) own(name string, d Device, mode uint32) error {
	id := identity{}
	if d.UID == nil || d.GID == nil {
		var err error
		if id, err = lookupUser(b.root, b.p.User); err != nil {
			return err
		}
	}
	if d.UID != nil {
		id.uid = *d.UID
	}
	if d.GID != nil {
		id.gid = *d.GID
	}
	if err := unix.Fchownat(b.stagingFD, name, int(id.uid), int(id.gid),
		unix.AT_SYMLINK_NOFOLLOW); err != nil && !b.spec.SingleID {
		return fmt.Errorf("give the node to %d:%d: %w", id.uid, id.gid, err)
	}
	return unix.Fchmodat(b.stagingFD, name, mode&0o777, 0)
}

// hostNode returns a mount of the host's node, which must be the one that st describes.
func (b *sandbox) hostNode(d Device, st unix.Stat_t) (int, error) {
	fd, err := unix.Open(d.Host, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("a node cannot be made without root; open %s of the host: %w",
			d.Host, err)
	}
	defer unix.Close(fd)
	var host unix.Stat_t
	if err := unix.Fstat(fd, &host); err != nil {
		return -1, err
	}
	if host.Mode&unix.S_IFMT != st.Mode&unix.S_IFMT || host.Rdev != st.Rdev {
		return -1, fmt.Errorf("a node cannot be made without root, and %s of the host is another "+
			"device: its number is %d:%d", d.Host, unix.Major(host.Rdev),
			unix.Minor(host.Rdev))
	}
	if d.UID != nil || d.GID != nil || d.Mode != nil && *d.Mode&0o777 != host.Mode&0o777 {
		b.result.Warnings = append(b.result.Warnings, fmt.Sprintf("the device node %s has the "+
			"owner and mode that it has on the host, since a node cannot be made without root",
			d.Host))
	}
	return cloneMount(fd, "", 0)
}
