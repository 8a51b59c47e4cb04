package executor

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is one system call of a rawProcess.
type call struct {
	nr   uintptr
	args [6]uintptr
	ret  uintptr // the result; -errno for an error
	must uintptr // 1: an error ends the process
}

func (k *call) errno() unix.Errno { return errno(k.ret) }

// errno returns the error in the result of a raw system call.
func errno(ret uintptr) unix.Errno {
	if n := int(ret); n < 0 {
		return unix.Errno(-n)
	}
	return 0
}

// rawProcess is a process that makes a list of system calls, one after the other. It shares this
// process's memory and runs no Go code. It costs a tenth of the CPU of starting this program again.
// The last call must be one that does not return.
type rawProcess struct {
	list []call
	// what describes each call, for messages.
	what []string
	keep []any // the memory that the arguments point to
}

// must adds a call. If it fails, the process ends.
func (s *rawProcess) must(what string, nr uintptr, args ...uintptr) {
	s.try(nr, args...)
	s.list[len(s.list)-1].must = 1
	s.what[len(s.what)-1] = what
}

// try adds a call. If it fails, the process goes on.
func (s *rawProcess) try(nr uintptr, args ...uintptr) {
	k := call{nr: nr}
	copy(k.args[:], args)
	s.list = append(s.list, k)
	s.what = append(s.what, "")
}

// exit adds the call that ends the process.
func (s *rawProcess) exit() { s.try(unix.SYS_EXIT_GROUP, 0) }

// pointer returns a pointer as an argument and keeps the value that it points to alive.
func pointer[T any](s *rawProcess, p *T) uintptr {
	s.keep = append(s.keep, p)
	return uintptr(unsafe.Pointer(p))
}

// string returns a string as an argument, ending in a zero byte.
func (s *rawProcess) string(text string) uintptr {
	b := append(make([]byte, 0, len(text)+1), text...)
	return pointer(s, &append(b, 0)[0])
}

// strings returns a list of strings as an argument, in the form of execve's argv.
func (s *rawProcess) strings(list []string) uintptr {
	p := make([]uintptr, len(list)+1)
	for i, text := range list {
		p[i] = s.string(text)
	}
	return pointer(s, &p[0])
}

// failed returns the description and the error of the call that ended the process, or "" and 0.
func (s *rawProcess) failed() (what string, e unix.Errno) {
	for i := range s.list {
		if k := &s.list[i]; k.must == 1 && k.errno() != 0 {
			return s.what[i], k.errno()
		}
	}
	return "", 0
}

// startProcess is implemented in assembly. The new process starts with the stack pointer of this
// thread, and does not use the stack.
func startProcess(flags uintptr, first *call) uintptr

// sigset is the kernel's sigset_t.
type sigset [1]uint64

// start starts a process that makes the calls. The process shares this process's memory, in
// addition to flags, and blocks all signals: Go's signal handlers must not run in it. The caller
// must keep s alive as long as the process makes calls.
func (s *rawProcess) start(flags uintptr) (pid int, err error) {
	all, old := sigset{^uint64(0)}, sigset{}
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)),
		uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	r := startProcess(flags|unix.CLONE_VM|uintptr(unix.SIGCHLD), &s.list[0])
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	runtime.KeepAlive(s)
	if e := errno(r); e != 0 {
		return 0, e
	}
	return int(r), nil
}
