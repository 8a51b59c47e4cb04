package copyfs

import (
	"fmt"
	"io"
	"os"

	"github.com/layerbuild/layerbuild/internal/fileentry"
)

// Copy copies files from directories of the host into the root: COPY and ADD.
type Copy struct {
	// Dest is the absolute destination. A slash at its end is kept, since it marks a directory.
	Dest    string
	Sources []Source
	// Frozen is the open directory with the private copies that the entries name (see
	// fileentry.Entry); nil if there are none.
	Frozen *os.File
	// Inline are heredoc files. They are copied after Sources.
	Inline []File
	// Chown is user[:group], looked up in the image. If it is "", KeepOwner decides. As in
	// BuildKit, a name that is not found is 0, and a uid without a group is also the gid.
	Chown string
	// Chmod is an octal or symbolic mode (chmod(1)); "" keeps the source's.
	Chmod string
	// KeepOwner keeps the source's owners if Chown is empty (--from a stage or image). If it is not
	// set, files get the owner 0:0.
	KeepOwner bool
	// StandIns is set if files of the sources may stand for device nodes (dirfd.Device), as in
	// snapshots.
	StandIns bool
	// Unpack unpacks a source file that is an archive (ADD).
	Unpack bool
	// DestOnly makes the destination of a Copy for which CopiesDirectory returns true, and copies
	// no files. Result.Dest describes the destination.
	DestOnly bool
}

// OpenDirs returns the directories of the sources, followed by Frozen if it is set.
func (a *Copy) OpenDirs() []*os.File {
	dirs := make([]*os.File, len(a.Sources), len(a.Sources)+1)
	for i := range a.Sources {
		dirs[i] = a.Sources[i].Dir
	}
	if a.Frozen != nil {
		dirs = append(dirs, a.Frozen)
	}
	return dirs
}

// Source is an open directory and the items that are copied from it.
type Source struct {
	// Dir is the open directory. A step's child inherits it. The caller closes it after Run.
	Dir   *os.File
	Items []Item
}

// Item is one source of a COPY or ADD: a file or directory that it names or that a wildcard
// matched.
type Item struct {
	// Path is the path below Dir; "." is Dir itself. If its last part is a link, it is not
	// followed. The caller must resolve the links that are to be followed.
	Path string
	// Target is the name below Dest. It may have several parts (--parents). Directories of these
	// that exist in the source are made with their attributes. If Target is "", the destination is
	// Dest itself, or, if Dest is a directory and Path is not, the name Name in Dest.
	Target string
	// Name is the name in Dest if Target is "" and Dest is a directory; "" is the base name of
	// Path. The two differ for a link that was followed: its target is copied under the link's own
	// name.
	Name string
	// Contents is set if Path is a directory whose contents are copied, not the directory itself.
	Contents bool
	// MtimeNs, if not 0, is the time that Dest gets if Contents is set, and otherwise the time that
	// the copy of Path gets.
	MtimeNs int64
	// Entries are the files to copy, already filtered, sorted bytewise by path with each directory
	// before its contents. nil means everything below Path. If a file has other values when it is
	// copied than when it was digested, Run returns a *ChangedError. Directories get the digested
	// time.
	Entries []fileentry.Entry
}

// ChangedError is returned when a file is missing or has changed since it was digested.
type ChangedError struct {
	// Path is the file below its source's directory.
	Path string
	// Below is set if Path is a directory that was removed, which has a private copy but contains
	// files without one.
	Below bool
}

// Error names the file.
func (e *ChangedError) Error() string {
	return fmt.Sprintf("%q changed while it was being copied", e.Path)
}

// File is a regular file with its contents.
type File struct {
	Name string // base name
	Data []byte
	Mode uint32 // 0 is 0644
}

// Owner is the user and group of a file.
type Owner struct{ UID, GID int }

// Options describe the process and the image for Run and Mkdir.
type Options struct {
	// UserNS is set if this process runs in a user namespace. Regular files then stand for device
	// nodes.
	UserNS bool
	// SingleID is set if this user namespace has a single id. Files that should have other owners
	// than 0:0 then stay 0:0 (see OwnersLost in Result).
	SingleID bool
	// Epoch, if not nil, is the time in seconds that new directories and heredoc files get.
	Epoch *int64
	// MountPoints are the names in the root directory at which commands see mount points. If a Copy
	// makes one of these directories, it gets the mode 0755, also with Chmod.
	MountPoints []string
	// LookupOwner looks up a Copy.Chown or the user of a Mkdir in the image with the open root
	// directory root. unknown is a user or group that the image does not have.
	LookupOwner func(root int, name string) (o Owner, unknown string, err error)
	// Unpack unpacks the archives of a Copy with Unpack.
	Unpack Unpacker
}

// Unpacker unpacks f if it is an archive, and reports whether it is one. If it is not, nothing has
// been written, and any part of f may have been read.
type Unpacker func(f io.Reader, o UnpackOptions) (bool, error)

// UnpackOptions are the destination of an archive and how it is unpacked.
type UnpackOptions struct {
	// Dest makes the destination if it is missing, and opens it.
	Dest func() (ArchiveDest, error)
	// Owner, if not nil, is the owner of all files; the owners in the archive are ignored.
	Owner *Owner
	// OnOwnerError is called for an owner that cannot be set. If it is nil, such an owner is an
	// error.
	OnOwnerError func(path string, uid, gid int, err error)
	// OnStandIn is called for a device that cannot be made and that a regular file stands for, and
	// OnSkip for an attribute that cannot be set. If they are nil, these are errors.
	OnStandIn func(path string)
	OnSkip    func(path, what string, err error)
}

// ArchiveDest is the directory that an archive is unpacked into.
type ArchiveDest struct {
	Dir int
	// Root is the image's root directory, in which links are resolved, and Path is the path of Dir
	// in it.
	Root int
	Path string
}

// Result describes what was copied or made.
type Result struct {
	// OwnersLost is the number of files whose owner could not be set, because the user namespace
	// has a single id.
	OwnersLost int
	// FirstOwner is the first of these files, as "path: uid:gid".
	FirstOwner string
	// StandIns is the number of device nodes that could not be made because the process is in a
	// user namespace. A regular file stands for each of them, and layers contain the nodes.
	// FirstStandIn is the path of the first.
	StandIns     int
	FirstStandIn string
	// AttrsLost is the number of extended attributes of an archive's files that could not be set.
	// FirstAttr is the first, as "path: attribute".
	AttrsLost int
	FirstAttr string
	// Warnings are other messages for the user, one sentence each.
	Warnings []string
	// Dest is the destination of a Copy with DestOnly; otherwise nil.
	Dest *Dest
}
