package rawfs

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A user namespace may not make device nodes (mknod(2)). An empty regular file stands for one there: it has the node's
// owner, mode and time, and the attribute DeviceMark says which node it is. Layers made of the file have the node, and
// so are the same as root's; what runs on the snapshot sees the file. As a file it can be removed, renamed and copied,
// and none of that is a change that root's layer would not have. The mark counts in a user namespace only, and neither
// layers nor archives nor build contexts bring it (InLayer).

// DeviceMark is the attribute that says which device node a file stands for.
const DeviceMark = ownAttributes + "device"

// ownAttributes is how attributes begin that are this program's own, and in no layer.
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

// DeviceOf returns the device node that an attribute stands for, and reports whether it stands for one.
func DeviceOf(x Xattr) (d Device, ok bool) {
	if x.Name != DeviceMark {
		return d, false
	}
	var kind rune
	if _, err := fmt.Sscanf(string(x.Value), "%c %d:%d", &kind, &d.Major, &d.Minor); err != nil || kind != 'c' && kind != 'b' {
		return Device{}, false
	}
	d.Block = kind == 'b'
	return d, true
}
