package rawproc

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is one system call of a Process.
type call struct {
	nr   uintptr
	args [6]uintptr
	ret  uintptr // the result; -errno for an error
	must uintptr // 1: an error ends the process
}

// notMade is the result of a call before it is made. No system call that a Process makes returns
// it.
const notMade = 1<<62 - 1

// errno returns the error in the result of a raw system call.
func errno(ret uintptr) unix.Errno {
	if n := int(ret); n < 0 {
		return unix.Errno(-n)
	}
	return 0
}

// Process is a process that makes a list of system calls, one after the other. It shares this
// program's memory and runs no Go code. The last call must be one that does not return. The zero
// value has no calls.
type Process struct {
	list []call
	// what describes each call, for messages.
	what []string
	keep []any // the memory that the arguments point to
	// closes is the number of calls up to the last one that closes descriptors; 0 if there is none.
	closes int
}

// Must adds a call, described by what. If it fails, the process ends.
func (p *Process) Must(what string, nr uintptr, args ...uintptr) {
	k := &p.list[p.Try(nr, args...)]
	k.must = 1
	p.what[len(p.what)-1] = what
}

// Try adds a call and returns its index, for Errno. If the call fails, the process continues.
func (p *Process) Try(nr uintptr, args ...uintptr) int {
	k := call{nr: nr, ret: notMade}
	copy(k.args[:], args)
	p.list = append(p.list, k)
	p.what = append(p.what, "")
	return len(p.list) - 1
}

// Exit adds the call that ends the process.
func (p *Process) Exit() { p.Try(unix.SYS_EXIT_GROUP, 0) }

// Close adds a call that closes the descriptors from first to last (close_range(2), Linux 5.9). If
// it fails, the process ends. A process that is started without CLONE_VFORK must close all
// descriptors that it does not need.
func (p *Process) Close(first, last uintptr) {
	p.Must("close descriptors", unix.SYS_CLOSE_RANGE, first, last, 0)
	p.closes = len(p.list)
}

// Execve adds a call that executes a file, described by what. If it fails, the process continues.
// Failed returns the error.
func (p *Process) Execve(what, file string, args, env []string) {
	p.Try(unix.SYS_EXECVE, p.String(file), p.Strings(args), p.Strings(env))
	p.what[len(p.what)-1] = what
}

// Pointer returns a pointer as an argument and keeps the value that it points to alive.
func Pointer[T any](p *Process, v *T) uintptr {
	p.keep = append(p.keep, v)
	return uintptr(unsafe.Pointer(v))
}

// String returns a string as an argument, ending in a zero byte.
func (p *Process) String(text string) uintptr {
	b := append(make([]byte, 0, len(text)+1), text...)
	return Pointer(p, &append(b, 0)[0])
}

// Strings returns a list of strings as an argument, in the form of execve's argv.
func (p *Process) Strings(list []string) uintptr {
	all := make([]uintptr, len(list)+1)
	for i, text := range list {
		all[i] = p.String(text)
	}
	return Pointer(p, &all[0])
}

// Errno returns the error of the call with an index; 0 if the call succeeded or was not made.
func (p *Process) Errno(i int) unix.Errno { return errno(p.list[i].ret) }

// Failed returns the description and the error of the first call that has a description and has
// failed, or "" and 0.
func (p *Process) Failed() (what string, e unix.Errno) {
	for i := range p.list {
		if k := &p.list[i]; p.what[i] != "" && errno(k.ret) != 0 {
			return p.what[i], errno(k.ret)
		}
	}
	return "", 0
}

// startProcess is implemented in assembly. The new process starts with the stack pointer of this
// thread, but does not use the stack.
func startProcess(flags uintptr, first *call) uintptr

// sigset is the kernel's sigset_t.
type sigset [1]uint64

// Start starts the process and returns its pid. The process shares this program's memory, in
// addition to flags (clone(2)), and blocks all signals: Go's signal handlers must not run in it.
// The caller must keep p alive as long as the process makes calls. Without CLONE_VFORK it must call
// Ended after the process has ended.
func (p *Process) Start(flags uintptr) (pid int, err error) {
	all, old := sigset{^uint64(0)}, sigset{}
	forks.add(p)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)),
		uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	r := startProcess(flags|unix.CLONE_VM|uintptr(unix.SIGCHLD), &p.list[0])
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	runtime.KeepAlive(p)
	e := errno(r)
	if e != 0 || flags&unix.CLONE_VFORK != 0 {
		p.Ended()
	}
	if e != 0 {
		return 0, e
	}
	return int(r), nil
}
