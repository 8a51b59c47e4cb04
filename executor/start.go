package executor

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/executor/rawproc"
	"golang.org/x/sys/unix"
)

// busyWait limits how long start waits for a program that is open for writing.
const busyWait = 2 * time.Second

// start starts the command in the namespaces of this thread, with three open files. Capabilities
// and other rights are dropped in the new process only: this process needs them for cleaning up.
//
// The kernel does not execute a file that is open for writing. rawproc.Settle has waited for this
// program's own processes. For a short time, a process of another program that writes to the same
// state can still have a copy of a descriptor, so start tries again.
func (c *command) start(files [3]int) (int, error) {
	files, err := c.standard(files)
	if err != nil {
		return 0, err
	}
	defer func() {
		for _, fd := range files {
			unix.Close(fd)
		}
	}()
	waited := time.Duration(0)
	for pause := time.Millisecond; ; pause *= 2 {
		pid, what, err := c.startOnce(files)
		switch {
		case err == nil:
			return pid, nil
		case what == execve && err == unix.ETXTBSY && waited < busyWait:
			time.Sleep(pause)
			waited += pause
		case what == execve:
			return 0, c.execError(err)
		case what == "":
			return 0, err
		default:
			return 0, fmt.Errorf("%s: %w", what, err)
		}
	}
}

// startOnce starts the command. If a call of the new process has failed, it returns the call's
// description.
func (c *command) startOnce(files [3]int) (pid int, what string, err error) {
	var s rawproc.Process
	if err := c.become(&s, files); err != nil {
		return 0, "", err
	}
	defer keepDumpable()()
	if pid, err = s.Start(unix.CLONE_VFORK); err != nil {
		return 0, "start the command", err
	}
	what, errno := s.Failed()
	if errno == 0 {
		return pid, "", nil
	}
	retry(func() (int, error) { return unix.Wait4(pid, nil, 0, nil) })
	return 0, what, errno
}

// standard duplicates the command's standard three to descriptors above 2, so that none is
// overwritten before it is used. It also changes the owner of pipes to the command's user.
func (c *command) standard(files [3]int) (copies [3]int, err error) {
	for i, f := range files {
		if copies[i], err = unix.FcntlInt(uintptr(f), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			for _, fd := range copies[:i] {
				unix.Close(fd)
			}
			return copies, fmt.Errorf("open the step's input and output: %w", err)
		}
		c.ownPipe(f)
	}
	return copies, nil
}

// ownPipe makes the command's user the owner of an output that is a pipe. When a program opens
// /dev/stdout by name, the kernel checks the pipe's owner.
func (c *command) ownPipe(fd int) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		unix.Fchown(fd, int(c.id.uid), int(c.id.gid))
	}
}

// keepDumpable returns a function to be called after the new process has changed its user. When the
// process changes its user, the kernel marks the memory as not dumpable, which the process shares
// with this program until the execve.
func keepDumpable() (restore func()) {
	if was, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err == nil && was == 1 {
		return func() { unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }
	}
	return func() {}
}

// execve is the description of the last call.
const execve = "execve"

// become appends the calls that turn a process into the command.
func (c *command) become(s *rawproc.Process, files [3]int) error {
	for i, fd := range files {
		s.Must("open the step's input and output", unix.SYS_DUP3, uintptr(fd), uintptr(i), 0)
	}
	if c.closed {
		s.Try(unix.SYS_CLOSE_RANGE, 3, uintptr(^uint32(0)), 0) // since Linux 5.9
	} else {
		s.Close(3, uintptr(^uint32(0)))
	}
	s.Must("start a session", unix.SYS_SETSID)
	if c.console >= 0 {
		s.Must("set up the terminal", unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 1)
	}
	s.Must("set the umask", unix.SYS_UMASK, 0o022)
	if err := c.limit(s); err != nil {
		return err
	}
	if !c.p.Insecure {
		if err := errors.Join(c.p.checkCaps(hasCap), c.p.limitRights(s, c.p.caps())); err != nil {
			return err
		}
	}
	c.changeUser(s)
	resetSignals(s)
	s.Execve(execve, c.file, c.p.Args, c.env)
	s.Exit()
	return nil
}

// limitRights limits a process to the capabilities in keep, and to the system calls that the
// command may make.
func (p *Process) limitRights(s *rawproc.Process, keep uint64) error {
	if err := dropCaps(s, keep); err != nil {
		return err
	}
	if filtersCalls() {
		seccompFilter(native, compat, p.caps()).add(s)
	}
	return nil
}

// resetSignals sets all signals to their default action and unblocks them. execve resets handlers,
// but not ignored signals. No handler of Go may run in the process once signals are unblocked.
func resetSignals(s *rawproc.Process) {
	byDefault := rawproc.Pointer(s, &sigaction{})
	for n := uintptr(1); n <= 64; n++ {
		if n != uintptr(unix.SIGKILL) && n != uintptr(unix.SIGSTOP) {
			s.Must("reset a signal", unix.SYS_RT_SIGACTION, n, byDefault, 0, 8)
		}
	}
	s.Must("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		rawproc.Pointer(s, new(uint64)), 0, 8) // the kernel's sigset_t
}

func (c *command) changeUser(s *rawproc.Process) {
	what := fmt.Sprintf("become user %d:%d", c.id.uid, c.id.gid)
	if !c.spec.SingleID {
		var first uintptr
		if len(c.id.groups) > 0 {
			first = rawproc.Pointer(s, &c.id.groups[0])
		}
		s.Must(what, unix.SYS_SETGROUPS, uintptr(len(c.id.groups)), first)
	}
	s.Must(what, unix.SYS_SETGID, uintptr(c.id.gid))
	s.Must(what, unix.SYS_SETUID, uintptr(c.id.uid))
}

// dropCaps limits a process and its descendants to the capabilities in keep: root's execve gains
// the capabilities of the bounding set (capabilities(7)), and another user has none.
func dropCaps(s *rawproc.Process, keep uint64) error {
	const what = "drop capabilities"
	s.Must(what, unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for n := uintptr(0); n < 64; n++ {
		if keep&(1<<n) != 0 {
			continue
		}
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, n, 0, 0, 0)
		if err != nil {
			break // higher than the kernel's last capability
		}
		if has == 1 {
			s.Must(what, unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n, 0, 0, 0)
		}
	}
	h := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(h, &d[0]); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if d[0].Inheritable|d[1].Inheritable != 0 {
		d[0].Inheritable, d[1].Inheritable = 0, 0
		s.Must(what, unix.SYS_CAPSET, rawproc.Pointer(s, h), rawproc.Pointer(s, &d[0]))
	}
	return nil
}

// limits maps the names of --ulimit to resources.
var limits = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU,
	"data":  unix.RLIMIT_DATA,
	"fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK,
	"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
	"rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// CheckUlimit returns an error when there is no resource limit of that name.
func CheckUlimit(name string) error {
	if _, ok := limits[strings.ToLower(name)]; !ok {
		return fmt.Errorf("unknown limit %q (known: %s)", name,
			strings.Join(slices.Sorted(maps.Keys(limits)), ", "))
	}
	return nil
}

// limit sets the command's resource limits.
func (c *command) limit(s *rawproc.Process) error {
	for _, u := range c.p.Ulimits {
		n, ok := limits[strings.ToLower(u.Name)]
		if !ok {
			return fmt.Errorf("unknown limit %q", u.Name)
		}
		l := &unix.Rlimit{Cur: uint64(u.Soft), Max: uint64(u.Hard)} // -1 becomes RLIM_INFINITY
		s.Must(fmt.Sprintf("set the limit %s to %d:%d", u.Name, u.Soft, u.Hard), unix.SYS_PRLIMIT64,
			0, uintptr(n), rawproc.Pointer(s, l), 0)
	}
	return nil
}
