package mount

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// fuse mounts a FUSE file system and lets fuse-overlayfs serve it. The kernel's side is made here and the program only
// gets the open device (libfuse takes "/dev/fd/N" for a mount that exists). So the program can run in a mount namespace
// that lacks the mount; would it run in ours, the mount would keep the program alive, the program the namespace, and
// the namespace the mount, for ever.
func (m *Mount) fuse() (int, error) {
	program, err := exec.LookPath("fuse-overlayfs")
	if err != nil {
		return -1, m.wrap("", errors.New("the program fuse-overlayfs is not installed"))
	}
	args, dir, err := m.fuseArgs()
	if err != nil {
		return -1, err
	}
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return -1, m.wrap("", err)
	}
	defer dev.Close()
	tree, err := m.fuseTree(int(dev.Fd()))
	if err != nil {
		return -1, err
	}
	cmd := exec.Command(program, append(args, "/dev/fd/3")...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.ExtraFiles = []*os.File{dev}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	// It goes into the background by itself as soon as it has read its directories, or says why not.
	if err := cmd.Run(); err != nil {
		unix.Close(tree)
		return -1, &Error{Mount: *m, Op: "fuse-overlayfs", Log: strings.Join(strings.Fields(stderr.String()), " "), Err: err}
	}
	return tree, nil
}

// fuseTree makes the kernel's side, for whoever answers on the device dev.
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
		"source=" + m.sourceName(), "subtype=fuse-overlayfs", "fd=" + strconv.Itoa(dev), "rootmode=40000",
		"user_id=" + strconv.Itoa(os.Geteuid()), "group_id=" + strconv.Itoa(os.Getegid()), "default_permissions", "allow_other",
	})
	if err != nil {
		return -1, err
	}
	return c.mount(a)
}

// fuseArgs are the program's arguments and the directory to start it in. One argument holds at most 128 KiB, so that the
// lower directories are named relative to a directory that all have in common.
func (m *Mount) fuseArgs() (args []string, dir string, err error) {
	if len(m.Lower) == 0 {
		return nil, "", m.wrap("", errors.New("no lower directory"))
	}
	for _, path := range append([]string{m.Upper, m.Work}, m.Lower...) {
		// It splits at every colon, whatever stands before it.
		if strings.Contains(path, ":") {
			return nil, "", m.wrap("", fmt.Errorf("fuse-overlayfs takes no path with a colon: %q", path))
		}
	}
	dir = filepath.Dir(m.Lower[0])
	for _, path := range m.Lower {
		for dir != "/" && !strings.HasPrefix(path, dir+"/") {
			dir = filepath.Dir(dir)
		}
	}
	lower := make([]string, len(m.Lower))
	for i, path := range m.Lower {
		lower[i] = escape("./"+strings.TrimPrefix(path[len(dir):], "/"), `\,`)
	}
	_, options := split(m.Options)
	options = append([]string{"lowerdir=" + strings.Join(lower, ":")}, options...)
	if m.Upper != "" {
		options = append(options, "upperdir="+escape(m.Upper, `\,`), "workdir="+escape(m.Work, `\,`))
	}
	args = make([]string, 0, 2*len(options)+1)
	for _, o := range options {
		args = append(args, "-o", o)
	}
	return args, dir, nil
}
