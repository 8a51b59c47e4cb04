package ns

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// self is a path of this program's file, even if another file has its name by now.
const self = "/proc/self/exe"

// enterMount moves this process into a new mount namespace. Unlike a user namespace, a single
// thread can enter it, and an execve from that thread keeps its namespaces, so that no second
// process is needed. enterMount returns only with an error.
func enterMount() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	return again(state{UID: os.Getuid(), GID: os.Getgid()})
}

// again executes the program again from the calling thread, whose namespaces and attributes it
// keeps. It returns only with an error.
func again(st state) error {
	os.Setenv(stateVar, st.String())
	err := syscall.Exec(self, os.Args, os.Environ())
	return fmt.Errorf("start the program again in its namespaces: %w", err)
}

// enterUser starts the program again in new user and mount namespaces, waits for it and exits with
// its status. It returns only with an error.
func enterUser() error {
	ids, reasons := wanted(os.Getuid(), os.Getgid())
	st := state{PPID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(), Reasons: reasons}

	// The kernel sends the PDEATHSIG signal when the thread that started the child ends, so this
	// thread must not end.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		child, err := start(st)
		if err != nil {
			return err
		}
		err = child.mapIDs(ids)
		if err == nil {
			return child.wait()
		}
		child.kill()
		if ids.single() {
			return err
		}
		// newuidmap exists and fails (for example on a file system mounted nosuid). Use a single
		// id.
		ids = oneID(st.UID, st.GID)
		st.Reasons = append(st.Reasons, err.Error())
	}
}

type child struct {
	cmd   *exec.Cmd
	ready *os.File // closed once the ids are mapped
}

func start(st state) (*child, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	// The child inherits the pipe with the same number. Files that the user passes on have other
	// numbers, which the command line may contain as /dev/fd/N.
	if _, err := unix.FcntlInt(r.Fd(), unix.F_SETFD, 0); err != nil {
		w.Close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	st.Ready = int(r.Fd())
	cmd := exec.Command(self)
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), stateVar+"="+st.String())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
		// The child starts before its ids are mapped, as user nobody (65534), and an execve of that
		// user drops all capabilities unless they are ambient. Once its id is mapped to 0 it is
		// root with all capabilities, without another execve.
		AmbientCaps: allCaps(),
	}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, fmt.Errorf("make a user namespace: %w%s", err, hint())
	}
	return &child{cmd, w}, nil
}

func allCaps() []uintptr {
	last := uintptr(unix.CAP_LAST_CAP)
	if b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			last = uintptr(n)
		}
	}
	caps := make([]uintptr, last+1)
	for i := range caps {
		caps[i] = uintptr(i)
	}
	return caps
}

// hint returns a text in parentheses for the end of an error message: the setting that must be
// changed to allow user namespaces or, if no such setting is found, the permissions that a
// container needs for them.
func hint() string {
	settings := []struct{ file, bad, say string }{
		{"/proc/sys/kernel/unprivileged_userns_clone", "0",
			"set the sysctl kernel.unprivileged_userns_clone to 1"},
		{"/proc/sys/user/max_user_namespaces", "0", "raise the sysctl user.max_user_namespaces"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
			"set the sysctl kernel.apparmor_restrict_unprivileged_userns to 0, or give this " +
				"program an AppArmor profile with userns"},
	}
	for _, s := range settings {
		if b, err := os.ReadFile(s.file); err == nil && strings.TrimSpace(string(b)) == s.bad {
			return " (" + s.say + ")"
		}
	}
	return " (in a container: it needs a seccomp profile that allows unshare and mount, or " +
		"CAP_SYS_ADMIN)"
}

func (c *child) kill() {
	c.ready.Close()
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

// wait lets the child start its work, forwards signals to it and ends this process with the child's
// status.
func (c *child) wait() error {
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2)
	if !signal.Ignored(unix.SIGHUP) { // nohup(1)
		signal.Notify(sigs, unix.SIGHUP)
	}
	// The goroutine runs until this process ends: wait ends it, or returns the error that ends it.
	go func() {
		for s := range sigs {
			if (s == unix.SIGINT || s == unix.SIGQUIT) && foreground() {
				continue // the terminal has also sent it to the child
			}
			c.cmd.Process.Signal(s)
		}
	}()
	if _, err := c.ready.Write([]byte{1}); err != nil {
		c.kill()
		return fmt.Errorf("start the program again in its user namespace: %w", err)
	}
	c.ready.Close()
	err := c.cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return fmt.Errorf("wait for the program in its user namespace: %w", err)
	} else if ok {
		if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() {
			os.Exit(128 + int(ws.Signal()))
		}
	}
	os.Exit(c.cmd.ProcessState.ExitCode())
	panic("unreachable")
}

// foreground reports whether keys on the terminal send signals to this process, and so to its
// child, which is in the same process group. On a terminal in raw mode, which "run --tty" sets,
// keys send no signals.
func foreground() bool {
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer unix.Close(tty)
	if mode, err := unix.IoctlGetTermios(tty, unix.TCGETS); err != nil ||
		mode.Lflag&unix.ISIG == 0 {
		return false
	}
	pgrp, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}

// arrive is the part of Enter that runs in the second process.
func arrive(text string) error {
	st, err := parseState(text)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if st.PPID != 0 {
		// An execve that gains capabilities clears the signal (prctl(2)).
		if _, err := prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL)); err != nil {
			return fmt.Errorf("request a signal at the parent's death: %w", err)
		}
		if os.Getppid() != st.PPID {
			os.Exit(128 + int(unix.SIGKILL)) // the parent died before the prctl
		}
	}
	if st.Ready != 0 {
		if err := awaitIDs(st.Ready); err != nil {
			return err
		}
		// Root does not need ambient capabilities, and a helper that changes its user must not have
		// them.
		allThreads, err := prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL)
		if err != nil {
			return fmt.Errorf("clear the ambient capabilities: %w", err)
		}
		if !allThreads {
			// Executing the program again ends the other threads, which still have the
			// capabilities.
			st.Ready = 0
			return again(st)
		}
	}
	// A new mount namespace is a peer of the parent's: mounts made here would appear there.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mount namespace private: %w%s", err, hint())
	}
	return nil
}

func awaitIDs(ready int) error {
	defer unix.Close(ready)
	var b [1]byte
	for {
		n, err := unix.Read(ready, b[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for the ids of the user namespace: %w", err)
		}
		if n == 0 {
			return fmt.Errorf("wait for the ids of the user namespace: %w", io.ErrUnexpectedEOF)
		}
		break
	}
	return nil
}

// prctl makes a prctl(2) call that changes an attribute of a thread, in all threads if it can. A
// new thread inherits the ambient capabilities of the thread that creates it, and the runtime may
// create it from any thread. The signal at the parent's death is cleared when the thread that
// requested it ends. In a program with cgo, which may have threads that the Go runtime did not
// create, prctl makes the call in the calling thread only, and allThreads is false.
func prctl(option int, arg uintptr) (allThreads bool, err error) {
	_, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, uintptr(option), arg, 0, 0, 0, 0)
	switch e {
	case 0:
		return true, nil
	case unix.ENOTSUP:
		return false, unix.Prctl(option, arg, 0, 0, 0)
	default:
		return false, e
	}
}
