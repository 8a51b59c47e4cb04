package executor

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Process 1 of a step must show nothing of this program: any process of the step can read its command line, which has
// the build arguments of all stages, and its name, whatever it may not do otherwise (proc(5)). So process 1 is a program
// of its own, a few instructions long (init_*.s), that is executed from memory. It takes the name initName, makes itself
// not dumpable, so that nobody in the step may look at its memory, file, descriptors and directories (ptrace(2)), says
// that it is ready, and waits until the other end of its standard input is closed. It costs 0.1 ms of CPU a step.

// initName is the command line and the name of process 1.
const initName = "init"

// initSize is how much is copied of the code. What is behind its end is never reached.
const initSize = 128

// initCode returns where the code begins. It is in assembly.
func initCode() *byte

// initFile opens the program for execveat(2). Nobody can write to the file any more.
var initFile = sync.OnceValues(func() (int, error) {
	// Since Linux 6.3 one says that it is to be executed; before that the flag is not known.
	fd, err := unix.MemfdCreate(initName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate(initName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, initELF()); err != nil {
		return -1, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return -1, err
	}
	// A file that is open for writing cannot be executed.
	read, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(read)
	return unix.FcntlInt(uintptr(read), unix.F_DUPFD_CLOEXEC, 3)
})

// elfHeader and elfSegment are an ELF64 file's header and a program header (elf(5)); both machines are little-endian.
// debug/elf has them too, and would make the program 50 kB larger.
type elfHeader struct {
	ident                                      [16]byte
	kind, machine                              uint16
	version                                    uint32
	entry, phoff, shoff                        uint64
	flags                                      uint32
	ehsize, phentsize, phnum, shentsize, shnum uint16
	shstrndx                                   uint16
}

type elfSegment struct {
	kind, flags                                uint32
	offset, vaddr, paddr, filesz, memsz, align uint64
}

// initImage is the program: one segment, which is code, and a stack that is not.
type initImage struct {
	header elfHeader
	load   elfSegment
	stack  elfSegment
	code   [initSize]byte
}

// initELF returns the program's file.
func initELF() []byte {
	const (
		address                    = 0x400000
		executable, load, gnuStack = 2, 1, 0x6474e551
		read, write, execute       = 4, 2, 1
	)
	machine := uint16(62) // EM_X86_64
	if runtime.GOARCH == "arm64" {
		machine = 183 // EM_AARCH64
	}
	size := uint64(unsafe.Sizeof(initImage{}))
	f := &initImage{
		header: elfHeader{
			ident: [16]byte{0x7f, 'E', 'L', 'F', 2 /* 64 bits */, 1 /* little-endian */, 1},
			kind:  executable, machine: machine, version: 1, entry: address + uint64(unsafe.Offsetof(initImage{}.code)),
			phoff: uint64(unsafe.Offsetof(initImage{}.load)), ehsize: uint16(unsafe.Sizeof(elfHeader{})),
			phentsize: uint16(unsafe.Sizeof(elfSegment{})), phnum: 2,
		},
		load:  elfSegment{kind: load, flags: read | execute, vaddr: address, paddr: address, filesz: size, memsz: size, align: 1 << 16},
		stack: elfSegment{kind: gnuStack, flags: read | write},
	}
	copy(f.code[:], unsafe.Slice(initCode(), initSize))
	return unsafe.Slice((*byte)(unsafe.Pointer(f)), size)
}

var _ = [1]int{}[unsafe.Sizeof(elfHeader{})-64+unsafe.Sizeof(elfSegment{})-56]
