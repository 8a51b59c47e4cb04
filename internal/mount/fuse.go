package mount

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Server is a mount of type FuseOverlay and the running program that serves it.
type Server struct {
	mount   Mount
	tree    *os.File
	program *os.Process
	// done is closed once the program has ended and was waited for. state is then its exit status.
	done  chan struct{}
	state error
	log   tail
}

// Serve makes a mount of type FuseOverlay without attaching it, and starts the program that serves
// it. It returns an *Error. The caller closes the Server.
//
// Serve makes the kernel's side of the mount, and the program only gets the open device (libfuse
// interprets "/dev/fd/N" as an existing mount). So the program can run in a mount namespace that
// does not contain the mount. If the mount were in the program's own namespace, the mount would
// keep the program running, the program the namespace, and the namespace the mount. The program is
// also outside of the step's pid namespace: a step can neither access nor end it. The program ends
// by itself when the mount is gone everywhere, also when this process is killed.
func Serve(m Mount) (*Server, error) {
	program, err := exec.LookPath("fuse-overlayfs")
	if err != nil {
		return nil, m.wrap("", errors.New("the program fuse-overlayfs is not installed"))
	}
	args, dir, err := m.fuseArgs()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, m.wrap("", err) // os/exec would report a missing directory as a missing program
	}
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return nil, m.wrap("", err)
	}
	defer dev.Close()
	tree, err := m.fuseTree(int(dev.Fd()))
	if err != nil {
		return nil, err
	}
	s := &Server{mount: m, tree: os.NewFile(uintptr(tree), "fuse-overlayfs"),
		done: make(chan struct{})}
	// In the foreground (-f) the program stays a child of this process, which waits for it. In the
	// background it would become a child of process 1, which in a container often does not wait for
	// its children.
	cmd := exec.Command(program, append(args, "-f", "/dev/fd/3")...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.ExtraFiles = []*os.File{dev}
	// Setsid: ^C on the terminal must not end the program before the step has ended.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Setsid: true}
	cmd.Stderr = &s.log
	if err := cmd.Start(); err != nil {
		s.tree.Close()
		return nil, m.wrap("", err)
	}
	dev.Close() // now only the program has the device open: if the program ends, requests fail
	s.program = cmd.Process
	go func() { // ends with the program, which Close waits for

		s.state = cmd.Wait()
		close(s.done)
	}()
	return s, s.ready()
}

// ready waits until the program answers, or returns an error with its output.
func (s *Server) ready() error {
	var st unix.Stat_t
	var err error
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Fstatat(int(s.tree.Fd()), "", &st, unix.AT_EMPTY_PATH)
	}
	if err == nil {
		return nil
	}
	if cerr := s.Close(); cerr != nil {
		return cerr
	}
	return s.mount.wrap("stat", err)
}

// Tree returns the mount, which is not attached. It can be attached once, as a Mount of type
// Detached.
func (s *Server) Tree() *os.File { return s.tree }

// Done returns a channel that is closed when the program has ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// serverEnd limits the time in which Close waits for the program to end after its mount is gone.
const serverEnd = 10 * time.Second

// Close syncs the mount, closes it, and waits until the program has ended, which happens when the
// mount is attached nowhere. It returns an *Error, also if the program had ended before.
func (s *Server) Close() error {
	err := s.sync()
	if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) {
		<-s.done // the program closes the device when it ends
	}
	early := false
	select {
	case <-s.done:
		early = true
	default:
	}
	s.tree.Close()
	select {
	case <-s.done:
	case <-time.After(serverEnd):
		s.program.Kill()
		<-s.done
	}
	if !early {
		return s.mount.wrap("", err)
	}
	state := s.state
	if state == nil {
		state = errors.New("exit status 0")
	}
	return &Error{Mount: s.mount, Op: "the program has ended", Log: s.log.String(), Err: state}
}

// sync writes the kernel's page cache of the mount to the program.
func (s *Server) sync() error {
	fd, err := unix.Openat(int(s.tree.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	return os.NewSyscallError("syncfs", unix.Syncfs(fd))
}

// tail keeps the end of a program's output.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// maxTail is the number of bytes that a tail keeps.
const maxTail = 2 << 10

// Write always succeeds.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - maxTail; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

// String returns the text in one line, without the messages that the program prints at every start.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var words []string
	for line := range strings.Lines(string(t.text)) {
		if !strings.HasPrefix(line, "unknown argument ignored:") {
			words = append(words, strings.Fields(line)...)
		}
	}
	return strings.Join(words, " ")
}

// fuse makes a mount whose program ends by itself when the mount is closed.
func (m *Mount) fuse() (int, error) {
	s, err := Serve(*m)
	if err != nil {
		return -1, err
	}
	tree, err := unix.FcntlInt(s.tree.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	s.tree.Close()
	return tree, m.wrap("", os.NewSyscallError("dup", err))
}

// fuseTree makes the kernel's side of a mount, for the program that serves the device dev.
func (m *Mount) fuseTree(dev int) (int, error) {
	a, _ := split(m.Options)
	c, err := m.context("fuse")
	if errors.Is(err, errNoAPI) {
		return -1, m.wrap("", fmt.Errorf("%w, or mounting is not permitted", err))
	}
	if err != nil {
		return -1, err
	}
	defer c.close()
	err = c.setAll([]string{
		"source=" + m.sourceName(), "subtype=fuse-overlayfs",
		"fd=" + strconv.Itoa(dev), "rootmode=40000",
		"user_id=" + strconv.Itoa(os.Geteuid()), "group_id=" + strconv.Itoa(os.Getegid()),
		"default_permissions", "allow_other",
	})
	if err != nil {
		return -1, err
	}
	return c.mount(a)
}

// fuseArgs returns the program's arguments and the directory to start it in. One argument can have
// at most 128 KiB, so the lower directories are named relative to a common parent directory.
func (m *Mount) fuseArgs() (args []string, dir string, err error) {
	if len(m.Lower) == 0 {
		return nil, "", m.wrap("", errors.New("no lower directory"))
	}
	for _, path := range append([]string{m.Upper, m.Work}, m.Lower...) {
		// fuse-overlayfs splits the list at every colon, even after a backslash.
		if strings.Contains(path, ":") {
			return nil, "", m.wrap("",
				fmt.Errorf("fuse-overlayfs cannot use a path with a colon: %q", path))
		}
	}
	dir = common(m.Lower)
	lower := make([]string, len(m.Lower))
	for i, path := range m.Lower {
		lower[i] = escape("./"+strings.TrimPrefix(path[len(dir):], "/"), `\,`)
	}
	_, options := split(m.Options)
	options = append([]string{"lowerdir=" + strings.Join(lower, ":")}, options...)
	if m.Upper != "" {
		options = append(options, "upperdir="+escape(m.Upper, `\,`),
			"workdir="+escape(m.Work, `\,`))
	}
	args = make([]string, 0, 2*len(options)+1)
	for _, o := range options {
		args = append(args, "-o", o)
	}
	return args, dir, nil
}
