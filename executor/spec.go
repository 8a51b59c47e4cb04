package executor

import (
	"fmt"
	"os"
	"syscall"

	"github.com/layerbuild/layerbuild/internal/mount"
)

// Spec is one step, as data.
type Spec struct {
	// Root is the root file system. The child performs it where nobody else can see it.
	Root []mount.Mount
	// MountPoints is a directory that MakeMountPoints has made, on the file system that Root's directories are on, or "".
	// Where Root is an overlay it goes below everything else for a Process, so that mount points which the image does
	// not have need not be made in the upper directory and taken away again.
	MountPoints string
	// Action is what is done in it: *Process, *Copy or *Mkdir.
	Action Action
	// UserNS says that this process runs in a user namespace: device nodes are then bind mounts of the host's.
	UserNS bool
	// SingleID says that this user namespace has one id only: there are no other owners than 0:0, and files that
	// should have others stay 0:0 (see OwnersLost in Result).
	SingleID bool
	// Epoch, if not nil, is the time in seconds that directories made by Copy and Mkdir get.
	Epoch *int64

	child bool // in a child, even if a thread would do: for tests
	// trees are the mounts that programs serve, in the order of eachProgram.
	trees []*os.File
}

// Action is what a step does: *Process, *Copy or *Mkdir.
type Action interface{ action() }

// Process runs a command.
type Process struct {
	// Args is the command with its arguments. A name without a slash is looked up in Env's PATH, in the root.
	Args []string
	// Env is the whole environment, as NAME=value. HOME is added from the image's passwd where it is missing.
	Env []string
	// Dir is the working directory; it is made if it is missing. "" is "/".
	Dir string
	// User is name|uid[:group|gid], looked up in the image. "" is 0:0.
	User string
	// Network is "host" (or "") for the network of this process, or "none" for a loopback device only.
	Network string
	// Insecure gives all capabilities, no masked paths, a writable /sys and no system call filter.
	Insecure bool
	// Hostname is the step's host name; "" is "buildkitsandbox", which is what BuildKit shows.
	Hostname string
	// ExtraHosts are further lines for /etc/hosts.
	ExtraHosts []Host
	// ShmSize is the size of /dev/shm in bytes; 0 is 64 MiB.
	ShmSize int64
	// Ulimits are resource limits; what is not named is inherited.
	Ulimits []Ulimit
	// Mounts are there for this step only. They are made in order, after /proc, /sys, /dev and the files of /etc.
	Mounts []Mount
	// ReadOnlyRoot makes the root file system itself read-only.
	ReadOnlyRoot bool
	// Stdin is what the command reads; nil: it is at its end at once.
	Stdin *os.File
	// TTY gives the command a new terminal. Its output goes to Run's stdout; Stdin, where it is a terminal, is put
	// into raw mode meanwhile, and window sizes are passed on.
	TTY bool
	// Signals are sent to the command while it runs; signals that arrive earlier wait. nil: there are none. Other
	// processes of the step do not get them. The command is not process 1, so that a signal has its default effect if
	// the command has no handler for it.
	Signals <-chan syscall.Signal

	forwarded bool // in the step's child: Signals come by the socket
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

// Mount is something that a Process sees at Target and that the image does not have. The mount point is made if it
// is missing, and goes away again with the step: no layer ever has it.
type Mount struct {
	// Target is a path inside the root; a relative one is below Process.Dir. Links resolve inside the root.
	Target string
	// Source is what is mounted: Tree, Bind, Tmpfs or Data.
	Source MountSource
	// ReadOnly makes it read-only.
	ReadOnly bool
}

// MountSource is what a Mount shows: Tree, Bind, Tmpfs or Data.
type MountSource interface{ mountSource() }

// Tree is a file system made of mounts (a snapshot, or an overlay over a context so that writes are thrown away).
type Tree struct {
	Mounts []mount.Mount
	// Path is the file or directory of it that is shown, resolved inside it; "" is all of it. A Path that does not
	// exist is an error, unless Make is set: then it is made as a directory.
	Path string
	Make bool
}

// Bind is a file, directory or socket of the host.
type Bind struct {
	Source string
	// Path is the part of Source that is shown, resolved inside it; "" is Source itself. See Tree.
	Path string
	Make bool
}

// Tmpfs is an empty file system in memory.
type Tmpfs struct {
	Size int64  // in bytes; 0: the kernel's default, half of the memory
	Mode uint32 // of its top directory; 0 is 01777
}

// Data is a regular file in memory; it never touches a disk. Secrets and heredoc scripts are this.
type Data struct {
	Data     []byte
	Mode     uint32 // 0 is 0400
	UID, GID uint32
}

func (Tree) mountSource()  {}
func (Bind) mountSource()  {}
func (Tmpfs) mountSource() {}
func (Data) mountSource()  {}

// Copy copies files from directories of the host into the root: COPY and ADD.
type Copy struct {
	// Dest is where to: absolute, with the slash at its end kept, since that says that it is a directory.
	Dest    string
	Sources []Source
	// Frozen is the open directory that Entry.Frozen is in; nil if there are none.
	Frozen *os.File
	// Inline are heredoc files: they come after Sources.
	Inline []File
	// Chown is user[:group], looked up in the image; "" see KeepOwner. As in BuildKit a name that is not found is 0,
	// and a uid without a group is also the gid.
	Chown string
	// Chmod is an octal or symbolic mode (chmod(1)); "" keeps the source's.
	Chmod string
	// KeepOwner keeps the source's owners (--from a stage or image) where Chown is empty; otherwise they are 0:0.
	KeepOwner bool
	// StandIns is set if files of the sources may stand for device nodes (rawfs.Device), as in snapshots.
	StandIns bool
	// Unpack unpacks a source file that is an archive (ADD).
	Unpack bool
	// DestOnly makes the destination of a Copy that CopiesDirectory, and copies no files into it: Result.Dest describes it.
	DestOnly bool
}

// Source is an open directory and what is copied from it.
type Source struct {
	// Dir is handed to the child as an open descriptor. The caller closes it after Run.
	Dir   *os.File
	Items []Item
}

// Item is one thing named in a COPY or ADD, or matched by a wildcard.
type Item struct {
	// Path is the thing below Dir; "." is Dir itself. Its last part is not followed if it is a link: whoever made
	// the Item has done that.
	Path string
	// Target is its name below Dest; it may have several parts (--parents), whose directories are made with the
	// attributes of the source's where these exist. "" is Dest itself, or the base name of Path where Dest turns
	// out to be a directory and Path is not.
	Target string
	// Name is the name that it gets where Target is "" and Dest turns out to be a directory; "" is the base name of
	// Path. The two differ for a link that was followed: it is copied under the link's own name.
	Name string
	// Contents says that Path is a directory whose contents are copied, not the directory itself.
	Contents bool
	// MtimeNs, if not 0, is the time that Dest gets where Contents is set; else it is Path's.
	MtimeNs int64
	// Entries is everything that is copied, sorted bytewise by path with directories before what is in them, and
	// already filtered. nil: everything below Path.
	Entries []Entry
}

// Entry is one file, directory, link or device that an Item copies.
type Entry struct {
	// Path is relative to Item.Path; "." is that itself.
	Path string
	// Size, MtimeNs, CtimeNs, Ino, Mode (with the type) and Attrs (it has extended attributes) are those of the file
	// that was digested for the key. If they differ when the file is copied, a *ChangedError is returned. Values of 0
	// are not checked. A directory with another ctime counts as the same if it has the same mode and neither had nor
	// has attributes. Copies get the time MtimeNs, which was digested.
	Size    int64
	MtimeNs int64
	CtimeNs int64
	Ino     uint64
	Mode    uint32
	Attrs   bool
	// Frozen, if not 0, is the name in Copy.Frozen of the private copy that is copied instead of the file.
	Frozen uint32
}

// ChangedError is returned for a file that differs from what was digested, or is missing.
type ChangedError struct {
	// Path is the file below its source's directory.
	Path string
	// Below is set if Path is a directory that was removed, which has a private copy but contains files without one.
	Below bool
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%q changed while it was being copied", e.Path)
}

// File is a file given as data.
type File struct {
	Name string // its base name
	Data []byte
	Mode uint32 // 0 is 0644
}

// Mkdir makes a directory and its missing parents: WORKDIR.
type Mkdir struct {
	Path string
	// User owns what is made; one that exists already keeps its owner. It is read as Copy.Chown is.
	User string
}

func (*Process) action() {}
func (*Copy) action()    {}
func (*Mkdir) action()   {}
