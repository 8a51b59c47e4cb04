package executor

import (
	"cmp"
	"slices"

	"github.com/layerbuild/layerbuild/executor/rawproc"
	"github.com/layerbuild/layerbuild/internal/sorting"
	"golang.org/x/sys/unix"
)

// Steps may not use the system calls that Docker's default profile denies to a container with the
// default capabilities. Docker's profile lists the 400 calls that are allowed. This filter lists
// the 60 others, so that a new system call that needs no capability works. The filter is a binary
// tree: it takes 7 comparisons for a call. The kernel caches the numbers that are allowed with any
// arguments (seccomp's bitmap).
//
// The filter is installed with CAP_SYS_ADMIN, so no_new_privs is not needed and a setuid program
// (sudo) works in a RUN.

// abi is one system call interface of the kernel.
type abi struct {
	arch  uint32 // as in linux/audit.h
	calls *calls
	x32   bool // calls with bit 30 set belong to the x32 interface, which is refused
}

// calls are the numbers of an abi's system calls that are not allowed with all arguments, besides
// deniedNew and callClone3.
type calls struct {
	denied                     []deniedCall
	clone, personality, socket uint32
}

// deniedCall is a system call that returns EPERM unless the command has one of the capabilities
// caps (a set of bits). As in Docker's profile, the kernel then decides whether it may do what it
// asks for. Calls that no capability allows have 0.
type deniedCall struct {
	nr   uint32
	caps uint64
}

// Results of a filter (seccomp(2)).
const (
	retAllow = unix.SECCOMP_RET_ALLOW
	retPerm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	retNoSys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// Offsets into struct seccomp_data. Both architectures are little-endian: the low half of an
// argument comes first.
const (
	offNr   = 0
	offArch = 4
	offArg0 = 16
)

// newNamespaces are clone's flags CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and
// NEWNET.
const newNamespaces = 0x7e020000

// personalities are the allowed arguments of personality(2): PER_LINUX and PER_LINUX32, both also
// with UNAME26, and the value that returns the current one. They change neither the protection of
// the address space nor the call tables.
var personalities = []uint32{0, 8, 0x20000, 0x20008, 0xffffffff}

// afVsock is the address family by which a process can reach the hypervisor from any network
// namespace.
const afVsock = 40

type program []unix.SockFilter

func (p *program) op(code uint16, k uint32) { *p = append(*p, unix.SockFilter{Code: code, K: k}) }
func (p *program) jump(code uint16, k uint32, t, f uint8) {
	*p = append(*p, unix.SockFilter{Code: code, Jt: t, Jf: f, K: k})
}
func (p *program) load(offset uint32) { p.op(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset) }
func (p *program) ret(k uint32)       { p.op(unix.BPF_RET|unix.BPF_K, k) }

// seccompFilter assembles the filter for a command with the capabilities caps (10 µs).
func seccompFilter(native, compat abi, caps uint64) program {
	p := make(program, 0, 512)
	p.load(offArch)
	p.jump(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, native.arch, 0, 1)
	p.op(unix.BPF_JMP|unix.BPF_JA, 3) // a conditional jump reaches 255 instructions only
	p.jump(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, compat.arch, 0, 1)
	toCompat := len(p)
	p.op(unix.BPF_JMP|unix.BPF_JA, 0)
	p.ret(retNoSys)
	p.abi(native, caps)
	p[toCompat].K = uint32(len(p) - toCompat - 1)
	p.abi(compat, caps)
	return p
}

func (p *program) abi(a abi, caps uint64) {
	p.load(offNr)
	if a.x32 {
		p.jump(unix.BPF_JMP|unix.BPF_JSET|unix.BPF_K, 0x40000000, 0, 1)
		p.ret(retNoSys)
	}
	p.tree(verdicts(a.calls, caps))
}

// verdict is the filter's result for the calls from a number on, up to the next verdict's number.
type verdict struct {
	from uint32
	what judgement
}

type judgement uint8

const (
	allow judgement = iota
	deny
	absent
	judgeClone
	judgePersonality
	judgeSocket
)

// verdicts returns the verdicts for all numbers, in order.
func verdicts(c *calls, caps uint64) []verdict {
	special := make([]verdict, 0, len(c.denied)+len(deniedNew)+4)
	for _, d := range slices.Concat(c.denied, deniedNew) {
		if d.caps&caps == 0 {
			special = append(special, verdict{d.nr, deny})
		}
	}
	if caps&capSysAdmin == 0 {
		special = append(special, verdict{c.clone, judgeClone}, verdict{callClone3, absent})
	}
	special = append(special, verdict{c.personality, judgePersonality},
		verdict{c.socket, judgeSocket})
	sorting.Func(special, func(a, b verdict) int { return cmp.Compare(a.from, b.from) })
	all := make([]verdict, 1, 2*len(special)+1) // numbers from 0 on are allowed
	for i, s := range special {
		switch last := &all[len(all)-1]; {
		case last.from == s.from:
			*last = s
		case last.what != s.what:
			all = append(all, s)
		}
		if i+1 == len(special) || special[i+1].from != s.from+1 {
			all = append(all, verdict{s.from + 1, allow})
		}
	}
	return all
}

// tree appends the instructions that find the verdict on the number in the accumulator.
func (p *program) tree(verdicts []verdict) {
	if len(verdicts) == 1 {
		p.judge(verdicts[0].what)
		return
	}
	half := len(verdicts) / 2
	p.jump(unix.BPF_JMP|unix.BPF_JGE|unix.BPF_K, verdicts[half].from, 0, 0)
	branch := len(*p)
	p.tree(verdicts[:half])
	low := len(*p) - branch
	if low > 255 {
		panic("the system call tables are too long for the jumps of a filter")
	}
	(*p)[branch-1].Jt = uint8(low)
	p.tree(verdicts[half:])
}

func (p *program) judge(what judgement) {
	switch what {
	case allow:
		p.ret(retAllow)
	case deny:
		p.ret(retPerm)
	case absent:
		p.ret(retNoSys)
	case judgeClone:
		// New namespaces are denied. clone3 returns ENOSYS, since a filter cannot read its flags.
		// Libraries then use clone.
		p.load(offArg0)
		p.jump(unix.BPF_JMP|unix.BPF_JSET|unix.BPF_K, newNamespaces, 0, 1)
		p.ret(retPerm)
		p.ret(retAllow)
	case judgePersonality:
		p.load(offArg0)
		for _, v := range personalities {
			p.jump(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, v, 0, 1)
			p.ret(retAllow)
		}
		p.ret(retPerm)
	case judgeSocket:
		p.load(offArg0)
		p.jump(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, afVsock, 0, 1)
		p.ret(retPerm)
		p.ret(retAllow)
	default:
		panic("unreachable")
	}
}

// add appends the call that installs the filter to the process's calls.
func (p program) add(s *rawproc.Process) {
	rawproc.Pointer(s, &p[0])
	prog := &unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	s.Must("install the system call filter", unix.SYS_SECCOMP,
		unix.SECCOMP_SET_MODE_FILTER, 0, rawproc.Pointer(s, prog))
}

// filtersCalls reports whether the kernel supports seccomp filters. Such a kernel returns EFAULT
// for a filter at address 0.
func filtersCalls() bool {
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0)
	return errno == unix.EFAULT
}
