package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/safepath"
)

// Mount is one mount, as data.
type Mount struct {
	// Type is the file system type ("overlay", "tmpfs", "proc"), or "bind", or "fuse-overlayfs" for
	// an overlay that the program of that name serves (see FuseOverlay).
	Type string `json:"type"`
	// Source is the directory or file of a bind mount. For other types it is the name shown in
	// /proc/mounts.
	Source string `json:"source,omitempty"`
	// Target is the mount point, below the root that is passed to All; "" is that root itself.
	Target string `json:"target,omitempty"`
	// Lower are an overlay's lower directories, top first, absolute. They are not in Options
	// because hundreds of them do not fit into the 4096-byte option page. The new mount API takes
	// them one by one (lowerdir+, Linux 6.7).
	Lower []string `json:"lower,omitempty"`
	// Upper and Work are an overlay's writable directories. If both are empty, the mount is a
	// read-only view, which needs two lower directories.
	Upper string `json:"upper,omitempty"`
	Work  string `json:"work,omitempty"`
	// Options are further options of mount(8): "ro", "nosuid", "mode=755", "volatile", "userxattr",
	// "rbind". With "rbind" the flags ("ro") also apply to the mounts below. A bind mount is
	// private unless the options set another propagation.
	Options []string `json:"options,omitempty"`
}

// Types that are not names of the kernel's file systems.
const (
	Bind    = "bind"
	Overlay = "overlay"
	// FuseOverlay is fuse-overlayfs(1). All and Open start the program, which serves the mount from
	// a separate mount namespace in which the mount does not exist. The program ends by itself when
	// the mount is gone everywhere: unmounted, its namespace ended, or the descriptor closed. A
	// Server reports if it ends too early.
	FuseOverlay = "fuse-overlayfs"
	// Detached is a mount that was made but not attached (see Server.Tree). Source is the number of
	// its descriptor in the process that attaches it. It can be attached once.
	Detached = "detached"
)

// MaxLower is the largest number of lower directories of one overlay (the kernel's OVL_MAX_STACK).
// A Mount may have more if the kernel can combine its lowest directories in overlays of their own
// (Linux 6.15).
const MaxLower = 500

// Error is returned when a mount fails. Log contains the messages of the kernel or of
// fuse-overlayfs.
type Error struct {
	Mount Mount
	// Op is the part that failed: `lowerdir "/a"`, "fsmount"; "" if it is not known.
	Op  string
	Log string
	Err error
}

// Error returns a message with the mount, the part that failed and the reason.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("mount " + e.Mount.Type)
	if e.Mount.Type == Bind || e.Mount.Type == "rbind" {
		fmt.Fprintf(&b, " %q", e.Mount.Source)
	}
	if e.Mount.Target != "" {
		fmt.Fprintf(&b, " at %q", e.Mount.Target)
	}
	if e.Op != "" {
		b.WriteString(": " + e.Op)
	}
	b.WriteString(": " + e.Err.Error())
	if e.Log != "" {
		b.WriteString(" (" + e.Log + ")")
	}
	return b.String()
}

// Unwrap returns the system call's error.
func (e *Error) Unwrap() error { return e.Err }

// errNoAPI is returned when the kernel or a seccomp filter lacks a call or an option of the new
// mount API. The caller then uses mount(2).
var errNoAPI = errors.New("the kernel lacks the new mount API")

// performer makes mounts. Its zero value is used except in tests, which set legacy to test
// mount(2).
type performer struct {
	legacy bool
}

// All makes the mounts in their order in the current mount namespace. Targets are resolved inside
// root, including links and "..". A mount whose Target is "" becomes the root for the mounts after
// it. All does not make mount points: a target that does not exist is an error. After an error, the
// mounts made before are kept. All returns an *Error.
func All(mounts []Mount, root string) error {
	return performer{}.all(mounts, root)
}

// Open makes mounts without attaching them and opens the root directory of the first. Other
// processes do not see them, and they are gone when the file and all files opened through it are
// closed. The first mount's Target is ignored. The targets of other mounts are resolved inside the
// first mount (Linux 6.15). The caller closes the file. Open returns an *Error.
func Open(mounts []Mount) (*os.File, error) {
	return performer{}.open(mounts)
}

func (p performer) all(mounts []Mount, root string) error {
	for i := range mounts {
		m := &mounts[i]
		if err := p.attach(m, root); err != nil {
			return m.wrap("", err)
		}
	}
	return nil
}

func (p performer) attach(m *Mount, root string) error {
	tree, err := p.tree(m)
	if errors.Is(err, errNoAPI) {
		return m.legacy(root)
	}
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	target, err := openTarget(root, m.Target)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return moveMount(tree, target)
}

func (p performer) open(mounts []Mount) (*os.File, error) {
	if len(mounts) == 0 {
		return nil, &Error{Err: errors.New("no mounts")}
	}
	m := &mounts[0]
	tree, err := p.tree(m)
	if errors.Is(err, errNoAPI) {
		if len(mounts) > 1 {
			return nil, m.wrap("", err)
		}
		f, err := m.legacyOpen()
		return f, m.wrap("", err)
	}
	if err != nil {
		return nil, m.wrap("", err)
	}
	defer unix.Close(tree)
	for i := range mounts[1:] {
		m := &mounts[1+i]
		if err := p.attachBelow(m, tree); err != nil {
			return nil, m.wrap("", err)
		}
	}
	// The tree's own descriptor was opened with O_PATH. A descriptor that is opened through it can
	// be read as a directory, and keeps the mount after the tree's descriptor is closed.
	f, err := openDir(tree, m.Type)
	return f, m.wrap("", err)
}

func (p performer) attachBelow(m *Mount, root int) error {
	tree, err := p.tree(m)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	target, err := safepath.InRoot(root, m.Target, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return moveMount(tree, target)
}

func moveMount(tree, target int) error {
	err := unix.MoveMount(tree, "", target, "",
		unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openTarget opens a mount point below root. It must be called for each mount, since an earlier
// mount may have covered root itself.
func openTarget(root, target string) (int, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: root, Err: err}
	}
	if target == "" {
		return dir, nil
	}
	defer unix.Close(dir)
	return safepath.InRoot(dir, target, unix.O_PATH, 0)
}

// wrap returns err as an *Error that names m; nil if err is nil.
func (m *Mount) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Mount: *m, Op: op, Err: err}
}
