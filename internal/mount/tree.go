package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"golang.org/x/sys/unix"
)

// tree makes m without attaching it and returns its descriptor, which the caller closes. It returns
// errNoAPI if mount(2) must be used.
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

// detached returns a descriptor of the mount that is open as the descriptor Source.
func (m *Mount) detached() (int, error) {
	fd, err := strconv.Atoi(m.Source)
	if err != nil {
		return -1, m.wrap("", err)
	}
	tree, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return tree, m.wrap("", os.NewSyscallError("dup", err))
}

// clone makes a bind mount.
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
	tree, err := unix.OpenTree(unix.AT_FDCWD, m.Source,
		uint(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|recursive))
	if missing(err) {
		return -1, errNoAPI
	}
	if err != nil {
		return -1, m.wrap("", cloneError(err, a.recursive))
	}
	err = unix.MountSetattr(tree, "", uint(unix.AT_EMPTY_PATH|recursive), a.attr())
	if err != nil {
		unix.Close(tree)
		if missing(err) { // mount_setattr is new in Linux 5.12
			return -1, errNoAPI
		}
		return -1, m.wrap("mount_setattr", err)
	}
	return tree, nil
}

// cloneError adds the reason to the EINVAL of a bind mount that is not recursive.
func cloneError(err error, recursive bool) error {
	if err == unix.EINVAL && !recursive {
		return fmt.Errorf(
			"%w: in a user namespace it cannot be mounted without the mounts below it (use rbind)",
			err)
	}
	return err
}

// missing reports whether an error means that a call is not available: it is unknown to the kernel,
// or a seccomp filter forbids it (older filters return EPERM for unknown calls). If the caller is
// not allowed to mount, mount(2) then returns that error.
func missing(err error) bool { return err == unix.ENOSYS || err == unix.EPERM }

// context is a file system that is being configured, from fsopen(2) to fsmount(2).
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

// hide makes setDir name directories relative to a descriptor of their common parent. All processes
// that can see an overlay mount can read the names of its directories. Without hide, a step could
// read the path of the state directory, and so, for example, the name of the user. It costs 2 µs a
// mount.
func (c *context) hide(paths []string) {
	dir := common(paths)
	if dir == "/" {
		return
	}
	if fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		c.dir, c.dirFD = dir, fd
	}
}

// common returns the innermost directory that contains all the absolute paths.
func common(paths []string) string {
	dir := filepath.Dir(paths[0])
	for _, path := range paths {
		for dir != "/" && !strings.HasPrefix(path, dir+"/") {
			dir = filepath.Dir(dir)
		}
	}
	return dir
}

// fail returns an *Error with the messages in the context's log, one of which each read returns.
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

// set sets one option: "key" or "key=value".
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

// maxString is the maximum length of a string value of fsconfig(2).
const maxString = 255

// setDir sets a directory. A path that is too long is replaced by a link to a descriptor, which
// /proc/mounts then shows.
func (c *context) setDir(key, path string, escaped bool) error {
	value := path
	if rest, ok := strings.CutPrefix(path, c.dir+"/"); ok && c.dir != "" {
		value = dirfd.FDPath(c.dirFD) + "/" + rest
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
		// The kernel resolves the path during the call.
		defer unix.Close(fd)
		value = dirfd.FDPath(fd)
	}
	err := unix.FsconfigSetString(c.fd, key, value)
	if err == unix.ENOENT && value != path { // /proc may not be mounted
		err = unix.FsconfigSetString(c.fd, key, path)
	}
	if err != nil {
		failed := c.fail(op(), err)
		// Linux 6.5 and the first versions of 6.6 have overlay in the new mount API, but no
		// lowerdir+.
		if strings.Contains(failed.Error(), "Unknown parameter '"+key+"'") {
			return errNoAPI
		}
		return failed
	}
	return nil
}

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
		err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH,
			&unix.MountAttr{Propagation: a.propagation})
		if err != nil {
			unix.Close(tree)
			return -1, c.fail("mount_setattr", err)
		}
	}
	return tree, nil
}

// plain makes a mount of any file system that gets its options unchanged.
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

// overlay makes an overlay. It sets the lower directories one by one (lowerdir+), so the option
// page's limit does not apply.
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

// nested makes an overlay of more than MaxLower lower directories: the lowest ones are combined in
// overlays.
func (m *Mount) nested() (int, error) {
	// Before Linux 6.15, a lower directory cannot be in a mount that is not attached.
	if !kernelHas(6, 15) {
		return -1, m.wrap("", fmt.Errorf("%d lower directories; more than %d need Linux 6.15",
			len(m.Lower), MaxLower))
	}
	var trees descriptors
	defer trees.close()
	lower := m.Lower
	var groups []string // lowest first
	for len(lower)+len(groups) > MaxLower {
		n := min(MaxLower, len(lower)+len(groups)-MaxLower+1)
		group := Mount{Type: Overlay, Source: m.Source, Lower: lower[len(lower)-n:],
			Options: append(viewOptions(m.Options), "ro")}
		tree, err := group.overlay()
		if err != nil {
			return -1, err
		}
		trees = append(trees, tree)
		groups = append(groups, dirfd.FDPath(tree))
		lower = lower[:len(lower)-n]
	}
	slices.Reverse(groups)
	top := *m
	top.Lower = slices.Concat(lower, groups)
	return top.overlay()
}

// viewOptions removes the options that are only for an overlay with an upper directory.
func viewOptions(options []string) []string {
	return slices.DeleteFunc(slices.Clone(options), func(o string) bool { return o == "volatile" })
}

func (m *Mount) sourceName() string {
	if m.Source == "" {
		return m.Type
	}
	return m.Source
}

// dropVolatile removes the mark with which the kernel prevents a second volatile mount of an upper
// directory: the directory may have lost writes in a crash of the machine. That cannot happen here,
// since a directory is never used after a reboot.
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

// kernelHas reports whether the kernel is at least of that version. Probing for an option of a file
// system with the new mount API could leave a partly made mount behind.
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
