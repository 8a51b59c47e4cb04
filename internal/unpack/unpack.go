package unpack

import "errors"

// Whiteouts selects the meaning of the names `.wh.NAME` and `.wh..wh..opq`
// (https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#whiteouts).
type Whiteouts int

const (
	// Literal gives them no meaning, for archives that are not layers.
	Literal Whiteouts = iota
	// Overlay makes the directory an upper or lower directory of overlayfs: whiteouts become
	// character devices 0:0, and opaque marks the attribute trusted.overlay.opaque. The directory
	// must be empty.
	Overlay
	// OverlayUser is like Overlay, for file systems mounted with userxattr, which use
	// user.overlay.opaque.
	OverlayUser
	// Delete removes the files that they name from the directory, which contains the layers below.
	// Files that were made from the same stream are kept.
	Delete
)

// Owner is a user and a group by number.
type Owner struct{ UID, GID int }

// LinkRoot is an open directory that contains, at Path, the directory into which a stream is
// unpacked.
type LinkRoot struct {
	Dir  int
	Path string
}

// Options determine how a stream is applied. The zero value unpacks an archive like tar(1) as root,
// but only inside the root.
type Options struct {
	Whiteouts Whiteouts
	// Owner, if not nil, becomes the owner of all files.
	Owner *Owner
	// Chmod, if not nil, is called with the mode of each entry (12 bits) and returns the one to
	// set. It is not called for links.
	Chmod func(mode uint32, dir bool) uint32
	// FollowDirLinks keeps a link to a directory if the stream has a directory of that name, and
	// unpacks into the link's target inside the root. Without it the directory replaces the link.
	FollowDirLinks bool
	// Links, if not nil, is the root in which links are resolved. Otherwise links are resolved in
	// the destination.
	Links *LinkRoot
	// SkipRoot leaves the root's own owner, mode, attributes and time as they are.
	SkipRoot bool
	// OnOwnerError is called if an owner cannot be set (in a user namespace with too few ids). The
	// file keeps its owner. nil: it is an error.
	OnOwnerError func(path string, uid, gid int, err error)
	// OnSkip is called for a device that may not be made or an extended attribute that the file
	// system refuses, which are left out. nil: it is an error.
	OnSkip func(path, what string, err error)
	// OnWhiteoutDevice is called for a character device 0:0, which is left out: on an overlay it
	// would hide a name of a lower layer. nil: it is passed to OnSkip.
	OnWhiteoutDevice func(path string)
	// OnStandIn, if not nil, is called for a device that may not be made and for which a file
	// stands (dirfd.Device). nil: such devices are skipped.
	OnStandIn func(path string)
	// NoDevices makes a device an error.
	NoDevices bool

	maxPending int // for tests; 0: the constant
	maxNames   int // likewise
}

// Stats describes the content of a stream.
type Stats struct {
	Entries int
	Bytes   int64 // contents of files
	// Implied lists the directories that entries needed and the stream did not list, sorted by
	// path, with "." if it had no entry for the root. With Overlay they hide the owner, mode and
	// attributes of the same directories in the layers below until Inherit copies those.
	Implied []Implied
	// Replaced lists, sorted, with Overlay, directories that entries needed before the stream
	// listed or replaced them. If the layers below have a link at such a path, the entries were
	// meant for its target.
	Replaced []string
	// Whiteouts lists, sorted, the whiteouts that were made with Overlay. Those that hide nothing
	// must be removed when the layers below are known, because the kernel lists them as names that
	// cannot be opened.
	Whiteouts []string
}

// Implied is a directory that the stream has not listed. New and Bare are set only with Overlay.
type Implied struct {
	Path string
	// New is set if an earlier entry removed the directory that the layers below may have.
	New bool
	// Bare is set if only whiteouts and opaque marks needed the directory. Without the layers below
	// it would not have been made.
	Bare bool
}

// ErrNeedsParent is wrapped by errors about streams that can only be unpacked on the layers below
// them: a hard link to a file of a lower layer, or a path through a link of a lower layer. Unpack
// such a layer with Delete into a directory that shows the layers below.
var ErrNeedsParent = errors.New("the layer refers to the layers below it")
