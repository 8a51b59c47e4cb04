package executor

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/safepath"
)

// runProcess is the child of a Process, and process number 1 of its namespace. It keeps its own capabilities until
// the end, which by the rules of ptrace also keeps the command, which has fewer, from looking into it: into its
// descriptors, and at the program's file under /proc/1/exe.
func runProcess(j *job, p *Process, o *outcome) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	b := &sandbox{spec: &j.spec, p: p, result: &o.result, resolvConf: j.resolvConf}
	c := &command{spec: &j.spec, p: p, closed: true}
	err := b.nameHost()
	if err == nil {
		err = c.readIDs()
	}
	if err == nil {
		err = b.stand()
	}
	if err == nil {
		err = b.build()
	}
	if err == nil {
		err = c.prepare()
	}
	if err == nil {
		err = c.run()
	}
	if b.dirty() {
		killOthers()
	}
	if cerr := b.clean(); err == nil {
		err = cerr
	}
	return err
}

// nameHost gives the namespaces of the host's name and network what they need.
func (b *sandbox) nameHost() error {
	if err := unix.Sethostname([]byte(hostname(b.p))); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if b.p.Network == "none" {
		if err := loopback(); err != nil {
			return fmt.Errorf("start the loopback device: %w", err)
		}
	}
	return nil
}

// dirty says whether something has to be done after the command. Otherwise the kernel ends what is left of it with
// this process.
func (b *sandbox) dirty() bool { return len(b.stubs.made) > 0 }

// clean takes away what was made for the step. Of its processes none is left.
func (b *sandbox) clean() error {
	if !b.dirty() {
		return nil
	}
	if b.p.ReadOnlyRoot && b.root >= 0 {
		if err := unix.MountSetattr(b.root, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("remove the mount points: %w", err)
		}
	}
	return b.stubs.remove()
}

// command is a Process that is about to be run, in its root.
type command struct {
	spec    *Spec
	p       *Process
	root    int
	id      identity
	env     []string
	file    string
	uids    string // the ids of the user namespace, as /proc has them; empty outside of one
	gids    string
	console int // the terminal's side of the command, or -1
	// closed says that all descriptors are marked to be closed by execve.
	closed bool
}

func (c *command) prepare() error {
	var err error
	if c.root, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	if c.id, err = lookupUser(c.root, c.p.User); err != nil {
		return err
	}
	if err := c.haveIDs(); err != nil {
		return err
	}
	c.env = withHome(c.p.Env, c.id.home)
	if err := c.enterDir(); err != nil {
		return err
	}
	if c.file, err = c.lookup(); err != nil {
		return err
	}
	c.console = -1
	if c.p.TTY {
		if c.console, err = openTerminal(c.root, c.id); err != nil {
			return err
		}
	}
	return nil
}

// readIDs comes before the image's own ideas of /proc.
func (c *command) readIDs() error {
	if !c.spec.UserNS {
		return nil
	}
	uids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return err
	}
	gids, err := os.ReadFile("/proc/self/gid_map")
	if err != nil {
		return err
	}
	c.uids, c.gids = string(uids), string(gids)
	return nil
}

// haveIDs says what a setuid that can't work would only call an invalid argument.
func (c *command) haveIDs() error {
	if !c.spec.UserNS {
		return nil
	}
	if !mapped(c.uids, c.id.uid) || !mapped(c.gids, c.id.gid) {
		return fmt.Errorf("user %s is %d:%d, and there is no such id in this user namespace (/etc/subuid and /etc/subgid say which ids a user may have)",
			c.p.User, c.id.uid, c.id.gid)
	}
	c.id.groups = slices.DeleteFunc(c.id.groups, func(g uint32) bool { return !mapped(c.gids, g) })
	if c.spec.SingleID {
		c.id.groups = nil // setgroups is denied, and there are no other groups
	}
	return nil
}

func mapped(idMap string, id uint32) bool {
	for line := range strings.Lines(idMap) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		first, err1 := strconv.ParseUint(f[0], 10, 32)
		count, err2 := strconv.ParseUint(f[2], 10, 32)
		if err1 == nil && err2 == nil && uint64(id) >= first && uint64(id)-first < count {
			return true
		}
	}
	return false
}

// withHome adds HOME, as container runtimes do where an image does not set it.
func withHome(env []string, home string) []string {
	for _, e := range env {
		if strings.HasPrefix(e, "HOME=") {
			return env
		}
	}
	return append(env[:len(env):len(env)], "HOME="+home)
}

// enterDir changes to the working directory, made for the command's user if it is missing.
func (c *command) enterDir() error {
	dir := path.Join("/", c.p.Dir)
	at, err := safepath.MkdirAll(c.root, dir, 0o755, func(parent int, base string) error {
		return unix.Fchownat(parent, base, int(c.id.uid), int(c.id.gid), unix.AT_SYMLINK_NOFOLLOW)
	})
	if err == nil {
		defer unix.Close(at)
		err = unix.Fchdir(at)
	}
	if err != nil {
		return fmt.Errorf("enter the working directory %w", inImage(dir, err))
	}
	return nil
}

// lookup finds the command's file, as execvp does.
func (c *command) lookup() (string, error) {
	if len(c.p.Args) == 0 || c.p.Args[0] == "" {
		return "", &ExitError{Code: 127, Reason: "exec: no command"}
	}
	name := c.p.Args[0]
	if strings.Contains(name, "/") {
		return name, nil // execve says what is wrong with it
	}
	denied := false
	for _, dir := range strings.Split(envValue(c.env, "PATH"), ":") {
		if dir == "" {
			dir = "."
		}
		file := dir + "/" + name
		var st unix.Stat_t
		if unix.Stat(file, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			continue
		}
		if st.Mode&0o111 == 0 {
			denied = true
			continue
		}
		return file, nil
	}
	if denied {
		return "", &ExitError{Code: 126, Reason: fmt.Sprintf("exec: %q: permission denied", name)}
	}
	return "", &ExitError{Code: 127, Reason: fmt.Sprintf("exec: %q: executable file not found in $PATH", name)}
}

func envValue(env []string, name string) string {
	value := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// run starts the command and reaps processes until it has ended.
func (c *command) run() error {
	fds := [3]int{0, 1, 2}
	if c.console >= 0 {
		fds = [3]int{c.console, c.console, c.console}
	}
	command, err := c.start(fds)
	if err != nil {
		return err
	}
	if c.p.forwarded {
		go receiveSignals(command)
	}
	for {
		var ws unix.WaitStatus
		pid, err := retry(func() (int, error) { return unix.Wait4(-1, &ws, 0, nil) })
		if err != nil {
			return fmt.Errorf("wait for the command: %w", err)
		}
		if pid == command {
			return exitError(ws)
		}
		// Others are orphans.
	}
}

// exitError is what a command's end means.
func exitError(ws unix.WaitStatus) error {
	if ws.Signaled() {
		return &ExitError{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}
	}
	if ws.ExitStatus() != 0 {
		return &ExitError{Code: ws.ExitStatus()}
	}
	return nil
}

// execError says what execve means; its numbers are those of a shell.
func (c *command) execError(err error) error {
	e := &ExitError{Code: 126, Reason: fmt.Sprintf("exec: %q: %v", c.p.Args[0], err)}
	interp := interpreter(c.file)
	program, is := c.file, "it is"
	if interp != "" {
		program, is = interp, fmt.Sprintf("its interpreter %q is", interp)
	}
	arch := foreign(program)
	switch {
	case errors.Is(err, unix.ENOENT) && arch != "":
		// Without the F flag binfmt_misc looks for the emulator at its path at the time of the call, in the image.
		e.Code, e.Machine = 127, arch
		e.Reason = fmt.Sprintf("exec: %q: %s a program for %s, and the emulator that binfmt_misc names for it is not in the image: register it with the flag F", c.p.Args[0], is, arch)
	case errors.Is(err, unix.ENOENT):
		e.Code = 127
		e.Reason = fmt.Sprintf("exec: %q: %s", c.p.Args[0], c.missing(interp))
	case errors.Is(err, unix.ENOEXEC) && arch != "":
		e.Machine = arch
		e.Reason = fmt.Sprintf("exec: %q: %s a program for %s, this machine is %s, and no emulator is registered in /proc/sys/fs/binfmt_misc: install qemu-user-static", c.p.Args[0], is, arch, runtime.GOARCH)
	case errors.Is(err, unix.ENOEXEC):
		e.Reason = fmt.Sprintf("exec: %q: %v (a program for another platform, or a script without #!)", c.p.Args[0], err)
	}
	return e
}

// missing says which file execve did not find.
func (c *command) missing(interp string) string {
	switch {
	case interp != "":
		return fmt.Sprintf("its interpreter %q is not in the image", interp)
	case unix.Access(c.file, unix.F_OK) == nil:
		return "the dynamic linker that it needs is not in the image"
	}
	return "no such file in the image"
}

// interpreter is what a script's first line names.
func interpreter(file string) string {
	f, err := unix.Open(file, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(f)
	var buf [256]byte
	n, _ := unix.Read(f, buf[:])
	line, _, _ := strings.Cut(string(buf[:max(n, 0)]), "\n")
	if rest, ok := strings.CutPrefix(line, "#!"); ok {
		if words := strings.Fields(rest); len(words) > 0 {
			return words[0]
		}
	}
	return ""
}

// killOthers kills all processes of this namespace but this one, which is process 1, and waits for their end.
func killOthers() {
	unix.Kill(-1, unix.SIGKILL)
	for {
		if _, err := retry(func() (int, error) { return unix.Wait4(-1, nil, 0, nil) }); err != nil {
			return
		}
	}
}

// loopback switches lo on; the kernel gives it its addresses.
func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
}

func (c *command) close() {
	if c.root >= 0 {
		unix.Close(c.root)
	}
}
