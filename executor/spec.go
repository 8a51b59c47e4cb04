package executor

import (
	"os"
	"syscall"

	"github.com/layerbuild/layerbuild/internal/mount"
)

// Spec describes one step.
type Spec struct {
	// Root is the root file system. Run mounts it in the step's own mount namespace.
	Root []mount.Mount
	// MountPoints is a directory made by MakeMountPoints, on the file system of Root's directories,
	// or "". If Root is an overlay, it becomes the lowest directory of the overlay for a Process.
	// Mount points that the image does not have then need not be made in the upper directory and
	// removed again.
	MountPoints string
	// Action is the action performed in Root: *Process, *copyfs.Copy or *Mkdir.
	Action Action
	// UserNS is set if this process runs in a user namespace. Device nodes are then bind mounts of
	// the host's.
	UserNS bool
	// SingleID is set if this user namespace has a single id. Files that should have other owners
	// than 0:0 then stay 0:0 (see OwnersLost in copyfs.Result).
	SingleID bool
	// Epoch, if not nil, is the time in seconds that directories made by a Copy or Mkdir get.
	Epoch *int64

	child bool // for tests: run in a child even if a thread is enough
	// trees are the mounts that programs serve, in the order of eachProgram.
	trees []*os.File
}

// Action is the work of a step: *Process, *copyfs.Copy or *Mkdir.
type Action interface {
	// OpenDirs returns the open directories that the action uses. A step's child inherits them.
	OpenDirs() []*os.File
}

// Process runs a command.
type Process struct {
	// Args is the command with its arguments. A name without a slash is looked up in Env's PATH, in
	// the root.
	Args []string
	// Env is the whole environment, as NAME=value. If HOME is missing, it is added from the image's
	// passwd.
	Env []string
	// Dir is the working directory; it is made if it is missing. "" is "/".
	Dir string
	// User is name|uid[:group|gid], looked up in the image; "" is 0:0.
	User string
	// Network is "host" (or "") for the network of this process, or "none" for a loopback device
	// only.
	Network string
	// Insecure runs the command with all capabilities, without masked paths, with a writable /sys
	// and without a system call filter.
	Insecure bool
	// Caps are the capabilities of the command; nil are Docker's default ones. System calls that
	// Docker allows with further capabilities are allowed. Insecure takes precedence.
	Caps *CapabilitySet
	// Hostname is the step's host name; "" is "buildkitsandbox", as in BuildKit.
	Hostname string
	// ExtraHosts are further lines for /etc/hosts.
	ExtraHosts []Host
	// ShmSize is the size of /dev/shm in bytes; 0 is 64 MiB.
	ShmSize int64
	// Ulimits are resource limits. Other limits are inherited.
	Ulimits []Ulimit
	// Groups are further groups of the command, besides those of the image's group file.
	// GroupNames are names of such groups, looked up in the image.
	Groups     []uint32
	GroupNames []string
	// Mounts are mounted for this step only, in the order of their targets, after /proc, /sys, /dev
	// and the files of /etc.
	Mounts []Mount
	// Hooks are executed in their order after the mounts have been made. If one fails, the command
	// does not run.
	Hooks []Hook
	// ReadOnlyRoot makes the root file system itself read-only.
	ReadOnlyRoot bool
	// Stdin is the command's standard input; nil is an empty one.
	Stdin *os.File
	// TTY runs the command on a new terminal. Its output goes to Run's stdout. If Stdin is a
	// terminal, it is in raw mode while the command runs, and its window size is passed on.
	TTY bool
	// Signals are sent to the command while it runs. Signals that arrive earlier are sent when it
	// has started. nil means none. Other processes of the step do not get them. The command is not
	// process 1, so a signal has its default effect if the command has no handler for it.
	Signals <-chan syscall.Signal

	forwarded bool // in the step's child: signals arrive on the socket
}

// Host is one line of /etc/hosts.
type Host struct {
	Name string
	IP   string
}

// Ulimit is one resource limit. -1 is unlimited.
type Ulimit struct {
	Name string // as in `docker build --ulimit`: "nofile", "core", "memlock", …
	Soft int64
	Hard int64
}

// Mount is a file or file system that is mounted at Target while a Process runs. If the mount point
// is missing, it is made for the step and removed afterwards, so it is in no layer.
type Mount struct {
	// Target is a path in the root. A relative one is below Process.Dir. Links are resolved in the
	// root.
	Target string
	// Source is the mounted file or file system: Tree, Bind, Tmpfs, Data or Device.
	Source MountSource
	// ReadOnly makes the mount read-only. With NoSuid, setuid bits have no effect, and with NoExec
	// no program in it can be executed.
	ReadOnly, NoSuid, NoExec bool
}

// MountSource is the source of a Mount: Tree, Bind, Tmpfs, Data or Device.
type MountSource interface{ mountSource() }

// Tree is a file system made of mounts: a snapshot, or an overlay over a build context, so that
// writes are discarded.
type Tree struct {
	Mounts []mount.Mount
	// Path is the mounted file or directory of the tree, resolved in the tree; "" is the whole
	// tree. A Path that does not exist is an error, unless Make is set: then it is made as a
	// directory.
	Path string
	Make bool
}

// Bind is a file, directory or socket of the host.
type Bind struct {
	Source string
	// Path is the mounted file or directory in Source, resolved in Source; "" is Source itself. See
	// Tree.
	Path string
	Make bool
	// Single leaves out the file systems that are mounted below the directory.
	Single bool
}

// Tmpfs is an empty file system in memory.
type Tmpfs struct {
	Size int64  // in bytes; 0: the kernel's default, half of the memory
	Mode uint32 // of its top directory; 0 is 01777
}

// Data is a regular file in memory, never on a disk. Secrets and heredoc scripts are mounted in
// this way.
type Data struct {
	Data     []byte
	Mode     uint32 // 0 is 0400
	UID, GID uint32
}

// Device is a device node or a fifo. Run makes a new node, so that the command cannot change the
// owner and mode of the host's node. In a user namespace a device node cannot be made: Run mounts
// the node of the host, with its owner and mode, and the kernel decides whether the command may
// open it.
type Device struct {
	// Host is the path of the host's node. It must exist in a user namespace, and if Type is "" or
	// Major is 0.
	Host string
	// Type is "b", "c", or "p" for a fifo; "" is that of the host's node.
	Type string
	// Major and Minor are the number. If Major is 0, they are those of the host's node.
	Major, Minor uint32
	// Mode has the permission bits; nil: those of the host's node, or 0666 if there is none.
	Mode *uint32
	// UID and GID are the owner; nil: the user of the Process.
	UID, GID *uint32
	// Closed is set if the command cannot open the node.
	Closed bool
}

func (Tree) mountSource()   {}
func (Bind) mountSource()   {}
func (Tmpfs) mountSource()  {}
func (Data) mountSource()   {}
func (Device) mountSource() {}

// Mkdir makes a directory and its missing parents (WORKDIR).
type Mkdir struct {
	Path string
	// User owns each new directory. Existing directories keep their owners. It has the form of
	// copyfs.Copy.Chown.
	User string
}

// OpenDirs returns nil.
func (*Process) OpenDirs() []*os.File { return nil }

// OpenDirs returns nil.
func (*Mkdir) OpenDirs() []*os.File { return nil }
