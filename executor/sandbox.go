package executor

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/safepath"
	"github.com/layerbuild/layerbuild/internal/sorting"
)

// sandbox is the file system of a command: the image, and the mounts that exist for one step only.
type sandbox struct {
	spec *Spec
	p    *Process
	// staging is the path of a tmpfs, mounted on a directory of the host, in which the mounts are
	// prepared before they are attached. stagingFD is its descriptor.
	staging   string
	stagingFD int
	root      int // the image's root, O_PATH
	proc      int // the new /proc, O_PATH
	dev       int // the new /dev, O_PATH
	// sys is a clone of the host's /sys, used if a new sysfs cannot be mounted, or -1.
	sys         int
	mountpoints mountpoints
	// an empty, read-only directory to mount over masked directories; -1 until it is needed
	hidden int
	result *Result
	// output is the descriptor that hooks write to.
	output int
	// resolvConf is the content of the host's /etc/resolv.conf.
	resolvConf []byte
	// init is the first process of the step's pid namespace, if it is another process than this
	// one; nil until it is started.
	init *initProcess
}

const (
	roAttrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV |
		unix.MOUNT_ATTR_NOEXEC
	plainAttrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
)

// openStaging makes the thread's mounts private and mounts and opens the staging tmpfs.
func (b *sandbox) openStaging() error {
	b.stagingFD, b.root, b.proc, b.dev, b.sys, b.hidden = -1, -1, -1, -1, -1, -1
	if err := privateMounts(); err != nil {
		return err
	}
	return b.mountStaging()
}

// build makes all mounts of the sandbox and makes it the root.
func (b *sandbox) build() error {
	steps := []func() error{b.mountRoot, b.mountProc, b.mountDev, b.maskProc, b.mountSys,
		b.mountEtc, b.mountAll, b.runHooks, b.lockRoot}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return pivot(b.staging + "/" + bundleRoot)
}

// close closes the descriptors, which keep the mounts busy.
func (b *sandbox) close() {
	for _, fd := range []int{b.stagingFD, b.root, b.proc, b.dev, b.sys, b.hidden} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	b.mountpoints.close()
}

// noDevices returns the attributes of every mount on which a step could make or find a device node.
// With CAP_MKNOD, which is in Docker's default set, a step could otherwise open the machine's
// disks. Runtimes prevent that by a program attached to the container's cgroup, which needs a
// writable cgroup. With nodev, device nodes can be made but not opened. The nodes in /dev are
// separate mounts.
func (b *sandbox) noDevices() uint64 {
	if b.p.Insecure {
		return 0
	}
	return unix.MOUNT_ATTR_NODEV
}

func (b *sandbox) mountStaging() error {
	var err error
	paths := hostPaths(b.rootMounts())
	for _, m := range b.p.Mounts {
		switch s := m.Source.(type) {
		case Tree:
			paths = append(paths, hostPaths(s.Mounts)...)
		case Bind:
			paths = append(paths, s.Source)
		case Device:
			paths = append(paths, s.Host)
		}
	}
	for _, h := range b.p.Hooks {
		// A hook finds its program and the devices of the host (/sys/bus).
		paths = append(paths, "/sys", h.Path)
	}
	if b.staging, err = chooseStaging(paths); err != nil {
		return err
	}
	if b.spec.UserNS {
		// Mounting a sysfs needs CAP_SYS_ADMIN in the user namespace that owns the network
		// namespace.
		b.sys, err = cloneMount(unix.AT_FDCWD, "/sys", unix.AT_RECURSIVE)
		if err != nil && err != unix.ENOENT {
			return fmt.Errorf("mount /sys: %w", err)
		}
	}
	dir, err := unix.Open(b.staging, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", b.staging, err)
	}
	defer unix.Close(dir)
	// The device nodes are made in it, so it is not nodev. Processes of the step cannot see it.
	m, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID, "mode=0700")
	if err != nil {
		return err
	}
	if err := attach(m, dir, 0, false); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	b.stagingFD, err = unix.Open(b.staging, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", b.staging, err)
	}
	return nil
}

func (b *sandbox) mountRoot() error {
	if err := unix.Mkdirat(b.stagingFD, bundleRoot, 0o755); err != nil {
		return fmt.Errorf("mount the root file system: %w", err)
	}
	if err := mount.All(b.rootMounts(), b.staging+"/"+bundleRoot); err != nil {
		return fmt.Errorf("mount the root file system: %w", err)
	}
	var err error
	if b.root, err = unix.Open(b.staging+"/"+bundleRoot,
		unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("mount the root file system: %w", err)
	}
	if err := setAttrs(b.root, b.noDevices(), true); err != nil {
		return fmt.Errorf("mount the root file system: %w", err)
	}
	return nil
}

// lockRoot makes the root read-only. It is called last, since mount points may have to be made in
// the root.
func (b *sandbox) lockRoot() error {
	if !b.p.ReadOnlyRoot {
		return nil
	}
	if err := setAttrs(b.root, unix.MOUNT_ATTR_RDONLY, false); err != nil {
		return fmt.Errorf("make the root file system read-only: %w", err)
	}
	return nil
}

// put attaches a mount at a path in the root and returns a descriptor of the mount's root. It makes
// the mount point if it is missing. The caller closes the descriptor.
func (b *sandbox) put(m int, name string, dir bool, attrs uint64, recursive bool) (int, error) {
	at, err := b.mountpoints.place(b.root, name, dir)
	if err != nil {
		unix.Close(m)
		return -1, fmt.Errorf("mount at %w", err)
	}
	defer unix.Close(at)
	if err := attach(m, at, attrs, recursive); err != nil {
		return -1, fmt.Errorf("mount at %s: %w", name, err)
	}
	top, err := openIn(b.root, name, 0)
	if err != nil {
		return -1, fmt.Errorf("mount at %w", safepath.InRootError(name, err))
	}
	return top, nil
}

func (b *sandbox) putAndClose(m int, name string, dir bool, attrs uint64, recursive bool) error {
	at, err := b.mountpoints.place(b.root, name, dir)
	if err != nil {
		unix.Close(m)
		return fmt.Errorf("mount at %w", err)
	}
	defer unix.Close(at)
	if err := attach(m, at, attrs, recursive); err != nil {
		return fmt.Errorf("mount at %s: %w", name, err)
	}
	return nil
}

// Parts of /proc and /sys that show or change the host's state. OCI runtimes mask them or make them
// read-only by default (runtime-spec, config-linux.md, maskedPaths and readonlyPaths; containerd's
// and Docker's defaults).
var (
	maskedProc = []string{"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats",
		"sched_debug", "scsi", "timer_list", "timer_stats"}
	lockedProc = []string{"bus", "fs", "irq", "sys", "sysrq-trigger"}
	maskedSys  = []string{"devices/virtual/powercap", "firmware"}
)

func (b *sandbox) mountProc() error {
	m, err := b.newProc()
	recursive := false
	if errors.Is(err, unix.EPERM) && b.spec.UserNS {
		// In a container whose /proc is masked, the kernel does not let a user namespace mount a
		// /proc without masks. The container's /proc shows the pids of other processes, but has the
		// files that programs need.
		if b.p.traces() {
			return errNoTracing
		}
		recursive = true
		b.result.Warnings = append(b.result.Warnings,
			"a new /proc cannot be mounted, since the surrounding container masks parts of its "+
				"own; the step uses the container's /proc")
		m, err = cloneMount(unix.AT_FDCWD, "/proc", unix.AT_RECURSIVE)
	}
	if err != nil {
		return err
	}
	if b.proc, err = b.put(m, "/proc", true, 0, recursive); err != nil {
		return err
	}
	if b.p.Insecure || recursive {
		return nil
	}
	if err := b.lock(b.proc, lockedProc); err != nil {
		return fmt.Errorf("protect /proc%w", err)
	}
	return nil
}

// newProc returns a mount of /proc for the step's pid namespace.
func (b *sandbox) newProc() (int, error) {
	if b.init == nil {
		return newMount("proc", plainAttrs)
	}
	if err := b.init.proc(); err != nil {
		return -1, err
	}
	return safepath.NoLinks(b.stagingFD, procDir, unix.O_PATH|unix.O_DIRECTORY, 0)
}

// lock makes files and directories of a file system read-only by bind mounts of each on itself.
func (b *sandbox) lock(dir int, names []string) error {
	for _, name := range names {
		m, err := cloneMount(dir, name, 0)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return safepath.InRootError(name, err)
		}
		at, err := safepath.NoLinks(dir, name, unix.O_PATH, 0)
		if err == nil {
			err = attach(m, at, roAttrs, false)
			unix.Close(at)
		}
		if err != nil {
			return safepath.InRootError(name, err)
		}
	}
	return nil
}

// mask hides files and directories of a file system: it mounts /dev/null on a file and an empty
// directory on a directory.
func (b *sandbox) mask(dir int, names []string) error {
	for _, name := range names {
		at, err := safepath.NoLinks(dir, name, unix.O_PATH, 0)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil {
			err = b.cover(at)
			unix.Close(at)
		}
		if err != nil {
			return safepath.InRootError(name, err)
		}
	}
	return nil
}

func (b *sandbox) cover(at int) error {
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		m, err := cloneMount(b.dev, "null", 0)
		if err != nil {
			return err
		}
		return attach(m, at, 0, false)
	}
	if b.hidden < 0 {
		if err := unix.Mkdirat(b.stagingFD, "hidden", 0o555); err != nil {
			return err
		}
		var err error
		if b.hidden, err = safepath.NoLinks(b.stagingFD, "hidden", unix.O_PATH, 0); err != nil {
			return err
		}
	}
	m, err := cloneMount(b.hidden, "", 0)
	if err != nil {
		return err
	}
	return attach(m, at, roAttrs, false)
}

func (b *sandbox) mountSys() error {
	m, err := newMount("sysfs", 0)
	fresh := err == nil
	if err != nil {
		if !b.spec.UserNS {
			return err
		}
		if m = b.sys; m < 0 {
			return nil // the host has none
		}
		b.sys = -1
	}
	attrs := uint64(plainAttrs)
	if !b.p.Insecure {
		attrs = roAttrs
	}
	sys, err := b.put(m, "/sys", true, attrs, !fresh)
	if err != nil {
		return err
	}
	defer unix.Close(sys)
	if fresh {
		if err := b.mountCgroup(sys); err != nil {
			return err
		}
	}
	if b.p.Insecure {
		return nil
	}
	if err := b.mask(sys, maskedSys); err != nil {
		return fmt.Errorf("mask /sys%w", err)
	}
	return nil
}

// maskProc masks parts of /proc. It is called after mountDev, since it uses /dev/null.
func (b *sandbox) maskProc() error {
	if b.p.Insecure {
		return nil
	}
	if err := b.mask(b.proc, maskedProc); err != nil {
		return fmt.Errorf("mask /proc%w", err)
	}
	return nil
}

// mountCgroup mounts the step's own cgroup read-only: language runtimes read their limits there. On
// a machine with cgroup v1 it mounts nothing, and programs use the machine's limits.
func (b *sandbox) mountCgroup(sys int) error {
	at, err := safepath.NoLinks(sys, "fs/cgroup", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil // a kernel without cgroups
	}
	defer unix.Close(at)
	if !unifiedCgroups() {
		return nil
	}
	attrs := plainAttrs
	if !b.p.Insecure {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	m, err := newMount("cgroup2", attrs)
	if err != nil {
		return nil // may be forbidden in a container; steps work without it
	}
	return attach(m, at, 0, false)
}

func unifiedCgroups() bool {
	b, err := os.ReadFile("/proc/self/cgroup")
	return err == nil && strings.HasPrefix(string(b), "0::") && strings.Count(string(b), "\n") == 1
}

var devLinks = [][2]string{
	{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"},
	{"pts/ptmx", "ptmx"}, {"/proc/kcore", "core"},
}

func (b *sandbox) mountDev() error {
	m, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_STRICTATIME,
		"mode=0755", "size=64m")
	if err != nil {
		return err
	}
	if b.dev, err = b.put(m, "/dev", true, b.noDevices(), false); err != nil {
		return err
	}
	unix.Umask(0)
	defer unix.Umask(0o022)
	for _, d := range devices {
		if err := b.device(d.name, d.major, d.minor); err != nil {
			return fmt.Errorf("make /dev/%s: %w", d.name, err)
		}
	}
	if err := b.mountInsecureDevices(); err != nil {
		return err
	}
	for _, l := range devLinks {
		if err := unix.Symlinkat(l[0], b.dev, l[1]); err != nil {
			return fmt.Errorf("make /dev/%s: %w", l[1], err)
		}
	}
	pts := []string{"ptmxmode=0666", "mode=0620", "newinstance"}
	if !b.spec.SingleID {
		pts = append(pts, "gid=5")
	}
	if err := b.mountInDev("pts", "devpts", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC,
		pts...); err != nil {
		return err
	}
	size := b.p.ShmSize
	if size == 0 {
		size = 64 << 20
	}
	if err := b.mountInDev("shm", "tmpfs", plainAttrs, "mode=1777",
		"size="+strconv.FormatInt(size, 10)); err != nil {
		return err
	}
	err = b.mountInDev("mqueue", "mqueue", plainAttrs)
	if errors.Is(err, unix.ENODEV) {
		return nil // a kernel without POSIX message queues
	}
	return err
}

func (b *sandbox) mountInDev(name, fsType string, attrs int, options ...string) error {
	m, err := newMount(fsType, attrs, options...)
	if err != nil {
		return err
	}
	if err := unix.Mkdirat(b.dev, name, 0o755); err != nil {
		unix.Close(m)
		return fmt.Errorf("make /dev/%s: %w", name, err)
	}
	at, err := safepath.NoLinks(b.dev, name, unix.O_PATH, 0)
	if err == nil {
		err = attach(m, at, 0, false)
		unix.Close(at)
	}
	if err != nil {
		return fmt.Errorf("mount /dev/%s: %w", name, err)
	}
	return nil
}

// device mounts a device node in /dev. It makes a new node, so that a step cannot change the mode
// or owner of the machine's node. In a user namespace, nodes cannot be made: device mounts the
// machine's node read-only, which does not prevent writing to the device.
func (b *sandbox) device(name string, major, minor uint32) error {
	dir, from, attrs := b.stagingFD, name, uint64(0)
	err := unix.EPERM
	if !b.spec.UserNS {
		err, _ = unix.Mknodat(b.stagingFD, name, unix.S_IFCHR|0o666,
			int(unix.Mkdev(major, minor))).(unix.Errno)
	}
	switch err {
	case 0:
	case unix.EPERM:
		dir, from, attrs = unix.AT_FDCWD, "/dev/"+name, unix.MOUNT_ATTR_RDONLY
	default:
		return err
	}
	m, merr := cloneMount(dir, from, 0)
	if merr != nil {
		return merr
	}
	if err := unix.Mknodat(b.dev, name, unix.S_IFREG|0o666, 0); err != nil {
		unix.Close(m)
		return err
	}
	at, merr := safepath.NoLinks(b.dev, name, unix.O_PATH, 0)
	if merr != nil {
		unix.Close(m)
		return merr
	}
	defer unix.Close(at)
	return attach(m, at, attrs, false)
}

// defaultHostname is the host name of BuildKit's steps. Dockerfiles print it.
const defaultHostname = "buildkitsandbox"

func hostname(p *Process) string { return cmp.Or(p.Hostname, defaultHostname) }

// mountEtc mounts the step's /etc/resolv.conf and /etc/hosts. They are read-only, since changes
// would be lost.
func (b *sandbox) mountEtc() error {
	var hosts strings.Builder
	fmt.Fprintf(&hosts, "127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n",
		hostname(b.p))
	for _, h := range b.p.ExtraHosts {
		fmt.Fprintf(&hosts, "%s\t%s\n", h.IP, h.Name)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"resolv.conf", b.resolvConf}, {"hosts", []byte(hosts.String())}} {
		m, err := b.file(f.name, Data{Data: f.data, Mode: 0o644})
		if err != nil {
			return fmt.Errorf("make /etc/%s: %w", f.name, err)
		}
		if err := b.putAndClose(m, "/etc/"+f.name, false, roAttrs, false); err != nil {
			return err
		}
	}
	return nil
}

// file makes a file in memory and returns a mount of it.
func (b *sandbox) file(name string, d Data) (int, error) {
	mode := cmp.Or(d.Mode, 0o400)
	f, err := unix.Openat(b.stagingFD, name,
		unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, err
	}
	defer unix.Close(f)
	if _, err := fd(f).Write(d.Data); err != nil {
		return -1, err
	}
	if d.UID != 0 || d.GID != 0 {
		if err := unix.Fchown(f, int(d.UID), int(d.GID)); err != nil && !b.spec.SingleID {
			return -1, fmt.Errorf("give it to %d:%d: %w", d.UID, d.GID, err)
		}
	}
	if err := unix.Fchmod(f, mode); err != nil {
		return -1, err
	}
	return cloneMount(b.stagingFD, name, 0)
}

// mountAll makes the mounts of Process.Mounts in the order of their targets, so that outer ones
// come first.
func (b *sandbox) mountAll() error {
	mounts := slices.Clone(b.p.Mounts)
	for i := range mounts {
		m := &mounts[i]
		if !path.IsAbs(m.Target) {
			m.Target = path.Join("/", b.p.Dir, m.Target)
		}
		if path.Clean(m.Target) == "/" {
			return errors.New("cannot mount at /")
		}
	}
	sorting.StableFunc(mounts, func(a, b Mount) int {
		return cmp.Compare(path.Clean(a.Target), path.Clean(b.Target))
	})
	for i, m := range mounts {
		if err := b.mountOne(m, "m"+strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return nil
}

func (b *sandbox) mountOne(m Mount, name string) error {
	if d, ok := m.Source.(Device); ok {
		if err := b.mountDevice(m.Target, name, d); err != nil {
			return fmt.Errorf("device %s: %w", m.Target, err)
		}
		return nil
	}
	attrs := b.noDevices()
	for attr, set := range map[uint64]bool{unix.MOUNT_ATTR_RDONLY: m.ReadOnly,
		unix.MOUNT_ATTR_NOSUID: m.NoSuid, unix.MOUNT_ATTR_NOEXEC: m.NoExec} {
		if set {
			attrs |= attr
		}
	}
	tree, recursive, err := b.source(m.Source, name)
	if err != nil {
		return fmt.Errorf("mount at %s: %w", m.Target, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		unix.Close(tree)
		return fmt.Errorf("mount at %s: %w", m.Target, err)
	}
	return b.putAndClose(tree, m.Target, st.Mode&unix.S_IFMT == unix.S_IFDIR, attrs, recursive)
}

// source returns an unattached mount of s, and reports whether it has mounts below it.
func (b *sandbox) source(s MountSource, name string) (tree int, recursive bool, err error) {
	switch s := s.(type) {
	case Tmpfs:
		options := []string{fmt.Sprintf("mode=%#o", cmp.Or(s.Mode, 0o1777))}
		if s.Size > 0 {
			options = append(options, "size="+strconv.FormatInt(s.Size, 10))
		}
		tree, err = newMount("tmpfs", unix.MOUNT_ATTR_NOSUID, options...)
		return tree, false, err
	case Data:
		tree, err = b.file(name, s)
		return tree, false, err
	case Bind:
		dir, err := unix.Open(s.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, false, fmt.Errorf("open %s: %w", s.Source, err)
		}
		defer unix.Close(dir)
		if s.Single {
			tree, err = cloneMount(dir, "", 0)
			return tree, false, err
		}
		tree, err = part(dir, s.Path, s.Make)
		return tree, true, err
	case Tree:
		if err := unix.Mkdirat(b.stagingFD, name, 0o755); err != nil {
			return -1, false, err
		}
		if err := mount.All(s.Mounts, b.staging+"/"+name); err != nil {
			return -1, false, err
		}
		dir, err := safepath.NoLinks(b.stagingFD, name, unix.O_PATH, 0)
		if err != nil {
			return -1, false, err
		}
		defer unix.Close(dir)
		tree, err = part(dir, s.Path, s.Make)
		return tree, true, err
	default:
		panic("unreachable")
	}
}

// part clones the mount of the path name in dir. If make is set, it makes a missing directory.
func part(dir int, name string, make bool) (int, error) {
	at := dir
	if name != "" {
		var err error
		at, err = openIn(dir, name, 0)
		if errors.Is(err, unix.ENOENT) && make {
			at, err = safepath.MkdirAll(dir, name, 0o755, nil)
		}
		if errors.Is(err, unix.ENOENT) {
			return -1, fmt.Errorf("%s: not found", path.Join("/", name))
		}
		if err != nil {
			return -1, safepath.InRootError(name, err)
		}
		defer unix.Close(at)
	}
	return cloneMount(at, "", unix.AT_RECURSIVE)
}
