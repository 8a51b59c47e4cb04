package executor

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is one system call of a process that does nothing but make system calls, one after the other. Such a process
// shares this one's memory and runs no code of Go's: it costs a tenth of what starting this program again does.
type call struct {
	nr   uintptr
	args [6]uintptr
	ret  uintptr // what it returned; -errno for an error
	must uintptr // 1: an error ends the process
}

func (k *call) errno() unix.Errno { return errno(k.ret) }

// errno is the error in what a raw system call returns.
func errno(ret uintptr) unix.Errno {
	if n := int(ret); n < 0 {
		return unix.Errno(-n)
	}
	return 0
}

// script is what a process does. The last one must be one that does not return.
type script struct {
	list []call
	// what says in words what each call does.
	what []string
	keep []any // what the arguments point to
}

// must adds a call whose error ends the process.
func (s *script) must(what string, nr uintptr, args ...uintptr) {
	s.try(nr, args...)
	s.list[len(s.list)-1].must = 1
	s.what[len(s.what)-1] = what
}

// try adds a call that may go wrong.
func (s *script) try(nr uintptr, args ...uintptr) {
	k := call{nr: nr}
	copy(k.args[:], args)
	s.list = append(s.list, k)
	s.what = append(s.what, "")
}

// exit ends the process.
func (s *script) exit() { s.try(unix.SYS_EXIT_GROUP, 0) }

// keeps makes a pointer an argument, and keeps what it points to.
func keeps[T any](s *script, p *T) uintptr {
	s.keep = append(s.keep, p)
	return uintptr(unsafe.Pointer(p))
}

// string makes a string an argument.
func (s *script) string(text string) uintptr {
	b := append(make([]byte, 0, len(text)+1), text...)
	return keeps(s, &append(b, 0)[0])
}

// strings makes a list of strings an argument, as execve wants it.
func (s *script) strings(list []string) uintptr {
	p := make([]uintptr, len(list)+1)
	for i, text := range list {
		p[i] = s.string(text)
	}
	return keeps(s, &p[0])
}

// failed returns what the process ended with: the words for the call and its error, or "" and 0.
func (s *script) failed() (what string, e unix.Errno) {
	for i := range s.list {
		if k := &s.list[i]; k.must == 1 && k.errno() != 0 {
			return s.what[i], k.errno()
		}
	}
	return "", 0
}

// startProcess is in assembly. The new process keeps the stack pointer of this thread, and does not touch the stack.
func startProcess(flags uintptr, first *call) uintptr

// sigset is the kernel's set of signals.
type sigset [1]uint64

// start starts a process that makes the calls. Besides flags it shares this one's memory, and all signals are blocked
// in it: a handler of Go's must never run there. s has to be kept alive, by the caller, as long as the process makes
// calls of it.
func (s *script) start(flags uintptr) (pid int, err error) {
	all, old := sigset{^uint64(0)}, sigset{}
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	r := startProcess(flags|unix.CLONE_VM|uintptr(unix.SIGCHLD), &s.list[0])
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	runtime.KeepAlive(s)
	if e := errno(r); e != 0 {
		return 0, e
	}
	return int(r), nil
}
