package executor

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// processOne is process number 1 of a step's pid namespace. It does nothing but be there: the kernel reaps what becomes
// its child, and ends all others with it. It ends when this program ends for any reason, because the other end of its
// socket is closed then. init.go describes what other processes can see of it.
type processOne struct {
	pid  int
	sock int // our end
	does script
	// mounts is the number of the call that mounts /proc.
	mounts int

	mu sync.Mutex
	fd int // its pidfd; -1 once it is gone
}

// startProcessOne starts it in the mount namespace of this thread. It mounts a /proc at dir, which can be done from
// within its pid namespace only.
func startProcessOne(dir string) (*processOne, error) {
	program, err := initFile()
	if err != nil {
		return nil, err
	}
	socks, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	p := &processOne{sock: socks[0], fd: -1}
	p.list(program, socks[1], dir)
	p.pid, err = p.does.start(unix.CLONE_NEWPID)
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

// list makes the list of its system calls. When its program runs, standard input is sock and no other descriptor is
// open.
func (p *processOne) list(program, sock int, dir string) {
	c := &p.does
	if sock > 0 {
		c.must("open the socket", unix.SYS_DUP3, uintptr(sock), 0, 0)
	}
	c.must("close descriptors", unix.SYS_CLOSE_RANGE, 1, uintptr(program)-1, 0)
	c.must("close descriptors", unix.SYS_CLOSE_RANGE, uintptr(program)+1, uintptr(^uint32(0)), 0)
	ignore := sigaction{handler: 1 /* SIG_IGN: what ends is reaped by the kernel */}
	c.must("ignore a signal", unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), keeps(c, &ignore), 0, 8)
	p.mounts = len(c.list)
	c.try(unix.SYS_MOUNT, c.string("proc"), c.string(dir), c.string("proc"), unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, 0)
	c.must(execve, unix.SYS_EXECVEAT, uintptr(program), c.string(""), c.strings([]string{initName}), c.strings(nil), unix.AT_EMPTY_PATH)
	c.exit()
}

// proc waits until /proc is mounted and the process executes its own program. It returns errChild if a program may not
// be executed from memory.
func (p *processOne) proc() error {
	var b [1]byte
	n, err := retry(func() (int, error) { return unix.Read(p.sock, b[:]) })
	if err != nil {
		return err
	}
	if n == 0 {
		return errChild
	}
	if errno := p.does.list[p.mounts].errno(); errno != 0 {
		return fmt.Errorf("mount proc: %w", errno)
	}
	return nil
}

// kill ends it, and so all processes of the step.
func (p *processOne) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd >= 0 {
		unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0)
	}
}

// end ends it and waits until it is gone. The step's processes that are this one's children must have been waited for:
// the first process of a pid namespace is the last to go.
func (p *processOne) end() {
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
	p.does = script{}
}

// sigaction is the kernel's.
type sigaction struct{ handler, flags, restorer, mask uintptr }

var _ [unsafe.Sizeof(sigaction{}) - 32]byte
