package mount

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"golang.org/x/sys/unix"
)

// legacy makes m with mount(2): for overlays before Linux 6.7, for bind mounts before 5.12, and
// under seccomp filters that forbid the new calls.
func (m *Mount) legacy(root string) error {
	target, err := openTarget(root, m.Target)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	a, data := split(m.Options)
	if m.Type == Bind || m.Type == "rbind" {
		return m.legacyBind(root, target, a)
	}
	var files descriptors
	defer files.close()
	if m.Type == Overlay {
		if m.Upper != "" {
			m.dropVolatile(data)
		}
		data, err = m.page(data, &files)
		if err != nil {
			return err
		}
	}
	page := strings.Join(data, ",")
	if len(page) >= unix.Getpagesize() {
		return fmt.Errorf("options of %d bytes do not fit the kernel's option page", len(page))
	}
	err = unix.Mount(m.sourceName(), dirfd.FDPath(target), m.Type, a.msFlags(), page)
	if err != nil {
		return err
	}
	if a.propagation == 0 {
		return nil
	}
	return m.again(root, uintptr(a.propagation))
}

// again changes the mount that was just made. It opens the mount point again: the earlier
// descriptor refers to the directory below the mount.
func (m *Mount) again(root string, flags uintptr) error {
	target, err := openTarget(root, m.Target)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return os.NewSyscallError("mount", unix.Mount("", dirfd.FDPath(target), "", flags, ""))
}

func (m *Mount) legacyBind(root string, target int, a attributes) error {
	a.recursive = a.recursive || m.Type == "rbind"
	if a.propagation == 0 {
		a.propagation = unix.MS_PRIVATE
	}
	var recursive uintptr
	if a.recursive {
		recursive = unix.MS_REC
	}
	err := unix.Mount(m.Source, dirfd.FDPath(target), "", unix.MS_BIND|recursive, "")
	if err != nil {
		return cloneError(err, a.recursive)
	}
	if err := m.again(root, uintptr(a.propagation)|recursive); err != nil {
		return err
	}
	if a.set == 0 && a.clear == 0 {
		return nil
	}
	top, err := openTarget(root, m.Target)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	points := []string{dirfd.FDPath(top)}
	if a.recursive {
		below, err := mountsBelow(top)
		if err != nil {
			return err
		}
		points = append(points, below...)
	}
	for _, point := range points {
		if err := remount(point, a); err != nil {
			return err
		}
	}
	return nil
}

// remount changes the flags of the mount at point. It keeps the flags that are set: in a user
// namespace the kernel refuses to clear flags inherited from the parent namespace.
func remount(point string, a attributes) error {
	var st unix.Statfs_t
	if err := unix.Statfs(point, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: point, Err: err}
	}
	const kept = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC |
		unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME
	flags := uintptr(st.Flags)&kept&^attributes{set: a.clear}.msFlags() | a.msFlags()
	if err := unix.Mount("", point, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
		return &os.PathError{Op: "remount", Path: point, Err: err}
	}
	return nil
}

// mountsBelow returns the mount points below the directory fd.
func mountsBelow(fd int) ([]string, error) {
	dir, err := os.Readlink(dirfd.FDPath(fd))
	if err != nil {
		return nil, err
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var points []string
	for line := range strings.Lines(string(info)) {
		// proc_pid_mountinfo(5): the fifth field, with blanks and backslashes in octal.
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := unoctal(fields[4])
		if strings.HasPrefix(point, strings.TrimSuffix(dir, "/")+"/") {
			points = append(points, point)
		}
	}
	return points, nil
}

func unoctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// descriptors are files that must stay open until a mount is made.
type descriptors []int

func (d *descriptors) close() {
	for _, fd := range *d {
		unix.Close(fd)
	}
}

// page returns an overlay's options for mount(2). If the paths are too long for the option page,
// they are replaced by links to descriptors, which fits about two hundred directories.
func (m *Mount) page(data []string, files *descriptors) ([]string, error) {
	lower := make([]string, len(m.Lower))
	for i, dir := range m.Lower {
		lower[i] = escape(dir, `\,:`)
	}
	options := m.overlayOptions(lower, data)
	if len(strings.Join(options, ",")) < unix.Getpagesize() {
		return options, nil
	}
	for i, dir := range m.Lower {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, m.wrap("lowerdir "+strconv.Quote(dir), err)
		}
		*files = append(*files, fd)
		lower[i] = dirfd.FDPath(fd)
	}
	options = m.overlayOptions(lower, data)
	if len(strings.Join(options, ",")) < unix.Getpagesize() {
		return options, nil
	}
	return nil, fmt.Errorf("%d lower directories do not fit the option page of this kernel: more "+
		"than two hundred need Linux 6.7", len(lower))
}

func (m *Mount) overlayOptions(lower, data []string) []string {
	options := []string{"lowerdir=" + strings.Join(lower, ":")}
	if m.Upper != "" {
		options = append(options, "upperdir="+escape(m.Upper, `\,`),
			"workdir="+escape(m.Work, `\,`))
	}
	return append(options, data...)
}

// legacyOpen mounts m in a mount namespace of a single thread, opens it, and lets the namespace
// end.
func (m *Mount) legacyOpen() (f *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread stays locked, so it ends with the goroutine, and the namespace with it.
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f, err = m.openHere()
			return
		}
		// The first thread never ends, and /proc/self refers to it. While it is locked here, the
		// next goroutine gets another thread.
		defer runtime.UnlockOSThread()
		f, err = m.legacyOpen()
	}()
	<-done
	return f, err
}

// openHere moves the calling thread into a new mount namespace, mounts m there and opens it.
func (m *Mount) openHere() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, os.NewSyscallError("mount", err)
	}
	// Any directory can be the mount point: the mount is not visible to other processes.
	place := m.Source
	if len(m.Lower) > 0 {
		place = m.Lower[0]
	}
	if m.Type != Overlay && m.Type != Bind && m.Type != "rbind" {
		place = "/proc"
	}
	if place == "" {
		return nil, errors.New("nothing to open")
	}
	here := *m
	here.Target = ""
	if err := here.legacy(place); err != nil {
		return nil, err
	}
	fd, err := unix.Open(place, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: place, Err: err}
	}
	return os.NewFile(uintptr(fd), m.Type), nil
}
