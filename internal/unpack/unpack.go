// Package unpack turns a tar stream into a directory, whatever the stream holds.
//
// Streams come from images and archives, so they are hostile. Every name is resolved from a descriptor of the root,
// one part at a time and never through a link, or by openat2(2) with RESOLVE_IN_ROOT where a link is to be followed;
// nothing outside the root is ever touched. What an entry says is applied in the order that the kernel needs: owner,
// then mode (chown clears setuid), then extended attributes (chown clears security.capability), then time;
// directories get all of it at the end, so that a directory that its owner may not write can still be filled.
package unpack

import "errors"

// Whiteouts is what the names `.wh.NAME` and `.wh..wh..opq` mean
// (https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#whiteouts).
type Whiteouts int

const (
	// Literal: nothing; they are names like others. For archives that are no layers.
	Literal Whiteouts = iota
	// Overlay: the directory becomes an overlay's upper or lower directory: a 0:0 character device, and
	// trusted.overlay.opaque. The directory is expected to be empty at first.
	Overlay
	// OverlayUser is Overlay for file systems mounted with userxattr: user.overlay.opaque.
	OverlayUser
	// Delete: what they name is removed from the directory, which holds the layers below; what the same stream made
	// is left alone.
	Delete
)

// Owner is a user and a group by number.
type Owner struct{ UID, GID int }

// LinkRoot is an open directory that contains the one that a stream is unpacked into, at Path.
type LinkRoot struct {
	Dir  int
	Path string
}

// Options say how a stream is applied. The zero value unpacks an archive as tar(1) would as root, but contained.
type Options struct {
	Whiteouts Whiteouts
	// Owner, if not nil, owns everything, whatever the stream says.
	Owner *Owner
	// Chmod, if not nil, is given each entry's mode (12 bits) and returns the one to set. Links are not asked about.
	Chmod func(mode uint32, dir bool) uint32
	// FollowDirLinks keeps a link to a directory, where the stream has a directory of that name, and fills the
	// directory that it leads to inside the root. Otherwise the directory replaces the link.
	FollowDirLinks bool
	// Links, if not nil, is the root in which links are resolved, instead of the directory that is unpacked into.
	Links *LinkRoot
	// SkipRoot leaves the root's own owner, mode, attributes and time as they are.
	SkipRoot bool
	// OnOwnerError is told of an owner that cannot be had (in a user namespace with too few ids); the entry stays
	// as it was made. nil: it is an error.
	OnOwnerError func(path string, uid, gid int, err error)
	// OnSkip is told of a device that may not be made or an extended attribute that the file system does not
	// take; it is left out. nil: it is an error.
	OnSkip func(path, what string, err error)
	// OnWhiteoutDevice is called for a character device 0:0, which is left out: on an overlay it would hide a name below.
	// nil: it is passed to OnSkip.
	OnWhiteoutDevice func(path string)
	// OnStandIn, if not nil, is called for a device that may not be made and for which a file stands (rawfs.Device).
	// nil: such devices are skipped.
	OnStandIn func(path string)

	maxPending int // for tests; 0: the constant
}

// Stats is what a stream held.
type Stats struct {
	Entries int
	Bytes   int64 // contents of files
	// Implied are directories that entries needed and that the stream did not list, "." among them if it had no
	// entry for the root; sorted. With Overlay they hide the owner, mode and attributes of the same directories in
	// the layers below until Inherit gives them those.
	Implied []string
	// Whiteouts are the whiteouts that were made, with Overlay. Those that hide nothing must be removed once the layers
	// below are known: the kernel lists them as names that cannot be opened.
	Whiteouts []string
}

// ErrNeedsParent is wrapped by errors about streams that only make sense on top of the layers below them: a hard
// link to a file there, or a name that leads through a link there. Unpack such a layer with Delete into a directory
// where the layers below are seen.
var ErrNeedsParent = errors.New("the layer refers to the layers below it")
