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

// runProcess runs a Process in the step's child, which is process 1 of its pid namespace. The child
// keeps its own capabilities until the end. By the rules of ptrace(2), the command, which has
// fewer, therefore cannot read the child's descriptors or the program's file at /proc/1/exe. A
// command with more capabilities does not see the child: openStagingInChild.
func runProcess(j *job, p *Process, o *outcome) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	b := &sandbox{spec: &j.spec, p: p, result: &o.result, resolvConf: j.resolvConf,
		output: int(unix.Stderr)}
	c := &command{spec: &j.spec, p: p, closed: true}
	err := b.setUpHostAndNetwork()
	if err == nil {
		err = c.readIDs()
	}
	if err == nil {
		err = b.openStagingInChild()
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
	if err == errNeedsProcess {
		err = errNoTracing // this is the process
	}
	if b.needsCleanup() {
		killOthers()
	}
	if cerr := b.clean(); err == nil {
		err = cerr
	}
	return err
}

// openStagingInChild is openStaging in the step's child. A command that can trace processes could
// make the child do what the command may not do itself, and others can read a part of what /proc
// has about it (CAP_PERFMON). So a command with more than the default capabilities gets a pid
// namespace below that of the child, with an initProcess.
func (b *sandbox) openStagingInChild() error {
	if b.p.Insecure || !b.p.addsCaps() {
		return b.openStaging()
	}
	if _, err := initFile(); err != nil && !b.p.traces() {
		return b.openStaging()
	}
	// Until the end, new threads must not be started by this thread, since its children are in
	// another pid namespace (setns(2)). The runtime starts them elsewhere if the goroutine is
	// locked.
	runtime.LockOSThread()
	return b.openStagingAndInit()
}

// errNoTracing is returned if a command that can trace processes would see those of layerbuild.
var errNoTracing = errors.New("a command cannot get the capability SYS_PTRACE here, since it " +
	"could trace layerbuild: process 1 cannot be executed from memory (sysctl vm.memfd_noexec), " +
	"or a new /proc cannot be mounted")

// setUpHostAndNetwork sets the name of the host, and starts the loopback device of a new network
// namespace.
func (b *sandbox) setUpHostAndNetwork() error {
	if err := unix.Sethostname([]byte(hostname(b.p))); err != nil {
		return hostNameError(err)
	}
	if b.p.Network == "none" {
		if err := loopback(); err != nil {
			return fmt.Errorf("start the loopback device: %w", err)
		}
	}
	return nil
}

// hostNameError describes an error of sethostname(2). In a UTS namespace of its own, the process
// may set the name. The default seccomp profiles of podman and docker permit that only in
// containers with CAP_SYS_ADMIN.
func hostNameError(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("set the host name: %w (in a container: it needs a seccomp profile that "+
			"allows sethostname, or CAP_SYS_ADMIN)", err)
	}
	return fmt.Errorf("set the host name: %w", err)
}

// needsCleanup reports whether mount points must be removed after the command. If not, this process
// can end at once, and the kernel kills the step's remaining processes.
func (b *sandbox) needsCleanup() bool { return len(b.mountpoints.made) > 0 }

// clean removes the mount points that were made for the step. No process of the step may be
// running.
func (b *sandbox) clean() error {
	if !b.needsCleanup() {
		return nil
	}
	if b.p.ReadOnlyRoot && b.root >= 0 {
		if err := unix.MountSetattr(b.root, "", unix.AT_EMPTY_PATH,
			&unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("remove the mount points: %w", err)
		}
	}
	return b.mountpoints.remove()
}

// command is a Process that is about to be started in its root.
type command struct {
	spec    *Spec
	p       *Process
	root    int
	id      identity
	groups  []uint32 // the groups of p.Groups and p.GroupNames
	env     []string
	file    string
	uids    string // the user namespace's uid_map; "" outside of one
	gids    string
	console int // the command's side of the terminal; -1: none
	// closed is set if all descriptors are marked close-on-exec.
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
	c.groups = slices.Clone(c.p.Groups)
	for _, name := range c.p.GroupNames {
		g, err := lookupGroup(c.root, name)
		if err != nil {
			return err
		}
		c.groups = append(c.groups, g)
	}
	if err := c.checkIDs(); err != nil {
		return err
	}
	for _, g := range c.groups {
		if !slices.Contains(c.id.groups, g) {
			c.id.groups = append(c.id.groups, g)
		}
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

// readIDs reads the id maps of the user namespace. It must be called before the step's /proc is
// mounted.
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

// checkIDs returns an error when the user's ids are not mapped in the user namespace. The kernel's
// error for this is only "invalid argument". It drops further groups that are not mapped.
func (c *command) checkIDs() error {
	if !c.spec.UserNS {
		return nil
	}
	if !mapped(c.uids, c.id.uid) || !mapped(c.gids, c.id.gid) {
		return fmt.Errorf("user %s is %d:%d, and there is no such id in this user namespace "+
			"(/etc/subuid and /etc/subgid list the ids that a user may use)",
			c.p.User, c.id.uid, c.id.gid)
	}
	for _, g := range c.groups {
		if c.spec.SingleID || !mapped(c.gids, g) {
			return fmt.Errorf("there is no group %d in this user namespace (/etc/subgid lists "+
				"the ids that a user may use)", g)
		}
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

// withHome adds HOME if the image does not set it, as container runtimes do.
func withHome(env []string, home string) []string {
	for _, e := range env {
		if strings.HasPrefix(e, "HOME=") {
			return env
		}
	}
	return append(env[:len(env):len(env)], "HOME="+home)
}

// enterDir changes to the working directory. If it is missing, enterDir makes it, owned by the
// command's user.
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
		return fmt.Errorf("enter the working directory %w", safepath.InRootError(dir, err))
	}
	return nil
}

// lookup returns the path of the command's file, found like execvp(3) does.
func (c *command) lookup() (string, error) {
	if len(c.p.Args) == 0 || c.p.Args[0] == "" {
		return "", &ExitError{Code: 127, Reason: "exec: no command"}
	}
	name := c.p.Args[0]
	if strings.Contains(name, "/") {
		return name, nil // execve returns an error if there is no such file
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
	return "", &ExitError{Code: 127,
		Reason: fmt.Sprintf("exec: %q: executable file not found in $PATH", name)}
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
		go receiveSignals(command) // until this process, the step's child, ends
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
		// Any other process is an orphan.
	}
}

// exitError returns the error for a command's wait status, or nil if it has exited with 0.
func exitError(ws unix.WaitStatus) error {
	if ws.Signaled() {
		return &ExitError{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}
	}
	if ws.ExitStatus() != 0 {
		return &ExitError{Code: ws.ExitStatus()}
	}
	return nil
}

// execError returns the error for a failed execve. The codes are those of a shell.
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
		// Without the flag F, binfmt_misc opens the emulator at the time of the call, by its path
		// in the image.
		e.Code, e.Machine = 127, arch
		e.Reason = fmt.Sprintf("exec: %q: %s a program for %s, and the emulator that binfmt_misc "+
			"names for it is not in the image; register it with the flag F", c.p.Args[0], is, arch)
	case errors.Is(err, unix.ENOENT):
		e.Code = 127
		e.Reason = fmt.Sprintf("exec: %q: %s", c.p.Args[0], c.missing(interp))
	case errors.Is(err, unix.ENOEXEC) && arch != "":
		e.Machine = arch
		e.Reason = fmt.Sprintf("exec: %q: %s a program for %s, this machine is %s, and no "+
			"emulator is registered in /proc/sys/fs/binfmt_misc; install qemu-user-static",
			c.p.Args[0], is, arch, runtime.GOARCH)
	case errors.Is(err, unix.ENOEXEC):
		e.Reason = fmt.Sprintf(
			"exec: %q: %v (a program for another platform, or a script without #!)", c.p.Args[0],
			err)
	}
	return e
}

// missing returns a message that names the file that execve did not find.
func (c *command) missing(interp string) string {
	switch {
	case interp != "":
		return fmt.Sprintf("its interpreter %q is not in the image", interp)
	case unix.Access(c.file, unix.F_OK) == nil:
		return "the dynamic linker that it needs is not in the image"
	}
	return "no such file in the image"
}

// interpreter returns the interpreter in a script's first line, or "".
func interpreter(file string) string {
	line, _, _ := strings.Cut(string(beginning(file, make([]byte, 256))), "\n")
	if rest, ok := strings.CutPrefix(line, "#!"); ok {
		if words := strings.Fields(rest); len(words) > 0 {
			return words[0]
		}
	}
	return ""
}

// killOthers kills all other processes of this pid namespace and waits for them. This process is
// process 1.
func killOthers() {
	unix.Kill(-1, unix.SIGKILL)
	for {
		if _, err := retry(func() (int, error) { return unix.Wait4(-1, nil, 0, nil) }); err != nil {
			return
		}
	}
}

// loopback brings lo up. The kernel assigns its addresses.
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
