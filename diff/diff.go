package diff

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/layerbuild/layerbuild/internal/blocks"
	"github.com/layerbuild/layerbuild/internal/unpack"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerbuild/layerbuild/internal/fileentry"
)

// Tree is the state of a file system and the previous state, as a snapshot stores them.
type Tree struct {
	// Dir is an overlay's upper directory or, with Full, the whole tree.
	Dir string
	// Lower are the directories below, top first. With Full there is at most one, which is the
	// whole previous tree.
	Lower []string
	Full  bool
	// UserXattr is set if the overlay keeps its marks in user.overlay.* (mounted in a user
	// namespace).
	UserXattr bool
	// StandIns is set if regular files may stand for device nodes (dirfd.Device), because the tree
	// was made in a user namespace.
	StandIns bool
	// External is a part of the new state that is outside of Dir; nil: there is none.
	External *External
}

// External holds the files of one directory of the new state, which is empty in both states, as
// files of another directory. The layer is the same as if they had been copied.
type External struct {
	// Path is the directory, without a leading slash; "" is the root.
	Path string
	// Dir is the open directory that contains the Entries: parents first, and the names in a
	// directory in bytewise order. The files must have the digested values when they are read
	// (Entry.Same), and no private copies. A directory gets the digested time.
	Dir     *os.File
	Entries []fileentry.Entry
	// Begin is called when the walk reaches Path, after Path and the directories above it have been
	// written, and before anything of Dir is written; it may be nil. From then on the directory of
	// the new state may change.
	Begin func() error
	// Owner and Mode return the owner and the mode (12 bits) of a file in the new state.
	Owner func(uid, gid uint32) (uint32, uint32)
	Mode  func(mode uint32, dir bool) uint32
}

// ErrExternal is returned when a layer cannot be written with an External: a file has changed or
// cannot be read, or its state after a copy is not known without copying it.
var ErrExternal = errors.New("the layer cannot be written from the source's files")

// Options are the options for writing a layer. The zero value writes gzip.
type Options struct {
	// Epoch, if not nil, is the latest time of an entry (SOURCE_DATE_EPOCH), in seconds since 1970.
	Epoch *int64
	// Compression is "gzip" (also ""), "zstd" or Uncompressed.
	Compression string
	// Level is the compressor's level; 0 is the default level of this program.
	Level int
	// SkipPaths are names, without a leading slash, that are treated as unchanged together with
	// everything below them.
	SkipPaths []string
	// Warn is called for each file or attribute that is left out because a layer cannot hold it;
	// may be nil.
	Warn func(path, problem string)
	// Table is called for each entry when it is written; may be nil.
	Table func(Entry)
	// Blocks finds compressed blocks of earlier layers, which are not compressed again, and keeps
	// the table of this layer's blocks; nil: all blocks are compressed. The layer has the same
	// bytes with and without it.
	Blocks Blocks
	// Tee, if not nil, gets the uncompressed tar stream from Seal, in a separate goroutine.
	Tee io.Writer
}

// Blocks has compressed blocks of earlier layers.
type Blocks interface {
	blocks.Earlier
	// Keep keeps the table of a layer's blocks, so that Find finds them in the layer's blob.
	Keep(d ocispec.Descriptor, t blocks.Table)
}

// Stats describes a written layer.
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

// Ingester stores a blob while it is written. internal/store implements it.
type Ingester interface {
	Ingest(ctx context.Context, mediaType string,
		write func(io.Writer) error) (ocispec.Descriptor, error)
}

// ApplyOptions are the options of Apply. The zero value makes an overlay directory as root.
type ApplyOptions struct {
	// Full: the directory contains the whole tree of the layers below, and whiteouts remove from
	// it. Otherwise the directory is empty and becomes an overlay's, with overlay's own whiteouts.
	Full bool
	// UserXattr: the overlay will be mounted with userxattr.
	UserXattr bool
	// OnOwnerError and OnSkip are called for owners and attributes that cannot be set and are left
	// out. If they are nil, that is an error.
	OnOwnerError func(path string, uid, gid int, err error)
	OnSkip       func(path, what string, err error)
	// OnWhiteoutDevice is called for a character device 0:0, which is left out. If it is nil,
	// OnSkip is called.
	OnWhiteoutDevice func(path string)
	// OnStandIn is called for a device node that cannot be made and that a regular file stands for.
	// If it is nil, such a device is left out.
	OnStandIn func(path string)
}

// Applied describes a layer that Apply has unpacked.
type Applied struct {
	DiffID  digest.Digest
	Size    int64 // uncompressed bytes
	Entries int
	// Implied are directories that the layer's entries needed and that it did not list, "." for the
	// root. In an overlay directory they hide the attributes that the layers below have for them.
	Implied []unpack.Implied
	// Replaced are directories that entries needed before the layer listed or replaced them.
	Replaced []string
	// Whiteouts are the whiteouts in an overlay directory. Inherit adjusts both once the layers
	// below are known.
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
	// Content reads the file's content from the stream and is valid until the next entry; nil from
	// Options.Table.
	Content io.Reader
}
