package executor

import (
	"fmt"
	"sync"
	"unsafe"

	"github.com/layerbuild/layerbuild/executor/rawproc"
	"golang.org/x/sys/unix"
)

// initProcess is process 1 of a step's pid namespace. It does no work: the kernel reaps the orphans
// that become its children, and kills all other processes of the namespace when it ends. It ends
// when this program ends for any reason, because the other end of its socket is closed then.
// init.go describes what other processes can see of it.
type initProcess struct {
	pid   int
	sock  int // this program's end
	calls rawproc.Process
	// mountCall is the index of the call that mounts /proc.
	mountCall int

	mu sync.Mutex
	fd int // its pidfd; -1 once it has been reaped
}

// startInit starts process 1 of a new pid namespace for a command, in the mount namespace of this
// thread. The process mounts a /proc at dir, since only a process of the pid namespace can.
func startInit(dir string, command *Process) (*initProcess, error) {
	program, err := initFile()
	if err != nil {
		return nil, err
	}
	socks, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	p := &initProcess{sock: socks[0], fd: -1}
	if err = p.list(program, socks[1], dir, command); err == nil {
		p.pid, err = p.calls.Start(unix.CLONE_NEWPID)
	}
	unix.Close(socks[1])
	if err == nil {
		p.fd, err = unix.PidfdOpen(p.pid, 0)
	}
	if err != nil {
		p.end()
		return nil, err
	}
	return p, nil
}

// list appends the process's system calls. When its program runs, standard input is sock and no
// other descriptor is open. If the command has more than the default capabilities, and so may trace
// the process, it has no capabilities, and the command's filter of system calls.
func (p *initProcess) list(program, sock int, dir string, command *Process) error {
	c := &p.calls
	if sock > 0 {
		c.Must("open the socket", unix.SYS_DUP3, uintptr(sock), 0, 0)
	}
	c.Close(1, uintptr(program)-1)
	c.Close(uintptr(program)+1, uintptr(^uint32(0)))
	ignore := sigaction{handler: 1 /* SIG_IGN: the kernel reaps the children */}
	c.Must("ignore a signal", unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD),
		rawproc.Pointer(c, &ignore), 0, 8)
	p.mountCall = c.Try(unix.SYS_MOUNT, c.String("proc"), c.String(dir), c.String("proc"),
		unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, 0)
	// pivot_root(2) changes a working directory that is the root.
	c.Must("enter the root", unix.SYS_CHDIR, c.String("/"))
	if command.addsCaps() {
		if err := command.limitRights(c, 0); err != nil {
			return err
		}
	}
	c.Must(execve, unix.SYS_EXECVEAT, uintptr(program), c.String(""), c.Strings([]string{initName}),
		c.Strings(nil), unix.AT_EMPTY_PATH)
	c.Exit()
	return nil
}

// proc waits until /proc is mounted and the process executes its own program. It returns
// errNeedsProcess if the kernel does not allow a program to be executed from memory.
func (p *initProcess) proc() error {
	var b [1]byte
	n, err := retry(func() (int, error) { return unix.Read(p.sock, b[:]) })
	if err != nil {
		return err
	}
	if n == 0 {
		return errNeedsProcess
	}
	if errno := p.calls.Errno(p.mountCall); errno != 0 {
		return fmt.Errorf("mount proc: %w", errno)
	}
	return nil
}

// kill kills the process. The kernel then kills all processes of the step.
func (p *initProcess) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd >= 0 {
		unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0)
	}
}

// end kills the process and waits for it. The caller must first wait for those processes of the
// step that are this program's children: the first process of a pid namespace is reaped last.
func (p *initProcess) end() {
	p.kill()
	unix.Close(p.sock)
	if p.pid > 0 {
		retry(func() (int, error) { return unix.Wait4(p.pid, nil, 0, nil) })
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
	p.calls.Ended()
	p.calls = rawproc.Process{}
}

// sigaction is the kernel's struct sigaction.
type sigaction struct{ handler, flags, restorer, mask uintptr }

var _ [unsafe.Sizeof(sigaction{}) - 32]byte
