package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"golang.org/x/sys/unix"
)

// These are the names (argv[0]) of a step's child: this program, started again for a step that a
// thread cannot run (see needsProcess).
const (
	marker = "layerbuild-step"
	// unpackMarker is the name for a copyfs.Copy that may have to unpack archives.
	unpackMarker = "layerbuild-unpack"
)

func isChild(name string) bool { return len(os.Args) == 1 && os.Args[0] == name }

// A step's child does its work in init and does not reach main. The Go runtime initializes packages
// in order of their dependencies and import paths. This package has few dependencies, so it is
// initialized before the regular expressions, certificates and message types of the rest of the
// program, which take most of the start-up time (5 of 7 ms of CPU for a RUN true).
func init() {
	if !isChild(marker) && !isChild(unpackMarker) {
		return
	}
	// The parent set this before the execve, which clears it if the program gains capabilities
	// (prctl(2)). The setting belongs to the thread: init runs in the process's first thread, which
	// does not end before the process.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "layerbuild: request a signal at the parent's death:", err)
		os.Exit(1)
	}
	if isChild(marker) {
		os.Exit(child(nil))
	}
}

// Main does a step's work and exits, if this process is the child of a step that needs other
// packages of the program, too. Otherwise it returns at once. A program must call it first in main.
// unpack unpacks the archives of an ADD.
func Main(unpack copyfs.Unpacker) {
	if isChild(unpackMarker) {
		os.Exit(child(unpack))
	}
}

// socketFD is the child's end of the socket to the parent.
const socketFD = 3

// fd is a descriptor that is read and written without the runtime's poller, which the child does
// not start.
type fd int

func (f fd) Read(p []byte) (int, error) {
	n, err := retry(func() (int, error) { return unix.Read(int(f), p) })
	if n == 0 && err == nil && len(p) > 0 {
		return 0, errEnd
	}
	return max(n, 0), err
}

func (f fd) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := retry(func() (int, error) { return unix.Write(int(f), p[done:]) })
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

var errEnd = errors.New("end of file")

// child runs the step and returns the exit status of the process: 0 if it has reported the step's
// outcome.
func child(unpack copyfs.Unpacker) int {
	j, err := receiveJob()
	if err != nil {
		fmt.Fprintln(os.Stderr, "layerbuild: read the step:", err)
		return 1
	}
	var o outcome
	// There is no context here: this process is killed when the context of Run ends.
	switch a := j.spec.Action.(type) {
	case *Process:
		err = runProcess(j, a, &o)
	case *copyfs.Copy:
		setOpenDirs(a, j.dirs)
		err = runFiles(context.Background(), &j.spec, unpack, &o.result)
	case *Mkdir:
		err = runFiles(context.Background(), &j.spec, nil, &o.result)
	default:
		panic("unreachable")
	}
	if exit, ok := errors.AsType[*ExitError](err); ok {
		o.exit = *exit
	} else if err != nil {
		o.failed, o.message = true, err.Error()
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			o.errno = int(errno)
		}
	}
	if c, ok := errors.AsType[*copyfs.ChangedError](err); ok {
		o.changed, o.changedBelow = c.Path, c.Below
	}
	if err := send(fd(socketFD), func(w *wire) { w.outcome(&o) }); err != nil {
		fmt.Fprintln(os.Stderr, "layerbuild: report the step:", err)
		return 1
	}
	return 0
}

func receiveJob() (*job, error) {
	if err := ignoreSignals(); err != nil {
		return nil, err
	}
	if err := closeOnExecAll(); err != nil {
		return nil, err
	}
	j := &job{}
	if err := receive(fd(socketFD), func(w *wire) { w.job(j) }); err != nil {
		return nil, err
	}
	// If the parent died before init, there is no signal. But then the other end of the socket is
	// closed.
	fds := []unix.PollFd{{Fd: socketFD, Events: unix.POLLRDHUP}}
	if n, err := retry(func() (int, error) { return unix.Poll(fds, 0) }); err == nil && n == 1 {
		return nil, errors.New("the program that started this step has ended")
	}
	return j, nil
}

// ignoreSignals ignores the signals that a ^C on the terminal or a command that signals process 1
// would send. It makes the system calls itself, since the runtime's signal handling needs another
// thread.
func ignoreSignals() error {
	ignore := sigaction{handler: 1 /* SIG_IGN */}
	for _, s := range []unix.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGPIPE, unix.SIGALRM,
		unix.SIGTERM, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGVTALRM, unix.SIGIO, unix.SIGPWR,
	} {
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s),
			uintptr(unsafe.Pointer(&ignore)), 0, 8, 0, 0)
		if errno != 0 {
			return fmt.Errorf("ignore a signal: %w", errno)
		}
	}
	return nil
}

// closeOnExecAll marks all descriptors but the standard three as close-on-exec, so that the command
// inherits neither the program's own descriptors nor those that the program has inherited from its
// caller.
func closeOnExecAll() error {
	err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC)
	if err != unix.ENOSYS && err != unix.EINVAL {
		return err
	}
	names, err := os.ReadDir("/proc/self/fd") // before Linux 5.11
	if err != nil {
		return err
	}
	for _, e := range names {
		var n int
		if _, err := fmt.Sscan(e.Name(), &n); err == nil && n >= 3 {
			unix.CloseOnExec(n)
		}
	}
	return nil
}
