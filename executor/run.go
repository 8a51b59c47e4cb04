package executor

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"syscall"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/executor/rawproc"
	"golang.org/x/sys/unix"
)

// Result describes a step that has succeeded.
type Result struct {
	// Files is the result of a *copyfs.Copy or *Mkdir.
	Files copyfs.Result
	// Warnings are messages for the user about a Process, one sentence each.
	Warnings []string
}

// Messages returns all messages for the user, one sentence each: the attributes of files that could
// not be kept, and the warnings.
func (r *Result) Messages() []string {
	f := &r.Files
	var list []string
	if f.StandIns > 0 {
		list = append(list, fmt.Sprintf("device nodes cannot be made without root (%d, the first "+
			"is %s): the image has them, and steps find empty files in their place", f.StandIns,
			f.FirstStandIn))
	}
	if f.AttrsLost > 0 {
		list = append(list, fmt.Sprintf("extended attributes of an archive's files cannot be set "+
			"without root and were left out (%d, the first is %s)", f.AttrsLost, f.FirstAttr))
	}
	if f.OwnersLost > 0 {
		list = append(list, fmt.Sprintf("the owners of %d files could not be set (the first is "+
			"%s): this user namespace has only one id", f.OwnersLost, f.FirstOwner))
	}
	return slices.Concat(list, f.Warnings, r.Warnings)
}

// Run runs one step and waits until its processes have ended and its mounts are gone. It returns an
// *ExitError when a command could not be started or failed. When ctx is canceled, Run kills all
// processes of the step and returns ctx's error.
//
// The program's main function must call Main first: some steps need a child process, which is this
// program started again.
func Run(ctx context.Context, s *Spec, stdout, stderr io.Writer) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	do := run
	if usesProgram(s) {
		do = runServed
	}
	r, err := do(ctx, s, stdout, stderr)
	if err == nil {
		err = dropPoints(s)
	}
	return r, err
}

func run(ctx context.Context, s *Spec, stdout, stderr io.Writer) (Result, error) {
	if _, ok := s.Action.(*Process); ok {
		rawproc.Settle() // the command may execute files that this program has just written
	}
	if !needsProcess(s) {
		r, err := runOnThread(ctx, s, stdout, stderr)
		if err != errNeedsProcess {
			return r, err
		}
	}
	return runInChild(ctx, s, stdout, stderr)
}

func runInChild(ctx context.Context, s *Spec, stdout, stderr io.Writer) (Result, error) {
	// The child is killed when its parent ends, and the parent is the thread that started it
	// (prctl(2)). The runtime ends a thread when a goroutine that is locked to it ends. So this
	// goroutine stays locked to its thread until the child has ended.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	c, err := start(s, stdout, stderr)
	if err != nil {
		return Result{}, err
	}
	defer c.close()
	stop := context.AfterFunc(ctx, func() { c.process.Kill() })
	defer stop()
	out, err := c.talk(s)
	if werr := c.wait(); err == nil && werr != nil {
		err = werr
	}
	switch {
	case out == nil && ctx.Err() != nil:
		return Result{}, ctx.Err()
	case out == nil:
		return Result{}, fmt.Errorf("the step's process exited without reporting a result (%v): %w",
			c.state, err)
	case out.changed != "":
		return out.result, &copyfs.ChangedError{Path: out.changed, Below: out.changedBelow}
	case out.failed:
		return out.result, &childError{out.message, syscall.Errno(out.errno)}
	case out.exit.Code != 0:
		exit := out.exit
		return out.result, &exit
	}
	return out.result, err
}

// running is a step's child process.
type running struct {
	process *os.Process
	state   *os.ProcessState
	// socket carries the job to the child and the outcome back. It stays open as long as this
	// process lives: when it is closed, this process has ended.
	socket *os.File
	files  *stdio
	tty    *terminal
}

// childFDs is the first descriptor of the action's open directories in the child. The descriptors
// below it are the standard three and the socket.
const childFDs = 4

func start(s *Spec, stdout, stderr io.Writer) (*running, error) {
	c := &running{}
	p, _ := s.Action.(*Process)
	if p != nil && p.TTY {
		c.tty = newTerminal(p.Stdin, stdout)
		stdout, stderr = io.Discard, io.Discard
	}
	var err error
	if c.files, err = openStdio(s, stdout, stderr); err != nil {
		return nil, err
	}
	childEnd, err := c.socketPair()
	if err != nil {
		c.close()
		return nil, fmt.Errorf("start the step's process: %w", err)
	}
	files := append(c.files.files[:], childEnd)
	files = append(files, s.Action.OpenDirs()...)
	files = append(files, s.trees...)
	c.process, err = os.StartProcess("/proc/self/exe", []string{childName(s)}, &os.ProcAttr{
		Files: files,
		Env:   environment(s),
		Sys:   &syscall.SysProcAttr{Cloneflags: cloneFlags(s), Pdeathsig: syscall.SIGKILL},
	})
	childEnd.Close()
	if err != nil {
		c.close()
		return nil, fmt.Errorf("start the step's process: %w", err)
	}
	c.files.started()
	return c, nil
}

func childName(s *Spec) string {
	if c, ok := s.Action.(*copyfs.Copy); ok && c.Unpack {
		return unpackMarker
	}
	return marker
}

// environment returns the child's environment, which only affects its Go runtime, since the command
// has an environment of its own. A child works sequentially, so it needs less CPU with a single
// running thread and without the garbage collector (RUN true: 2.9 ms against 3.4 ms of CPU).
func environment(s *Spec) []string {
	if _, ok := s.Action.(*copyfs.Copy); ok {
		return []string{}
	}
	return []string{"GOMAXPROCS=1", "GOGC=off"}
}

func cloneFlags(s *Spec) uintptr {
	p, ok := s.Action.(*Process)
	if !ok {
		return unix.CLONE_NEWNS
	}
	return uintptr(namespaces(p) | unix.CLONE_NEWNS | unix.CLONE_NEWPID)
}

// namespaces returns the clone flags of the namespaces that a command gets besides its mount and
// pid namespaces.
func namespaces(p *Process) int {
	flags := unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	if p.Network == "none" {
		flags |= unix.CLONE_NEWNET
	}
	return flags
}

// socketPair makes the socket and returns the child's end.
func (c *running) socketPair() (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c.socket = os.NewFile(uintptr(fds[0]), "step")
	return os.NewFile(uintptr(fds[1]), "step"), nil
}

func (c *running) close() {
	c.files.close()
	if c.socket != nil {
		c.socket.Close()
	}
}

// resolvConf returns the host's /etc/resolv.conf. If the host has no such file, it has no name
// server, and the step gets an empty file.
func resolvConf() []byte {
	data, _ := os.ReadFile("/etc/resolv.conf")
	return data
}

// talk sends the job and returns the outcome that the child reports, or nil if the child reported
// none.
func (c *running) talk(s *Spec) (*outcome, error) {
	j := job{spec: *s}
	if _, ok := s.Action.(*Process); ok {
		j.resolvConf = resolvConf()
	}
	for i := range s.Action.OpenDirs() {
		j.dirs = append(j.dirs, childFDs+i)
	}
	first := childFDs + len(j.dirs)
	j.spec = *s.attach(func(i int) int { return first + i })
	if err := send(c.socket, func(w *wire) { w.job(&j) }); err != nil {
		return nil, err
	}
	if p, ok := s.Action.(*Process); ok {
		defer forwardByChild(p.Signals, c.socket)()
	}
	from := io.Reader(c.socket)
	if c.tty != nil {
		rest, err := c.tty.connect(c.socket)
		if err != nil {
			c.process.Kill()
			return nil, err
		}
		from = before(rest, from)
	}
	var o outcome
	if err := receive(from, func(w *wire) { w.outcome(&o) }); err != nil {
		return nil, err
	}
	return &o, nil
}

func (c *running) wait() error {
	var err error
	if c.state, err = c.process.Wait(); err != nil {
		return fmt.Errorf("wait for the step's process: %w", err)
	}
	if c.tty != nil {
		c.tty.close()
	}
	return c.files.wait()
}
