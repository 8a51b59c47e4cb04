package dirfd

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A process in a user namespace may not make device nodes (mknod(2)). There an empty regular file
// stands for the node: it has the node's owner, mode and time, and the attribute DeviceMark, which
// identifies the node. A layer made from the file contains the node, and is the same as if root had
// made it. For commands that run on the snapshot, it is a regular file; removing, renaming and
// copying it changes the layer as it would for the node. The mark is used in a user namespace only,
// and is not taken from layers, archives and build contexts (InLayer).

// DeviceMark is the attribute that identifies the device node for which a file stands.
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

// DeviceOf returns the device node that an attribute describes, and reports whether it describes
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
