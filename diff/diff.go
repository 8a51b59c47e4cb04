package diff

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Tree is a file system state and the one it began from, as a snapshot lays them on disk.
type Tree struct {
	// Dir is an overlay's upper directory or, with Full, the whole tree.
	Dir string
	// Lower are the directories below, top first. With Full at most one: the whole tree before.
	Lower []string
	Full  bool
	// UserXattr says that the overlay keeps its marks in user.overlay.* (mounted in a user namespace).
	UserXattr bool
	// StandIns is set if files may stand for device nodes (rawfs.Device): the tree was made in a user namespace.
	StandIns bool
	// External is a part of the new state that is somewhere else; nil: all of it is in Dir.
	External *External
}

// External holds the files of one directory of the new state, which is empty in both states, as files of another directory.
// The layer is the same as if they had been copied.
type External struct {
	// Path is the directory, without leading slash; "" is the root.
	Path string
	// Dir is the open directory that Len entries are below. Entry returns each, parents first and the names in a directory
	// in bytewise order.
	Dir   *os.File
	Len   int
	Entry func(i int) ExternalEntry
	// Begin is called when the walk comes to Path, which has been written with all that is above it, and before anything of Dir
	// is written; nil: nothing is called. From then on the directory of the new state may change.
	Begin func() error
	// Owner and Mode give the owner and the mode (12 bits) that something has in the new state.
	Owner func(uid, gid uint32) (uint32, uint32)
	Mode  func(mode uint32, dir bool) uint32
}

// ExternalEntry is one file or directory of an External, with the values that it must have when it is read. Values of 0 are
// not checked. A directory gets the time MtimeNs.
type ExternalEntry struct {
	Path    string
	Size    int64
	MtimeNs int64
	CtimeNs int64
	Ino     uint64
	Mode    uint32 // with the type
}

// ErrExternal is returned when a layer cannot be written with an External: a file has changed, or only a copy shows what
// becomes of it.
var ErrExternal = errors.New("it cannot be written from where it is")

// Options say how a layer is written. The zero value writes gzip.
type Options struct {
	// Epoch, if not nil, is the latest time an entry has (SOURCE_DATE_EPOCH).
	Epoch *time.Time
	// Compression is "gzip" (also ""), "zstd" or "none".
	Compression string
	// Level is the compressor's own level; 0: the one that layers of this program have.
	Level int
	// SkipPaths are names, without a leading slash, that count as unchanged with all that is below them.
	SkipPaths []string
	// Warn is told of what a layer cannot hold and was left out; may be nil.
	Warn func(path, problem string)
	// Table is given each entry as it is written; may be nil.
	Table func(Entry)
	// Tee, if not nil, is given the uncompressed tar by Seal, in a goroutine of its own.
	Tee io.Writer
}

// Stats is what was written.
type Stats struct {
	Entries int
	Size    int64 // bytes of tar
}

// Layer is a sealed layer.
type Layer struct {
	Descriptor ocispec.Descriptor
	DiffID     digest.Digest
	Size       int64 // uncompressed bytes
	Entries    int
}

// Ingester stores a blob while it is written. internal/store has one.
type Ingester interface {
	Ingest(ctx context.Context, mediaType string, write func(io.Writer) error) (ocispec.Descriptor, error)
}

// ApplyOptions say how a layer becomes a directory. The zero value makes an overlay directory as root.
type ApplyOptions struct {
	// Full: the directory holds the whole tree below, and whiteouts remove from it. Otherwise the directory is
	// empty and becomes an overlay's, with overlay's own whiteouts.
	Full bool
	// UserXattr: the overlay will be mounted with userxattr.
	UserXattr bool
	// OnOwnerError and OnSkip are told of what could not be had and was left out; nil: that is an error.
	OnOwnerError func(path string, uid, gid int, err error)
	OnSkip       func(path, what string, err error)
	// OnWhiteoutDevice is called for a character device 0:0, which is left out; nil: it is passed to OnSkip.
	OnWhiteoutDevice func(path string)
	// OnStandIn is called for a device node that could not be made and for which a file stands; nil: such a device is
	// left out.
	OnStandIn func(path string)
}

// Applied is what a layer turned out to be.
type Applied struct {
	DiffID  digest.Digest
	Size    int64 // uncompressed bytes
	Entries int
	// Implied are directories that the layer's entries needed and that it did not list, "." for the root. In an
	// overlay directory they hide what the layers below say about them.
	Implied []string
	// Whiteouts are the whiteouts in an overlay directory. Inherit deals with both once the layers below are known.
	Whiteouts []string
}

// Entry is one entry of a layer.
type Entry struct {
	Path     string // without leading and trailing slash; "." for the root
	Type     byte   // archive/tar's type flag: TypeReg, TypeDir, …
	Mode     uint32 // 12 bits
	UID, GID int
	Size     int64
	ModTime  time.Time
	Link     string // target of a symbolic link; path of the file that a hard link names
	Major    uint32
	Minor    uint32
	Xattrs   map[string]string
	// Content is the file's content as it streams by, valid until the next entry; nil from Options.Table.
	Content io.Reader
}
