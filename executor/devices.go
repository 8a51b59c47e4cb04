package executor

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// devices are the device nodes that every container has (runtime-spec, config-linux.md, default
// devices).
var devices = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8},
	{"urandom", 1, 9}, {"tty", 5, 0},
}

// insecureDevices are the nodes that an insecure step has in addition, as in BuildKit, with the
// loop devices (admin-guide/devices.txt of the kernel).
var insecureDevices = []struct {
	name         string
	major, minor uint32
}{
	{"kmsg", 1, 11}, {"cuse", 10, 203}, {"fuse", 10, 229}, {"kvm", 10, 232},
	{"net/tun", 10, 200}, {"loop-control", 10, 237},
}

const (
	loopMajor = 7
	// spareLoops is the number of loop devices above the first free one for which there are nodes.
	// The kernel makes the nodes of new loop devices in the machine's /dev only.
	spareLoops = 8
)

// mountInsecureDevices makes the additional nodes of an insecure step in /dev. The step could make
// them itself. In a user namespace nodes cannot be made, and it has none. The same applies to a
// container without CAP_MKNOD.
func (b *sandbox) mountInsecureDevices() error {
	if !b.p.Insecure || b.spec.UserNS {
		return nil
	}
	if err := unix.Mkdirat(b.dev, "net", 0o755); err != nil {
		return fmt.Errorf("make /dev/net: %w", err)
	}
	node := func(name string, kind, major, minor uint32) error {
		err := unix.Mknodat(b.dev, name, kind|0o666, int(unix.Mkdev(major, minor)))
		if err != nil && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("make /dev/%s: %w", name, err)
		}
		return nil
	}
	for _, d := range insecureDevices {
		if err := node(d.name, unix.S_IFCHR, d.major, d.minor); err != nil {
			return err
		}
	}
	for i := range freeLoop() + spareLoops {
		if err := node(fmt.Sprint("loop", i), unix.S_IFBLK, loopMajor, i); err != nil {
			return err
		}
	}
	return nil
}

// freeLoop returns the number of the first free loop device; 0 if the machine has none.
func freeLoop() uint32 {
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	n, err := unix.IoctlRetInt(int(f.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return 0
	}
	return uint32(n)
}
