package executor

import (
	"encoding/binary"
	"runtime"

	"github.com/layerbuild/layerbuild/internal/platform"
	"golang.org/x/sys/unix"
)

// machines maps values of e_machine (elf(5)) to the names of platforms that images are made for.
var machines = map[uint16]string{
	3: "386", 8: "mips", 20: "ppc", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "amd64",
	183: "arm64", 243: "riscv64", 258: "loong64",
}

// foreign returns the platform of a program if it differs from this machine's, and otherwise "".
func foreign(file string) string {
	head := beginning(file, make([]byte, 20))
	if len(head) < 20 || string(head[:4]) != "\x7fELF" {
		return ""
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if head[5] == 2 {
		order = binary.BigEndian
	}
	name := machines[order.Uint16(head[18:])]
	if name == runtime.GOARCH || name == platform.Predecessor(runtime.GOARCH) {
		return "" // the kernel runs the predecessor's programs too
	}
	return name
}

// beginning reads the first bytes of a file into buf and returns them. It returns nothing if the
// file cannot be read.
func beginning(file string, buf []byte) []byte {
	f, err := unix.Open(file, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(f)
	n, _ := unix.Read(f, buf)
	return buf[:max(n, 0)]
}
