package dirfd

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A user namespace may not make device nodes (mknod(2)). An empty regular file stands for one
// there: it has the node's owner, mode and time, and the attribute DeviceMark, which identifies the
// node. Layers made from the file have the node, and so are the same as root's. Commands that run
// on the snapshot see the file; removing, renaming and copying it changes the layer as it would for
// the node. The mark is used in a user namespace only, and is not taken from layers, archives and
// build contexts (InLayer).

// DeviceMark is the attribute that identifies the device node that a file stands for.
const DeviceMark = ownAttributes + "device"

// ownAttributes is the prefix of this program's own attributes, which are in no layer.
const ownAttributes = "user.layerbuild."

// Device is a device node.
type Device struct {
	Block        bool
	Major, Minor uint32
}

// Mark gives an open file the mark.
func (d Device) Mark(fd int) error {
	kind := 'c'
	if d.Block {
		kind = 'b'
	}
	return unix.Fsetxattr(fd, DeviceMark, fmt.Appendf(nil, "%c %d:%d", kind, d.Major, d.Minor), 0)
}

// DeviceOf returns the device node that an attribute stands for, and reports whether it stands for
// one.
func DeviceOf(x Xattr) (d Device, ok bool) {
	if x.Name != DeviceMark {
		return d, false
	}
	var kind rune
	if _, err := fmt.Sscanf(string(x.Value), "%c %d:%d", &kind, &d.Major, &d.Minor); err != nil ||
		kind != 'c' && kind != 'b' {
		return Device{}, false
	}
	d.Block = kind == 'b'
	return d, true
}
