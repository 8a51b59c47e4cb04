package executor

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/layerbuild/layerbuild/internal/safepath"
)

// openTerminal makes a terminal in the step's own /dev/pts, so that the command finds it there by
// its name. It sends the master's descriptor to the parent and returns the command's descriptor.
func openTerminal(root int, id identity) (int, error) {
	fail := func(err error) (int, error) { return -1, fmt.Errorf("open a terminal: %w", err) }
	master, err := safepath.InRoot(root, "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fail(safepath.InRootError("/dev/pts/ptmx", err))
	}
	defer unix.Close(master)
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fail(err)
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return fail(err)
	}
	slave, err := safepath.InRoot(root, fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fail(safepath.InRootError("/dev/pts", err))
	}
	if err := unix.Fchown(slave, int(id.uid), -1); err != nil {
		return fail(err)
	}
	if err := unix.Sendmsg(socketFD, []byte{'T'}, unix.UnixRights(master), nil, 0); err != nil {
		return fail(err)
	}
	return slave, nil
}

// terminal copies between the user's terminal and the command's.
type terminal struct {
	in     *os.File
	out    io.Writer
	master *os.File
	was    *term.State // state of the user's terminal before raw mode
	wake   *os.File    // closing it stops copyInput
	sizes  chan os.Signal
	wg     sync.WaitGroup
}

func newTerminal(in *os.File, out io.Writer) *terminal {
	return &terminal{in: in, out: out}
}

// connect waits for the child's terminal. If the step failed before it made one, connect returns
// the bytes that it read instead, which are the beginning of the child's outcome.
func (t *terminal) connect(socket *os.File) ([]byte, error) {
	master, rest, err := receiveFile(socket)
	if err != nil || master == nil {
		return rest, err
	}
	t.master = master
	if t.in != nil {
		if err := t.connectInput(); err != nil {
			return nil, err
		}
	}
	// ends with EIO when the last process has closed the command's side
	t.wg.Go(func() { io.Copy(t.out, t.master) })
	return nil, nil
}

func receiveFile(socket *os.File) (*os.File, []byte, error) {
	rc, err := socket.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	buf, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	var rerr error
	err = rc.Read(func(fd uintptr) bool {
		for {
			n, oobn, _, _, rerr = unix.Recvmsg(int(fd), buf, oob, unix.MSG_CMSG_CLOEXEC)
			if rerr != unix.EINTR {
				return true
			}
		}
	})
	if err == nil {
		err = rerr
	}
	if err != nil {
		return nil, nil, fmt.Errorf("receive the terminal: %w", err)
	}
	if n == 0 {
		return nil, nil, io.EOF
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) == 0 {
		return nil, buf[:n], nil
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, nil, fmt.Errorf("receive the terminal: %w", errWire)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil { // closing it then ends a read
		return nil, nil, fmt.Errorf("receive the terminal: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil, nil
}

func (t *terminal) connectInput() error {
	if fd := int(t.in.Fd()); term.IsTerminal(fd) {
		var err error
		if t.was, err = term.MakeRaw(fd); err != nil {
			return fmt.Errorf("set up the terminal: %w", err)
		}
		t.sizes = make(chan os.Signal, 1)
		signal.Notify(t.sizes, unix.SIGWINCH)
		t.resize()
		t.wg.Go(func() {
			for range t.sizes {
				t.resize()
			}
		})
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("set up the terminal: %w", err)
	}
	t.wake = w
	t.wg.Go(func() {
		defer r.Close()
		t.copyInput(int(r.Fd()))
	})
	return nil
}

func (t *terminal) resize() {
	if size, err := unix.IoctlGetWinsize(int(t.in.Fd()), unix.TIOCGWINSZ); err == nil {
		rc, err := t.master.SyscallConn()
		if err == nil {
			rc.Control(func(fd uintptr) { unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
		}
	}
}

// copyInput copies the input to the command's terminal until stop is readable. It uses poll(2), so
// that it can stop while it waits for input.
func (t *terminal) copyInput(stop int) {
	buf := make([]byte, 4096)
	in := int(t.in.Fd())
	for {
		fds := []unix.PollFd{{Fd: int32(in), Events: unix.POLLIN},
			{Fd: int32(stop), Events: unix.POLLIN}}
		if _, err := retry(func() (int, error) { return unix.Poll(fds, -1) }); err != nil ||
			fds[1].Revents != 0 {
			return
		}
		n, err := unix.Read(in, buf)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil || n == 0 {
			t.master.Write([]byte{4}) // ^D, the end of the input
			return
		}
		if _, err := t.master.Write(buf[:n]); err != nil {
			return
		}
	}
}

// close stops copying after the command's end and restores the user's terminal.
func (t *terminal) close() {
	if t.wake != nil {
		t.wake.Close()
	}
	if t.sizes != nil {
		signal.Stop(t.sizes)
		close(t.sizes)
	}
	t.wg.Wait()
	if t.was != nil {
		term.Restore(int(t.in.Fd()), t.was)
	}
	if t.master != nil {
		t.master.Close()
	}
}

// before returns a reader of the bytes that were already read from r, followed by r.
func before(rest []byte, r io.Reader) io.Reader {
	return io.MultiReader(bytes.NewReader(rest), r)
}
