// Package mount performs mounts that are described as data.
//
// A Mount is made by whoever knows what a file system is put together from (a snapshotter), travels as JSON to the
// process that needs it, and is performed there, in that process's own mount namespace.
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
	// Type is the file system type ("overlay", "tmpfs", "proc"), or "bind", or "fuse-overlayfs": an overlay that the
	// program of that name serves (see FuseOverlay).
	Type string `json:"type"`
	// Source is the directory or file that a bind mount shows; for other types what /proc/mounts shows.
	Source string `json:"source,omitempty"`
	// Target is where it is mounted, below the root that All is given; "" is that root itself.
	Target string `json:"target,omitempty"`
	// Lower are an overlay's lower directories, top first, absolute. They have a field of their own because hundreds of
	// them do not fit the 4096-byte option page; the new mount API takes them one by one (lowerdir+, Linux 6.5).
	Lower []string `json:"lower,omitempty"`
	// Upper and Work are an overlay's writable parts; both empty: a read-only view, which needs two lower directories.
	Upper string `json:"upper,omitempty"`
	Work  string `json:"work,omitempty"`
	// Options are further options as mount(8) has them: "ro", "nosuid", "mode=755", "volatile", "userxattr", "rbind".
	// With "rbind" the flags ("ro") hold for the mounts below too. A bind mount is private unless they say otherwise.
	Options []string `json:"options,omitempty"`
}

// Types that are not simply a file system of that name.
const (
	Bind    = "bind"
	Overlay = "overlay"
	// FuseOverlay is fuse-overlayfs(1). All and Open run the program, which serves the mount from a mount namespace of
	// its own in which the mount does not exist, and ends by itself when the mount is gone everywhere: unmounted, its
	// namespace ended, or the descriptor closed. It needs no explicit stop. A Server reports when it ends too early.
	FuseOverlay = "fuse-overlayfs"
	// Detached is a mount that was made but not attached (see Server.Tree): Source is the number of its descriptor in the
	// process that attaches it. It can be attached once.
	Detached = "detached"
)

// MaxLower is how many lower directories one overlay takes (the kernel's OVL_MAX_STACK). A Mount may have more where the
// kernel can put overlays of its lowest directories below it (Linux 6.15).
const MaxLower = 500

// Error says which mount did not work, and in Log what the kernel or fuse-overlayfs said about it.
type Error struct {
	Mount Mount
	// Op is the part that was refused: `lowerdir "/a"`, "fsmount"; "" if there is nothing more to say than the mount.
	Op  string
	Log string
	Err error
}

// Error names the mount, the part of it and the reason.
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

// Unwrap gives the system call's error.
func (e *Error) Unwrap() error { return e.Err }

// errNoAPI says that the kernel, or a filter before it, lacks a call or an option of the new mount API: use mount(2).
var errNoAPI = errors.New("the kernel lacks the new mount API")

// performer performs mounts. The zero value is the one to use; tests set legacy to see the way of older kernels.
type performer struct {
	legacy bool
}

// All performs mounts in their order in the current mount namespace. Targets resolve inside root, links and ".."
// included; a mount whose Target is "" becomes the root for those that come after it. Nothing is created: a target that
// does not exist is an error. On an error the mounts before it stay. The error is an *Error.
func All(mounts []Mount, root string) error {
	return performer{}.all(mounts, root)
}

// Open performs mounts without attaching them anywhere and opens the result's root directory: nobody else sees them,
// and they are gone when the file and everything opened through it is closed. The first mount's Target is ignored; those
// of more mounts resolve inside the first (Linux 6.15). The caller closes the file. The error is an *Error.
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
	// The tree's own descriptor is an O_PATH one. One opened through it can be read as a directory, and keeps the mount
	// alive after the tree is let go.
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
	err := unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openTarget opens the place below root where something is to be mounted. It is opened anew for each mount because the
// one before may have covered root itself.
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

// wrap makes err an *Error that names m; nil stays nil.
func (m *Mount) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Mount: *m, Op: op, Err: err}
}
