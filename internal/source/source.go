package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"

	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// Query describes the sources of a COPY or ADD.
type Query struct {
	// Patterns are the sources as written in the Dockerfile, expanded. They are cleaned as if the
	// tree were the root directory. A part with *, ? or [ is matched by the rules of
	// path/filepath.Match; with Parents, ** too.
	Patterns []string
	// Exclude are the patterns of --exclude, with the syntax of an ignore file, relative to each
	// source directory.
	Exclude []string
	// Parents keeps the directories of a source's name, from the root or from the pivot "/./" on.
	Parents bool
	// Literal makes Patterns names: no character in them is a wildcard. It is set for the
	// sources of mounts.
	Literal bool
	// KeepOwner includes the owners of the files in the digest: it is for trees whose owners are
	// copied (--from).
	KeepOwner bool
	// Root includes in the digest the mode, the attributes and, with KeepOwner, the owner of a
	// directory whose contents are matched. It is set for mounts, which show the directory itself.
	Root bool
	// Epoch limits the times of the copies (SOURCE_DATE_EPOCH), in seconds since 1970: later times
	// become Epoch; nil: times are kept. With an epoch the digest includes earlier times of files,
	// since the copies have them. Without one a copy depends on when the files were written, and
	// the digest has no times, so that the cache has a result for a fresh checkout of the same
	// files.
	Epoch *int64
}

// Match is the result of a Query.
type Match struct {
	// Items are in the order of the patterns, and for one pattern in the order of their names.
	// The list may be empty: it is not an error if a wildcard matches nothing, or if all files
	// are excluded.
	Items []Item
	// Frozen is the directory of the private copies, or nil if no file of Items has one. It is
	// open as long as the tree.
	Frozen *os.File
	// Digest is a digest of the matched files: targets, names, types, modes, targets of links,
	// contents, extended attributes (see KeepXattr), hard links among the files, and owners if
	// Query.KeepOwner is set. Equal digests mean that copies have the same result. The path of the
	// tree is not part of the digest, and times only as described at Query.Epoch.
	Digest digest.Digest
	// Sockets are the paths of sockets that were left out: a layer cannot hold a socket.
	Sockets []string
	// Unmatched are the patterns with wildcards that matched nothing.
	Unmatched []string
	// Files and Bytes are the number and the total size of the regular files in Items.
	Files int
	Bytes int64
}

// Item is one file or directory that a pattern named or matched.
type Item struct {
	// Path is its path below the tree's directory, without links in any part; "." is that
	// directory itself.
	Path string
	// Target is its name below the destination. It is "" if Contents is set. For a file it is the
	// name by which it was found (a link's own name, not its target's). A single file whose
	// destination is not a directory is copied to the destination itself instead.
	Target string
	// Contents is set if Path is a directory whose content is copied into the destination. The
	// destination is made even if Entries is empty. The directory's own mode and owner are not
	// copied.
	Contents bool
	// MtimeNs is the time of the directory whose contents are copied; the destination gets it.
	MtimeNs int64
	// Entries are all files below Path that are copied, sorted so that a directory comes before its
	// content; each directory above an entry is an entry too. If Contents is false, there is an
	// entry ".".
	Entries Entries
}

// NotFoundError is returned for a missing source without wildcards. errors.Is(err, ErrNotFound)
// is true for it.
type NotFoundError struct {
	// Path is the cleaned source, absolute in the tree.
	Path string
	// Link is the target, if the source is a dangling link.
	Link string
	// IgnoredBy is the ignore file that excludes the source; "" if the source does not exist.
	IgnoredBy string
	// Pattern is the line of IgnoredBy that excludes the source.
	Pattern string
	// Own is set if the source is in the program's own state, which is never part of a context.
	Own bool
}

// ErrNotFound is wrapped by a NotFoundError.
var ErrNotFound = errors.New("not found")

// Error returns a message with the missing source and the reason.
func (e *NotFoundError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q: not found", e.Path)
	switch {
	case e.Own:
		b.WriteString(" (it is in the state directory, which is not part of the build context)")
	case e.IgnoredBy != "":
		fmt.Fprintf(&b, " (it is excluded by %s: %s)", e.IgnoredBy, e.Pattern)
	case e.Link != "":
		fmt.Fprintf(&b, " (it is a link to %q, which does not exist)", e.Link)
	}
	return b.String()
}

// Unwrap returns ErrNotFound.
func (e *NotFoundError) Unwrap() error { return ErrNotFound }

// KeepXattr reports whether an extended attribute is copied, and therefore is part of a digest: an
// attribute that a layer can have, or the mark of a file that stands for a device node.
func KeepXattr(name string) bool {
	return dirfd.InLayer([]byte(name)) || name == dirfd.DeviceMark
}

// Remote is a source on another machine, whose key is known before it is fetched: a *Download or a
// *Repository.
type Remote interface {
	// Key returns a key of the content that will be copied. If possible, it is computed without
	// fetching the content.
	Key() digest.Digest
	// Material returns what identifies the content.
	Material() Material
	// Fetch fetches the content. The caller closes the result.
	Fetch(ctx context.Context) (*Fetched, error)
	// ModTime returns the time of the content, for SOURCE_DATE_EPOCH. It returns false if it has
	// none.
	ModTime(ctx context.Context) (time.Time, bool, error)
	// Close removes content that was downloaded and not fetched. It must always be called.
	Close() error
}
