package executor

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"golang.org/x/sys/unix"
)

// Process 1 of a step must not be this program. Any process of the step can read the name and the
// command line of process 1 (proc(5)), and this program's command line contains the build arguments
// of all stages. So process 1 is a separate program of a few instructions (init_*.s) that is
// executed from memory. It sets its name to initName and makes itself not dumpable, so that no
// process of the step can read its memory, executable, descriptors and directories (ptrace(2)),
// unless the step has CAP_SYS_PTRACE: then process 1 has no rights that the step lacks. Then it
// writes a byte to report that it is ready, and waits until the other end of its standard input is
// closed. It costs 0.1 ms of CPU a step.

// initName is the command line and the name of process 1.
const initName = "init"

// initSize is the number of bytes of the code that are copied. The bytes after its end are never
// executed.
const initSize = 128

// initCode returns the address of the code. It is implemented in assembly.
func initCode() *byte

// initFile returns a descriptor of the program for execveat(2). The file is sealed: it cannot be
// changed.
var initFile = sync.OnceValues(func() (int, error) {
	// Linux 6.3 and later require MFD_EXEC for a file that will be executed. Earlier kernels do not
	// know the flag.
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
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS,
		unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return -1, err
	}
	// A file that is open for writing cannot be executed.
	read, err := unix.Open(dirfd.FDPath(fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(read)
	return unix.FcntlInt(uintptr(read), unix.F_DUPFD_CLOEXEC, 3)
})

// elfHeader and elfSegment are an ELF64 file's header and a program header (elf(5)). Both supported
// machines are little-endian. debug/elf has these types too, but would make the program 50 kB
// larger.
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

// initImage is the program's file: one segment with code, and a stack that is not executable.
type initImage struct {
	header elfHeader
	load   elfSegment
	stack  elfSegment
	code   [initSize]byte
}

// initELF returns the contents of the program's file.
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
			kind:  executable, machine: machine, version: 1,
			entry:     address + uint64(unsafe.Offsetof(initImage{}.code)),
			phoff:     uint64(unsafe.Offsetof(initImage{}.load)),
			ehsize:    uint16(unsafe.Sizeof(elfHeader{})),
			phentsize: uint16(unsafe.Sizeof(elfSegment{})), phnum: 2,
		},
		load: elfSegment{kind: load, flags: read | execute, vaddr: address, paddr: address,
			filesz: size, memsz: size, align: 1 << 16},
		stack: elfSegment{kind: gnuStack, flags: read | write},
	}
	copy(f.code[:], unsafe.Slice(initCode(), initSize))
	return unsafe.Slice((*byte)(unsafe.Pointer(f)), size)
}

var _ = [1]int{}[unsafe.Sizeof(elfHeader{})-64+unsafe.Sizeof(elfSegment{})-56]
