package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Result is what is worth knowing about a step that succeeded.
type Result struct {
	// OwnersLost is how many files could not be given their owner, because the user namespace has one id only.
	OwnersLost int
	// FirstOwner is the first of them, as "path: uid:gid".
	FirstOwner string
	// Warnings are other things that the user should hear of, one sentence each.
	Warnings []string
}

// Run runs one step and waits for its end, when nothing of it is left: neither processes nor mounts. A command that
// ran and failed is an *ExitError. When ctx ends everything is killed, and Run returns ctx's error.
//
// Main must be the first thing that the program's main calls: the child is this program.
func Run(ctx context.Context, s *Spec, stdout, stderr io.Writer) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	// The child asks for a signal at its parent's death, and the parent is the thread that started it (prctl(2)).
	// The runtime ends a thread when a goroutine that is locked to it ends: so this one is locked until the end.
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
		return Result{}, fmt.Errorf("the step's child ended without a word (%v): %w", c.state, err)
	case out.failed:
		return out.result, errors.New(out.message)
	case out.exit.Code != 0:
		exit := out.exit
		return out.result, &exit
	}
	return out.result, err
}

// running is a child that was started.
type running struct {
	process *os.Process
	state   *os.ProcessState
	// socket is where the child gets its job and says how it ended. It stays open as long as this process lives: by
	// its end the child sees that nobody waits for it.
	socket *os.File
	output output
	// ours are this process's descriptors of what the child has inherited.
	ours []*os.File
	tty  *terminal
}

// childFDs is the first descriptor of Copy's sources; below it are the standard three and the socket.
const childFDs = 4

func start(s *Spec, stdout, stderr io.Writer) (*running, error) {
	c := &running{}
	ok := false
	defer func() {
		if !ok {
			c.close()
		}
	}()
	theirs, err := c.pair()
	if err != nil {
		return nil, fmt.Errorf("start a step's child: %w", err)
	}
	files := make([]*os.File, 3, 8)
	p, _ := s.Action.(*Process)
	if p != nil && p.TTY {
		c.tty = newTerminal(p.Stdin, stdout)
		stdout, stderr = io.Discard, io.Discard
	}
	if p != nil && p.Stdin != nil && !p.TTY {
		files[0] = p.Stdin
	} else if files[0], err = c.own(os.Open(os.DevNull)); err != nil {
		return nil, fmt.Errorf("start a step's child: %w", err)
	}
	if files[1], files[2], err = c.output.open(c, stdout, stderr); err != nil {
		return nil, fmt.Errorf("start a step's child: %w", err)
	}
	files = append(files, theirs)
	if cp, _ := s.Action.(*Copy); cp != nil {
		for i := range cp.Sources {
			files = append(files, cp.Sources[i].Dir)
		}
	}
	c.process, err = os.StartProcess("/proc/self/exe", []string{childName(s)}, &os.ProcAttr{
		Files: files,
		Env:   environment(s),
		Sys:   &syscall.SysProcAttr{Cloneflags: cloneFlags(s), Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return nil, fmt.Errorf("start a step's child: %w", err)
	}
	ok = true
	c.closeOurs()
	c.output.start()
	return c, nil
}

func childName(s *Spec) string {
	if c, ok := s.Action.(*Copy); ok && c.Unpack {
		return unpackMarker
	}
	return marker
}

// environment is for the child's Go runtime only; the command has its own. A child that does one thing after the
// other is cheaper with one thread at a time and without a garbage collector (RUN true: 2.9 ms against 3.4 ms of CPU).
func environment(s *Spec) []string {
	if _, ok := s.Action.(*Copy); ok {
		return []string{}
	}
	return []string{"GOMAXPROCS=1", "GOGC=off"}
}

func cloneFlags(s *Spec) uintptr {
	p, ok := s.Action.(*Process)
	if !ok {
		flags := uintptr(unix.CLONE_NEWNS)
		if usesDaemon(s) {
			flags |= unix.CLONE_NEWPID // which ends the daemon when the child ends
		}
		return flags
	}
	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP)
	if p.Network == "none" {
		flags |= unix.CLONE_NEWNET
	}
	return flags
}

// usesDaemon says whether a process serves the root file system, as with FUSE.
func usesDaemon(s *Spec) bool {
	for _, m := range s.Root {
		if m.Type != "overlay" && m.Type != "bind" && m.Type != "tmpfs" {
			return true
		}
	}
	return false
}

// pair makes the socket, and returns the child's end.
func (c *running) pair() (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c.socket = os.NewFile(uintptr(fds[0]), "step")
	return c.own(os.NewFile(uintptr(fds[1]), "step"), nil)
}

// own notes that a file is to be closed here once the child has it.
func (c *running) own(f *os.File, err error) (*os.File, error) {
	if err == nil {
		c.ours = append(c.ours, f)
	}
	return f, err
}

func (c *running) closeOurs() {
	for _, f := range c.ours {
		f.Close()
	}
	c.ours = nil
}

func (c *running) close() {
	c.closeOurs()
	c.output.close()
	if c.socket != nil {
		c.socket.Close()
	}
}

// talk sends the job and returns what the child says at its end, or nil if it said nothing.
func (c *running) talk(s *Spec) (*outcome, error) {
	j := job{spec: *s}
	switch a := s.Action.(type) {
	case *Process:
		// A host without the file is one without a name server; the step then has an empty one.
		j.resolvConf, _ = os.ReadFile("/etc/resolv.conf")
	case *Copy:
		for i := range a.Sources {
			j.dirs = append(j.dirs, childFDs+i)
		}
	}
	if err := send(c.socket, func(w *wire) { w.job(&j) }); err != nil {
		return nil, err
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
		return fmt.Errorf("wait for the step's child: %w", err)
	}
	if c.tty != nil {
		c.tty.close()
	}
	return c.output.wait()
}

// output copies what the step writes. A writer that is a file is given to the child as it is.
type output struct {
	pipes []*pipe
}

type pipe struct {
	r    *os.File
	to   io.Writer
	done chan error
}

func (o *output) open(c *running, stdout, stderr io.Writer) (so, se *os.File, err error) {
	if so, err = o.one(c, stdout); err != nil {
		return nil, nil, err
	}
	if same(stdout, stderr) {
		return so, so, nil // one pipe keeps the order of what is written to both
	}
	se, err = o.one(c, stderr)
	return so, se, err
}

func same(a, b io.Writer) bool {
	defer func() { _ = recover() }() // types that can't be compared
	return a == b
}

func (o *output) one(c *running, to io.Writer) (*os.File, error) {
	if to == nil || to == io.Discard {
		return c.own(os.OpenFile(os.DevNull, os.O_WRONLY, 0))
	}
	if f, ok := to.(*os.File); ok {
		return f, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o.pipes = append(o.pipes, &pipe{r: r, to: to})
	return c.own(w, nil)
}

func (o *output) start() {
	for _, p := range o.pipes {
		p.done = make(chan error, 1)
		go func() { p.done <- p.copy() }()
	}
}

// copy goes on reading when the writer fails: the command should not die of it, nor wait forever.
func (p *pipe) copy() error {
	buf := make([]byte, 32<<10)
	var failed error
	for {
		n, err := p.r.Read(buf)
		if n > 0 && failed == nil {
			_, failed = p.to.Write(buf[:n])
		}
		if err != nil {
			return failed
		}
	}
}

// lateOutput is how long output is waited for after all processes of a step have ended. Then its pipes are at their
// end, unless somebody outside was given one.
const lateOutput = 2 * time.Second

func (o *output) wait() error {
	var errs []error
	for _, p := range o.pipes {
		p.r.SetReadDeadline(time.Now().Add(lateOutput))
	}
	for _, p := range o.pipes {
		if p.done != nil {
			errs = append(errs, <-p.done)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write the step's output: %w", err)
	}
	return nil
}

func (o *output) close() {
	for _, p := range o.pipes {
		p.r.Close()
	}
}
