// Package source is where a build's files come from: build contexts, other stages' trees, downloads, git repositories.
//
// It finds out which files a COPY or ADD names, in what order they are to be copied, and what their content is. It
// copies nothing: that is done by the executor from the directory descriptors and the lists that are made here.
package source

import (
	"context"
	"errors"
	"fmt"
	"strings"

	digest "github.com/opencontainers/go-digest"

	"github.com/layerbuild/layerbuild/internal/unpack/rawfs"
)

// Query says what a COPY or ADD names.
type Query struct {
	// Patterns are the sources as written in the Dockerfile, expanded. They are cleaned as if the tree were the root
	// directory. A part with *, ? or [ is matched by the rules of path/filepath.Match; with Parents, ** too.
	Patterns []string
	// Exclude are the patterns of --exclude, with the syntax of an ignore file, relative to each source directory.
	Exclude []string
	// Parents keeps the directories of a source's name, from the root or from the pivot "/./" on.
	Parents bool
	// Literal takes Patterns for names: no character in them is a wildcard. For the sources of mounts.
	Literal bool
	// KeepOwner puts the owners of the files into the digest: for trees whose owners are copied (--from).
	KeepOwner bool
	// Root puts the mode, the attributes and, with KeepOwner, the owner of a directory whose contents are named into the
	// digest: for mounts, which show that directory itself.
	Root bool
	// Epoch is the time, in seconds, that later times of the copies become (SOURCE_DATE_EPOCH); nil: they are kept. With
	// it the digest has the earlier times of files, since the copies have them. Without it a copy depends on when the
	// files were written, and the digest has no times, so that a fresh checkout of the same files is found in the cache.
	Epoch *int64
}

// Match is what a Query found.
type Match struct {
	// Items are in the order of the patterns, and for one pattern in the order of their names. There may be none: a
	// wildcard that matches nothing is no error, nor are files that are all excluded.
	Items []Item
	// Digest names the content of all that is matched: targets, names, types, modes, links' texts, contents, extended
	// attributes (see KeepXattr), hard links among the files, and owners if Query.KeepOwner. Equal digests mean that a
	// copy has the same result. The place of the tree is not in it, and times only as Query.Epoch says.
	Digest digest.Digest
	// Sockets are the paths of sockets that were left out: a layer cannot hold one.
	Sockets []string
	// Unmatched are those patterns with wildcards that matched nothing.
	Unmatched []string
	// Files and Bytes count the regular files in Items and what is in them.
	Files int
	Bytes int64
}

// Item is one thing that a pattern named or matched.
type Item struct {
	// Path is where it is below the tree's directory, with no link in any part of it; "." is that directory itself.
	Path string
	// Target is its name below the destination. It is "" where Contents is set, and for a file it is the name by which
	// it was found (a link's own name, not that of what the link points to). A single file whose destination is no
	// directory is copied to the destination itself instead.
	Target string
	// Contents means that Path is a directory, and that what is in it is copied into the destination. The destination
	// is to be made even if Entries is empty. The directory's own mode and owner are not copied.
	Contents bool
	// MtimeNs is the time of the directory whose contents are copied, which the destination gets.
	MtimeNs int64
	// Entries are all files below Path that are to be copied, sorted so that a directory comes before what is in it;
	// each directory on the way to an entry is an entry too. If Contents is false there is one: ".".
	Entries Entries
}

// Entry is one file, directory, link, fifo or device below an Item's path.
type Entry struct {
	// Path is relative to the Item's path; "." for the item itself.
	Path string
	// Size, MtimeNs, CtimeNs and Ino are those of the file whose content is in the digest. A copy that finds other
	// values must not use the file. Size is 0 except for regular files. Ino is 0 if inode numbers are not compared: for
	// directories, and on file systems that are not trusted to keep them. A directory with another ctime may only have
	// other names in it; its mode and attributes are compared.
	Size    int64
	MtimeNs int64
	CtimeNs int64
	Ino     uint64
	// Mode is the mode as stat(2) has it, with the type.
	Mode uint32
	// Attrs reports whether extended attributes are in the digest.
	Attrs bool
	// Frozen, if not 0, is the name of a private copy in Tree.FrozenDir, which was digested because the file itself
	// changes. A COPY uses the private copy, with its mode, time and attributes.
	Frozen uint32
}

// NotFoundError says that a source that was named without wildcards is not there. errors.Is(err, ErrNotFound).
type NotFoundError struct {
	// Path is the cleaned source, absolute in the tree.
	Path string
	// Link is the text of the link that leads nowhere, if the source is one.
	Link string
	// IgnoredBy is the ignore file that excludes it; "" if it does not exist at all.
	IgnoredBy string
	// Pattern is the line of IgnoredBy that excludes it.
	Pattern string
	// Own reports whether it is the program's own state, which is never part of a context.
	Own bool
}

// ErrNotFound is what a NotFoundError wraps.
var ErrNotFound = errors.New("not found")

func (e *NotFoundError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q: not found", e.Path)
	switch {
	case e.Own:
		b.WriteString(" (it is in the state directory, which is not part of the build context)")
	case e.IgnoredBy != "":
		fmt.Fprintf(&b, " (it is excluded by %s: %s)", e.IgnoredBy, e.Pattern)
	case e.Link != "":
		fmt.Fprintf(&b, " (it is a link to %q, which is not there)", e.Link)
	}
	return b.String()
}

// Unwrap returns ErrNotFound.
func (e *NotFoundError) Unwrap() error { return ErrNotFound }

// KeepXattr reports whether an extended attribute is copied, and so is part of a digest: those of layers, and the mark of a
// file that stands for a device node.
func KeepXattr(name string) bool {
	return rawfs.InLayer([]byte(name)) || name == rawfs.DeviceMark
}

// Remote is a source on another machine whose content is known by a key before it is fetched: a *Download or a
// *Repository.
type Remote interface {
	// Key names the content as it will be copied. It is known without fetching wherever possible.
	Key() digest.Digest
	// Fetch brings the content here. The caller closes what it returns.
	Fetch(ctx context.Context) (*Fetched, error)
	// Close gives up what is here already and was not fetched. It is to be called in any case.
	Close() error
}
