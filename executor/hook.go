package executor

import (
	"fmt"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/executor/rawproc"
)

// Hook is a program of the host that prepares a command's root file system, such as one that makes
// the links to the libraries of a GPU's driver. Run executes it after all mounts have been made and
// before the root is entered, as an OCI runtime executes a createContainer hook (runtime-spec,
// config.md, POSIX-platform Hooks): with the rights of this program, in the step's namespaces and
// with the files of the host. Its standard input has the state of the container. The bundle that
// the state names has a config.json with the path of the root file system. Its output is that of
// the command.
type Hook struct {
	// Path is a file of the host. Args is the argument list with the program's name; empty: Path.
	Path string
	Args []string
	// Env is the whole environment.
	Env []string
	// Timeout limits how long the hook may run; 0: it is not limited.
	Timeout time.Duration
}

// bundleRoot is the name of the root file system in the staging directory, which is the bundle of
// hooks.
const bundleRoot = "root"

// hookConfig is the config.json of the bundle. It has what hooks read of it: where the root is.
const hookConfig = `{"ociVersion":"1.2.0","root":{"path":"` + bundleRoot + `"}}`

// hookState returns the state that a hook reads (runtime-spec, runtime.md, State). The staging
// directory is one of stagingDirs, so it needs no escapes. pid is that of this thread in the
// host's /proc: it has the namespaces of the step.
func (b *sandbox) hookState() (string, error) {
	self, err := readlink("/proc/thread-self")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`{"ociVersion":"1.2.0","id":"layerbuild","status":"creating","pid":%s,`+
		`"bundle":"%s"}`, path.Base(self), b.staging), nil
}

func readlink(name string) (string, error) {
	buf := make([]byte, 256)
	n, err := unix.Readlink(name, buf)
	if err != nil {
		return "", fmt.Errorf("read the link %s: %w", name, err)
	}
	return string(buf[:n]), nil
}

// runHooks executes the hooks in their order.
func (b *sandbox) runHooks() error {
	if len(b.p.Hooks) == 0 {
		return nil
	}
	state, err := b.hookState()
	if err == nil {
		err = b.writeStaged("config.json", hookConfig)
	}
	if err == nil {
		err = b.writeStaged("state.json", state)
	}
	if err != nil {
		return fmt.Errorf("prepare the hooks of a device: %w", err)
	}
	for _, h := range b.p.Hooks {
		if err := b.runHook(h); err != nil {
			return fmt.Errorf("hook %s of a device: %w", h.Path, err)
		}
	}
	return nil
}

// writeStaged writes a new file in the staging directory.
func (b *sandbox) writeStaged(name, text string) error {
	f, err := unix.Openat(b.stagingFD, name,
		unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(f)
	_, err = fd(f).Write([]byte(text))
	return err
}

// runHook executes a hook and waits for it.
func (b *sandbox) runHook(h Hook) error {
	input, err := unix.Openat(b.stagingFD, "state.json", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(input)
	// The copy is above the descriptors that the process replaces.
	output, err := unix.FcntlInt(uintptr(b.output), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	defer unix.Close(output)
	var s rawproc.Process
	for i, f := range []int{input, output, output} {
		s.Must("open its input and output", unix.SYS_DUP3, uintptr(f), uintptr(i), 0)
	}
	s.Close(3, uintptr(^uint32(0)))
	s.Must("start a session", unix.SYS_SETSID)
	s.Must("set the umask", unix.SYS_UMASK, 0o022)
	s.Must("enter the bundle", unix.SYS_CHDIR, s.String(b.staging))
	resetSignals(&s)
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	s.Execve(execve, h.Path, args, h.Env)
	s.Exit()
	pid, err := s.Start(unix.CLONE_VFORK)
	if err != nil {
		return err
	}
	late, err := waitHook(pid, h.Timeout)
	// Processes that it leaves behind would keep its rights. They are in its process group, whose
	// number is not used again before the hook is reaped.
	unix.Kill(-pid, unix.SIGKILL)
	var ws unix.WaitStatus
	if _, werr := retry(func() (int, error) { return unix.Wait4(pid, &ws, 0, nil) }); err == nil {
		err = werr
	}
	waitGroup(pid)
	if err != nil {
		return err
	}
	what, errno := s.Failed()
	switch {
	case errno != 0:
		return fmt.Errorf("%s: %w", what, errno)
	case late:
		return fmt.Errorf("it did not end within %v", h.Timeout)
	case ws.Signaled():
		return fmt.Errorf("it was ended by signal %d", ws.Signal())
	case ws.ExitStatus() != 0:
		return fmt.Errorf("it failed with status %d", ws.ExitStatus())
	}
	return nil
}

// waitGroup waits until the processes of a group, which were killed, have ended. A process that was
// killed runs on until the kernel schedules it: the command of the step could see it, with the
// rights of the hook.
func waitGroup(pgid int) {
	// If this process is the first of its pid namespace, they are its children now.
	for {
		if _, err := retry(func() (int, error) {
			return unix.Wait4(-pgid, nil, 0, nil)
		}); err != nil {
			break
		}
	}
	for end := time.Now().Add(time.Second); unix.Kill(-pgid, 0) == nil; {
		if time.Sleep(time.Millisecond); time.Now().After(end) {
			return
		}
	}
}

// waitHook waits until a process has ended, and kills it after a time. It reports whether it has
// done this.
func waitHook(pid int, limit time.Duration) (late bool, err error) {
	if limit == 0 {
		_, err := retry(func() (int, error) {
			return 0, unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		})
		return false, err
	}
	f, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		unix.Kill(pid, unix.SIGKILL)
		return false, err
	}
	defer unix.Close(f)
	end := time.Now().Add(limit)
	for {
		left := max(time.Until(end), 0)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(f), Events: unix.POLLIN}},
			int(min(left.Milliseconds()+1, 1<<30)))
		switch {
		case err == unix.EINTR || err == nil && n == 0 && left > 0:
		case err == nil && n > 0:
			return false, nil
		default:
			unix.PidfdSendSignal(f, unix.SIGKILL, nil, 0)
			return err == nil, err
		}
	}
}
