package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tree makes m without attaching it and returns its descriptor, which the caller closes.
// It is errNoAPI where mount(2) has to do it.
func (p performer) tree(m *Mount) (int, error) {
	if p.legacy && m.Type != FuseOverlay && m.Type != Detached {
		return -1, errNoAPI
	}
	switch m.Type {
	case Bind, "rbind":
		return m.clone()
	case Overlay:
		return m.overlay()
	case FuseOverlay:
		return m.fuse()
	case Detached:
		return m.detached()
	default:
		return m.plain()
	}
}

// detached is the mount that is open as the descriptor Source.
func (m *Mount) detached() (int, error) {
	fd, err := strconv.Atoi(m.Source)
	if err != nil {
		return -1, m.wrap("", err)
	}
	tree, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return tree, m.wrap("", os.NewSyscallError("dup", err))
}

// clone is a bind mount.
func (m *Mount) clone() (int, error) {
	a, data := split(m.Options)
	if len(data) > 0 {
		return -1, m.wrap("option "+strconv.Quote(data[0]), unix.EINVAL)
	}
	a.recursive = a.recursive || m.Type == "rbind"
	if a.propagation == 0 {
		a.propagation = unix.MS_PRIVATE
	}
	recursive := 0
	if a.recursive {
		recursive = unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, m.Source, uint(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|recursive))
	if missing(err) {
		return -1, errNoAPI
	}
	if err != nil {
		return -1, m.wrap("", cloneError(err, a.recursive))
	}
	err = unix.MountSetattr(tree, "", uint(unix.AT_EMPTY_PATH|recursive), a.attr())
	if err != nil {
		unix.Close(tree)
		if missing(err) { // mount_setattr is Linux 5.12's.
			return -1, errNoAPI
		}
		return -1, m.wrap("mount_setattr", err)
	}
	return tree, nil
}

// cloneError explains the one refusal that nobody can guess.
func cloneError(err error, recursive bool) error {
	if err == unix.EINVAL && !recursive {
		return fmt.Errorf("%w: it has mounts below it that must not be taken away in a user namespace (rbind shows them too)", err)
	}
	return err
}

// missing says that a call is not there: unknown to the kernel, or kept away by a seccomp filter (older ones answer
// EPERM to what they do not know). Where the caller simply may not mount, mount(2) says so in turn.
func missing(err error) bool { return err == unix.ENOSYS || err == unix.EPERM }

// context is a file system being configured: fsopen(2) to fsmount(2).
type context struct {
	m  *Mount
	fd int
	// dir is the directory that setDir names by the descriptor dirFD; "": none.
	dir   string
	dirFD int
}

func (m *Mount) context(fsType string) (*context, error) {
	fd, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if missing(err) {
		return nil, errNoAPI
	}
	if err == unix.ENODEV {
		return nil, m.wrap("", fmt.Errorf("%w: the kernel has no file system %q", err, fsType))
	}
	if err != nil {
		return nil, m.wrap("fsopen", err)
	}
	return &context{m: m, fd: fd}, nil
}

func (c *context) close() {
	unix.Close(c.fd)
	if c.dir != "" {
		unix.Close(c.dirFD)
	}
}

// hide makes setDir name directories relative to a descriptor of their common parent. All processes that can see an
// overlay mount can read the names that it was mounted with: a step would learn where the state directory is, and so,
// for example, the name of the user. It costs 2 µs a mount.
func (c *context) hide(paths []string) {
	dir := common(paths)
	if dir == "/" {
		return
	}
	if fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		c.dir, c.dirFD = dir, fd
	}
}

// common returns the directory that absolute paths are below.
func common(paths []string) string {
	dir := filepath.Dir(paths[0])
	for _, path := range paths {
		for dir != "/" && !strings.HasPrefix(path, dir+"/") {
			dir = filepath.Dir(dir)
		}
	}
	return dir
}

// fail adds what the kernel wrote into the context's log, one message a read.
func (c *context) fail(op string, err error) error {
	var log []string
	buf := make([]byte, 4096)
	for len(log) < 16 {
		n, readErr := unix.Read(c.fd, buf)
		if readErr != nil || n <= 0 {
			break
		}
		// "e overlay: …": the letter is the severity.
		line := strings.TrimSpace(string(buf[:n]))
		if len(line) > 2 && line[1] == ' ' {
			line = line[2:]
		}
		log = append(log, line)
	}
	return &Error{Mount: *c.m, Op: op, Log: strings.Join(log, "; "), Err: err}
}

// set gives one option: "key" or "key=value".
func (c *context) set(option string) error {
	key, value, ok := strings.Cut(option, "=")
	var err error
	if ok {
		err = unix.FsconfigSetString(c.fd, key, value)
	} else {
		err = unix.FsconfigSetFlag(c.fd, key)
	}
	if err != nil {
		return c.fail("option "+strconv.Quote(option), err)
	}
	return nil
}

func (c *context) setAll(options []string) error {
	for _, o := range options {
		if err := c.set(o); err != nil {
			return err
		}
	}
	return nil
}

// maxString is the longest value that fsconfig(2) takes as a string.
const maxString = 255

// setDir gives a directory. A longer path goes as a link to a descriptor; /proc/mounts then shows that.
func (c *context) setDir(key, path string, escaped bool) error {
	value := path
	if rest, ok := strings.CutPrefix(path, c.dir+"/"); ok && c.dir != "" {
		value = procFD(c.dirFD) + "/" + rest
	}
	if escaped {
		value = escape(value, `\`)
	}
	op := func() string { return strings.TrimSuffix(key, "+") + " " + strconv.Quote(path) }
	if !filepath.IsAbs(path) {
		return c.fail(op(), errors.New("not an absolute path"))
	}
	if len(value) > maxString {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return c.fail(op(), err)
		}
		// The kernel resolves the path in the call.
		defer unix.Close(fd)
		value = procFD(fd)
	}
	err := unix.FsconfigSetString(c.fd, key, value)
	if err == unix.ENOENT && value != path { // there may be no /proc
		err = unix.FsconfigSetString(c.fd, key, path)
	}
	if err != nil {
		return c.fail(op(), err)
	}
	return nil
}

func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// mount makes the superblock and a detached mount of it.
func (c *context) mount(a attributes) (int, error) {
	if err := unix.FsconfigCreate(c.fd); err != nil {
		return -1, c.fail("", err)
	}
	tree, err := unix.Fsmount(c.fd, unix.FSMOUNT_CLOEXEC, int(a.set))
	if err != nil {
		return -1, c.fail("fsmount", err)
	}
	if a.propagation != 0 {
		err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: a.propagation})
		if err != nil {
			unix.Close(tree)
			return -1, c.fail("mount_setattr", err)
		}
	}
	return tree, nil
}

// plain is any file system that takes its options as they are.
func (m *Mount) plain() (int, error) {
	a, data := split(m.Options)
	c, err := m.context(m.Type)
	if err != nil {
		return -1, err
	}
	defer c.close()
	if m.Source != "" {
		if err := unix.FsconfigSetString(c.fd, "source", m.Source); err != nil {
			return -1, c.fail("source "+strconv.Quote(m.Source), err)
		}
	}
	if err := c.setAll(data); err != nil {
		return -1, err
	}
	return c.mount(a)
}

// overlay gives the lower directories one by one (lowerdir+), so that there is no option page to overflow.
func (m *Mount) overlay() (int, error) {
	if !kernelHas(6, 5) {
		return -1, errNoAPI
	}
	if len(m.Lower) > MaxLower {
		return m.nested()
	}
	a, data := split(m.Options)
	c, err := m.context(Overlay)
	if err != nil {
		return -1, err
	}
	defer c.close()
	if err := unix.FsconfigSetString(c.fd, "source", m.sourceName()); err != nil {
		return -1, c.fail("source", err)
	}
	paths := m.Lower
	if m.Upper != "" {
		paths = append([]string{m.Upper, m.Work}, m.Lower...)
	}
	if len(paths) > 0 {
		c.hide(paths)
	}
	for _, dir := range m.Lower {
		if err := c.setDir("lowerdir+", dir, false); err != nil {
			return -1, err
		}
	}
	if m.Upper != "" {
		if err := c.setDir("upperdir", m.Upper, true); err != nil {
			return -1, err
		}
		if err := c.setDir("workdir", m.Work, true); err != nil {
			return -1, err
		}
		m.dropVolatile(data)
	}
	if err := c.setAll(data); err != nil {
		return -1, err
	}
	return c.mount(a)
}

// nested makes an overlay of more lower directories than one takes: the lowest are overlays themselves.
func (m *Mount) nested() (int, error) {
	// An overlay's lower directory could not be in a mount that is attached nowhere.
	if !kernelHas(6, 15) {
		return -1, m.wrap("", fmt.Errorf("%d lower directories; more than %d need Linux 6.15", len(m.Lower), MaxLower))
	}
	var trees descriptors
	defer trees.close()
	lower := m.Lower
	var groups []string // lowest first
	for len(lower)+len(groups) > MaxLower {
		n := min(MaxLower, len(lower)+len(groups)-MaxLower+1)
		group := Mount{Type: Overlay, Source: m.Source, Lower: lower[len(lower)-n:], Options: append(viewOptions(m.Options), "ro")}
		tree, err := group.overlay()
		if err != nil {
			return -1, err
		}
		trees = append(trees, tree)
		groups = append(groups, procFD(tree))
		lower = lower[:len(lower)-n]
	}
	slices.Reverse(groups)
	top := *m
	top.Lower = slices.Concat(lower, groups)
	return top.overlay()
}

// viewOptions leaves out what only an overlay with an upper directory takes.
func viewOptions(options []string) []string {
	return slices.DeleteFunc(slices.Clone(options), func(o string) bool { return o == "volatile" })
}

func (m *Mount) sourceName() string {
	if m.Source == "" {
		return m.Type
	}
	return m.Source
}

// dropVolatile removes the mark by which the kernel keeps an upper directory from a second volatile mount, as it may
// have lost writes with the machine. Here it has not: whoever comes back after a boot begins with a new directory, and
// what is mounted twice was written and is read in the same boot.
func (m *Mount) dropVolatile(data []string) {
	for _, o := range data {
		if o == "volatile" {
			mark := filepath.Join(m.Work, "work/incompat/volatile")
			if os.Remove(filepath.Join(mark, "dirty")) == nil {
				os.Remove(mark)
			}
			return
		}
	}
}

// kernelHas says whether the kernel is at least of that version. The calls of the new mount API cannot be asked
// whether a file system knows an option without risking a half-made mount.
func kernelHas(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var v [2]int
	for i, part := range strings.SplitN(unix.ByteSliceToString(u.Release[:]), ".", 3) {
		if i == 2 {
			break
		}
		end := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' })
		if end >= 0 {
			part = part[:end]
		}
		v[i], _ = strconv.Atoi(part)
	}
	return v[0] > major || v[0] == major && v[1] >= minor
}
