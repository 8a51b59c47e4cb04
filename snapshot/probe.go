package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/smallfile"
)

// candidate is a driver that may work on this machine.
type candidate struct {
	name string
	// try returns the driver, or an error for users with the reason why the driver does not work in
	// the store's directory.
	try func(root string, o Options) (driver, error)
}

// candidates are the drivers, best first.
func candidates() []candidate {
	return []candidate{
		{mount.Overlay, tryOverlay},
		{mount.FuseOverlay, tryFuse},
		{"btrfs", tryBtrfs},
		{"copy", tryCopy},
	}
}

// Drivers returns the names of the drivers, best first.
func Drivers() []string {
	var names []string
	for _, c := range candidates() {
		names = append(names, c.name)
	}
	return names
}

const noPool = ": layerbuild keeps snapshots in a directory, not in a pool of block devices; " +
	"leave out --driver"

// otherDrivers are names of other programs' drivers. The values are messages for users: that there
// is no such driver and what to use instead, or its name in this program. docs/LAYERS.md explains
// each.
var otherDrivers = map[string]string{
	"aufs":         "there is no driver aufs; use overlay, which does the same",
	"devicemapper": "there is no driver devicemapper" + noPool,
	"devmapper":    "there is no driver devmapper" + noPool,
	"zfs": "there is no driver zfs; for a state directory on ZFS leave out --driver: " +
		"layerbuild then uses overlay (with OpenZFS 2.2 or later), fuse-overlayfs or copy",
	"vfs":       "vfs, a whole tree for each layer, is called copy here",
	"native":    "native, a whole tree for each layer, is called copy here",
	"overlay2":  "overlay2 is called overlay here",
	"overlayfs": "overlayfs is called overlay here",
}

// CheckDriver returns nil if there is a driver of that name, and otherwise an error with the reason
// why there is none.
func CheckDriver(name string) error {
	if slices.Contains(Drivers(), name) {
		return nil
	}
	reason, ok := otherDrivers[name]
	if !ok {
		names := Drivers()
		last := len(names) - 1
		reason = fmt.Sprintf("%s or %s is expected", strings.Join(names[:last], ", "), names[last])
	}
	return fmt.Errorf("%s; see docs/LAYERS.md", reason)
}

// CheckPlace returns an error if the driver of that name certainly cannot keep snapshots in the
// directory root. The directory need not exist. CheckPlace changes nothing.
func CheckPlace(name, root string) error {
	if name != "btrfs" {
		return nil
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	var st unix.Statfs_t
	for err = unix.Statfs(root, &st); err == unix.ENOENT &&
		root != "/"; err = unix.Statfs(root, &st) {
		root = filepath.Dir(root)
	}
	if err != nil || isBtrfs(st) {
		return nil // only Open can tell
	}
	return errNotBtrfs
}

// Probe tries every driver in the directory root. It makes the directory if it does not exist. It
// returns which drivers work, and why the others do not. Open uses the first one that works.
func Probe(root string, o Options) []ProbeResult {
	var results []ProbeResult
	root, err := filepath.Abs(root)
	if err == nil {
		err = makeDirs(root)
	}
	for _, c := range candidates() {
		r := ProbeResult{Name: c.name, OK: true}
		reason := err
		if reason == nil {
			_, reason = c.try(root, o)
		}
		if reason != nil {
			r.OK, r.Reason = false, reason.Error()
		}
		results = append(results, r)
	}
	return results
}

// choose returns the driver to use.
func choose(ctx context.Context, root, boot string, o Options) (driver, error) {
	if o.Driver != "" {
		for _, c := range candidates() {
			if c.name == o.Driver {
				d, err := c.try(root, o)
				if err != nil {
					return nil, fmt.Errorf("snapshot driver %s: %w", c.name, err)
				}
				return d, nil
			}
		}
		return nil, fmt.Errorf("snapshot driver %q: %w", o.Driver, CheckDriver(o.Driver))
	}
	key := probeKey(root, boot, o)
	if d, err := recall(root, key, o); err == nil {
		return d, nil
	}
	var reasons []error
	for i, c := range candidates() {
		d, err := c.try(root, o)
		if err == nil {
			// Only the best driver is recorded. If another one is in use, the next Open looks for a
			// better one again.
			if i == 0 {
				remember(ctx, root, key)
			}
			return d, nil
		}
		reasons = append(reasons, fmt.Errorf("%s: %w", c.name, err))
	}
	return nil, fmt.Errorf("no snapshot driver works: %w", errors.Join(reasons...))
}

// probeKey returns everything that can differ between two processes in one boot and that affects
// whether overlayfs works.
func probeKey(root, boot string, o Options) string {
	var st unix.Stat_t
	_ = unix.Stat(root, &st)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	_ = unix.Capget(&header, &caps[0])
	seccomp, _ := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	label, _ := smallfile.Read("/proc/self/attr/current")
	return fmt.Sprintf("%s %s user=%t dev=%x ino=%d caps=%x%08x seccomp=%d label=%q\n",
		mount.Overlay, boot, o.UserNS, st.Dev, st.Ino, caps[1].Effective,
		caps[0].Effective, seccomp, label)
}

// probeFile is the file that records that overlayfs works. Probing takes a millisecond, which can
// be longer than a whole build without changes.
const probeFile = "probe"

func recall(root, key string, o Options) (driver, error) {
	known, err := smallfile.Read(filepath.Join(root, probeFile))
	if err != nil {
		return nil, err
	}
	if string(known) != key {
		return nil, errors.New("recorded for another kernel, user or directory")
	}
	return newOverlay(root, o), nil
}

// remember records the key. It ignores errors: the next Open then probes again.
func remember(ctx context.Context, root, key string) {
	s := &Store{root: root}
	release, err := s.lock(ctx, true)
	if err != nil {
		return
	}
	defer release()
	_ = atomicfile.Own{Locked: true}.ReplaceFile(filepath.Join(root, probeFile), []byte(key))
}

func newOverlay(root string, o Options) *overlay {
	return &overlay{kind: mount.Overlay, user: o.UserNS, empty: filepath.Join(root, "empty"),
		volatile: needKernel(5, 10, "") == nil}
}

func tryCopy(root string, _ Options) (driver, error) {
	if err := unix.Access(root, unix.W_OK|unix.X_OK); err != nil {
		return nil, fmt.Errorf("the state directory cannot be written: %w", err)
	}
	return plainCopies{}, nil
}

func tryOverlay(root string, o Options) (driver, error) {
	if o.UserNS {
		if err := needKernel(5, 11, "overlayfs in a user namespace"); err != nil {
			return nil, err
		}
	}
	d := newOverlay(root, o)
	if err := d.probe(root); err != nil {
		return nil, explain(root, o, err)
	}
	return d, nil
}

func tryFuse(root string, o Options) (driver, error) {
	if _, err := exec.LookPath("fuse-overlayfs"); err != nil {
		return nil, errors.New("the program fuse-overlayfs is not installed")
	}
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		// not wrapped: the cause is not the state directory
		return nil, fmt.Errorf("needs /dev/fuse: %v", err)
	}
	unix.Close(dev)
	if strings.Contains(root, ":") {
		return nil, errors.New("fuse-overlayfs cannot use a path with a colon")
	}
	d := &overlay{kind: mount.FuseOverlay, user: o.UserNS, empty: filepath.Join(root, "empty")}
	if err := d.probe(root); err != nil {
		return nil, explain(root, o, err)
	}
	return d, nil
}

// fileSystems are file systems that overlayfs does not support as an upper directory, or on which
// it lacks needed features.
var fileSystems = map[int64]string{
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	unix.NFS_SUPER_MAGIC:       "NFS",
	unix.SMB2_SUPER_MAGIC:      "SMB",
	unix.CIFS_SUPER_MAGIC:      "SMB",
	unix.V9FS_MAGIC:            "9p",
	unix.FUSE_SUPER_MAGIC:      "FUSE",
	unix.ECRYPTFS_SUPER_MAGIC:  "eCryptfs",
	unix.MSDOS_SUPER_MAGIC:     "FAT",
	0x786f4256:                 "vboxsf",
}

// explain adds to the kernel's error what a user can do about it.
func explain(root string, o Options, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		if o.UserNS {
			return fmt.Errorf("mounting is not permitted in this user namespace; a seccomp or "+
				"AppArmor profile may forbid it: %w", err)
		}
		return fmt.Errorf("mounting needs root, or a user namespace: %w", err)
	}
	if errors.Is(err, unix.ENODEV) {
		return err
	}
	var st unix.Statfs_t
	if unix.Statfs(root, &st) == nil {
		if name, ok := fileSystems[int64(uint32(st.Type))]; ok {
			return fmt.Errorf(
				"the state directory is on %s, which cannot hold an overlay's upper directory: %w",
				name, err)
		}
		if st.Type == unix.TMPFS_MAGIC && o.UserNS && needKernel(6, 6, "") != nil {
			return fmt.Errorf(
				"the state directory is on tmpfs, which has no user xattrs before Linux 6.6: %w",
				err)
		}
	}
	return err
}

// needKernel returns an error when the kernel is older than the given version.
func needKernel(major, minor int, what string) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	release := unix.ByteSliceToString(u.Release[:])
	var gotMajor, gotMinor int
	if _, err := fmt.Sscanf(release, "%d.%d", &gotMajor, &gotMinor); err != nil {
		return fmt.Errorf("kernel release %q: %w", release, err)
	}
	if gotMajor < major || gotMajor == major && gotMinor < minor {
		return fmt.Errorf("%s needs Linux %d.%d, this is %s", what, major, minor, release)
	}
	return nil
}

// probe mounts a small overlay and performs the operations of a build in it, since a version number
// does not show what works.
func (o *overlay) probe(root string) (err error) {
	s := &Store{root: root, drv: o}
	work, err := s.newWorkDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, work.remove()) }()
	lower := filepath.Join(work.path, "lower")
	if err := probeTree(lower); err != nil {
		return err
	}
	// A prepare of an overlay makes a few directories and does not wait.
	if err := o.prepare(context.Background(), work.path, []string{lower}); err != nil {
		return err
	}
	// The mount is visible to no process, and is removed when the file is closed.
	merged, err := mount.Open(o.writable(work.path, []string{lower}))
	if err != nil {
		return err
	}
	err = o.exercise(int(merged.Fd()))
	merged.Close()
	if err != nil {
		return err
	}
	return o.checkUpper(filepath.Join(work.path, fsDir), lower)
}

// probeTree makes lower/{file,dir/sub}.
func probeTree(lower string) error {
	for _, dir := range [...]string{lower, lower + "/dir", lower + "/dir/sub"} {
		if err := unix.Mkdir(dir, 0o755); err != nil {
			return &os.PathError{Op: "mkdir", Path: dir, Err: err}
		}
	}
	return os.WriteFile(lower+"/file", []byte("probe"), 0o644)
}

// exercise removes a file, replaces a directory, and tries to rename a directory.
func (o *overlay) exercise(merged int) error {
	for _, step := range [...]struct {
		what string
		do   func() error
	}{
		{"rename a directory", func() error {
			switch err := unix.Renameat(merged, "dir", merged, "renamed"); err {
			case unix.EXDEV:
				return nil
			case nil:
				return errors.New("the kernel made a redirect, which a layer cannot represent")
			default:
				return err
			}
		}},
		{"remove a file", func() error { return unix.Unlinkat(merged, "file", 0) }},
		{"remove a directory", func() error {
			return unix.Unlinkat(merged, "dir/sub", unix.AT_REMOVEDIR)
		}},
		{"remove a directory", func() error {
			return unix.Unlinkat(merged, "dir", unix.AT_REMOVEDIR)
		}},
		{"make a directory", func() error { return unix.Mkdirat(merged, "dir", 0o755) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s in an overlay: %w", step.what, err)
		}
	}
	return nil
}

// checkUpper returns an error when exercise has left an upper directory from which no correct layer
// could be made.
func (o *overlay) checkUpper(upper, lower string) error {
	if o.kind == mount.FuseOverlay {
		if err := o.translate(upper, []string{lower}); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(upper+"/file", &st); err != nil ||
		st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		return errors.New("a removed file leaves no whiteout")
	}
	var value [1]byte
	if n, err := unix.Lgetxattr(upper+"/dir", o.opaqueName(), value[:]); err != nil ||
		n != 1 || value[0] != 'y' {
		return fmt.Errorf("a replaced directory is not marked with %s", o.opaqueName())
	}
	return checkTypes(upper)
}

// checkTypes returns an error if the file system does not return the types of entries (d_type) when
// a directory is listed. An xfs made with ftype=0 does not. Without it overlayfs shows whiteouts as
// files.
func checkTypes(dir string) error {
	fd, err := openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var names dirfd.Names
	if err := names.Read(fd); err != nil {
		return os.NewSyscallError("getdents", err)
	}
	for _, e := range names.Entries {
		if e.Type == unix.DT_UNKNOWN {
			return fmt.Errorf(
				"the state directory's file system does not return the type of %q (d_type)",
				names.Name(e))
		}
	}
	return nil
}
