package outline

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// Version distinguishes the outlines that different versions of the program have made.
const Version = "2"

// ErrNone is wrapped by errors about layers that have no outline.
var ErrNone = errors.New("the image has no outline")

func none(path, reason string) error { return fmt.Errorf("%w: %q %s", ErrNone, path, reason) }

const (
	// maxMemory limits the memory for the entries of all layers, of which each needs entryMemory
	// bytes and the lengths of its texts.
	maxMemory   = 32 << 20
	entryMemory = 300
	// maxUsers is the largest size of the files of users and groups.
	maxUsers = 1 << 20
	// maxTime is the latest time, in the year 2242. Later times do not fit a tar header, and file
	// systems limit them in different ways.
	maxTime = 1<<33 - 1
)

// users are the files whose content is in an outline.
var users = []string{"etc/passwd", "etc/group"}

// Layer has the entries of one layer, in their order.
type Layer struct {
	entries []entry
}

// entry is an entry of a layer.
type entry struct {
	path     string // "" for the root
	kind     byte   // archive/tar's type flag
	mode     uint32
	uid, gid int
	size     int64
	time     time.Time
	link     string
	xattrs   map[string]string
	content  []byte // of a file in users
}

// Reader reads the layers of one image. The zero value is ready to use, by several goroutines at
// once.
type Reader struct {
	memory atomic.Int64 // of all entries so far
}

// Read reads a layer, with any supported compression, to its end. It returns the digest of the
// layer's tar. The error wraps ErrNone if the layer is valid and has no outline. The digest is then
// valid too.
func (r *Reader) Read(ctx context.Context, body io.Reader) (*Layer, digest.Digest, error) {
	l := &Layer{}
	var reason error
	diffID, err := diff.ReadEntries(ctx, body, func(e diff.Entry) (err error) {
		if reason == nil {
			reason, err = r.add(l, e)
		}
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return l, diffID, reason
}

// add adds an entry to a layer. It returns the reason if the layer has no outline, and the error of
// reading the entry.
func (r *Reader) add(l *Layer, e diff.Entry) (reason, err error) {
	if e.Type == tar.TypeChar && e.Major == 0 && e.Minor == 0 {
		return none(e.Path, "is a device 0:0"), nil
	}
	own := entry{path: e.Path, kind: e.Type, mode: e.Mode, uid: e.UID, gid: e.GID, size: e.Size,
		time: e.ModTime, link: e.Link}
	if own.path == "." {
		own.path = ""
	}
	if sec := own.time.Unix(); sec < 0 || sec > maxTime {
		return none(e.Path, "has an unusual time"), nil
	}
	memory := int64(entryMemory + len(e.Path) + len(e.Link))
	for name, value := range e.Xattrs {
		if !dirfd.InLayer([]byte(name)) {
			continue
		}
		if own.xattrs == nil {
			own.xattrs = map[string]string{}
		}
		own.xattrs[name] = value
		memory += int64(entryMemory + len(name) + len(value))
	}
	hasContent := slices.Contains(users, own.path) && own.kind == tar.TypeReg
	if hasContent {
		if own.size > maxUsers {
			return none(own.path, "is too large"), nil
		}
		memory += own.size
	}
	if r.memory.Add(memory) > maxMemory {
		return none(e.Path, "is one entry too many"), nil
	}
	if hasContent {
		own.content = make([]byte, own.size)
		if _, err := io.ReadFull(e.Content, own.content); err != nil {
			return nil, fmt.Errorf("read %q: %w", own.path, err)
		}
	}
	l.entries = append(l.entries, own)
	return nil, nil
}

// Builder merges layers. The zero value is an empty file system.
type Builder struct {
	root  node
	layer int // number of the layer that is being added, from 1
}

// node is a file of the merged file system.
type node struct {
	*entry                    // nil: the root, if no layer has an entry for it
	layer    int              // number of the layer that has the entry; 0: none
	children map[string]*node // of a directory
	// removed has the names that the layer with the number removedIn has removed.
	removed   map[string]bool
	removedIn int
}

func (n *node) isDir() bool { return n.entry == nil || n.kind == tar.TypeDir }

// Add adds a layer on top of those that were added before. After an error the Builder must not be
// used.
func (b *Builder) Add(l *Layer) error {
	b.layer++
	for i := range l.entries {
		if err := b.entry(&l.entries[i]); err != nil {
			return err
		}
	}
	return nil
}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

func (b *Builder) entry(e *entry) error {
	if e.path == "" {
		if e.kind != tar.TypeDir {
			return none("/", "is not a directory")
		}
		b.root.entry, b.root.layer = e, b.layer
		return nil
	}
	up, err := b.find(path.Dir(e.path))
	if err != nil {
		return err
	}
	name := path.Base(e.path)
	if rest, ok := strings.CutPrefix(name, whiteout); ok {
		return b.remove(up, e.path, rest)
	}
	old := up.children[name]
	n := &node{entry: e, layer: b.layer}
	switch e.kind {
	case tar.TypeDir:
		switch {
		case old == nil && up.removedIn == b.layer && up.removed[name]:
			return none(e.path, "is removed and made by one layer")
		case old == nil:
		case old.isDir():
			n.children, n.removed, n.removedIn = old.children, old.removed, old.removedIn
		case old.layer == b.layer || old.kind == tar.TypeSymlink:
			return none(e.path, "takes the place of another file")
		}
	case tar.TypeLink:
		to, err := b.find(path.Dir(e.link))
		if err != nil {
			return err
		}
		target := to.children[path.Base(e.link)]
		if target == nil || target.layer != b.layer || target.isDir() {
			return none(e.path, "is a link to a file of another layer")
		}
		if target.kind == tar.TypeSymlink || slices.Contains(users, target.path) {
			return none(e.path, "is another name of a file of the outline")
		}
		n.entry = target.entry
	case tar.TypeReg, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	default:
		return none(e.path, "has an unknown type")
	}
	if n.kind != tar.TypeDir && old != nil && old.isDir() && b.has(old) {
		return none(e.path, "takes the place of a directory of its layer")
	}
	if slices.Contains(users, e.path) && (n.kind != tar.TypeReg || n.content == nil) {
		return none(e.path, "is not a regular file")
	}
	if up.children == nil {
		up.children = map[string]*node{}
	}
	up.children[name] = n
	return nil
}

// find returns the directory of a path; "." is the root.
func (b *Builder) find(dir string) (*node, error) {
	n := &b.root
	if dir == "." {
		return n, nil
	}
	for part := range strings.SplitSeq(dir, "/") {
		n = n.children[part]
		if n == nil || !n.isDir() {
			return nil, none(dir, "is not in a layer as a directory")
		}
	}
	return n, nil
}

// remove handles the whiteout of a name in up, or its opaque mark.
func (b *Builder) remove(up *node, at, name string) error {
	if whiteout+name == opaque {
		if up == &b.root {
			return none(at, "hides all layers")
		}
		if up.layer != b.layer {
			return none(at, "is in a directory without an entry")
		}
		for _, child := range up.children {
			if b.has(child) {
				return none(at, "follows the entries of its directory")
			}
		}
		up.children = nil
		return nil
	}
	if name == "" || name == "." || name == ".." || strings.HasPrefix(name, whiteout) {
		return none(at, "is not a whiteout")
	}
	if old := up.children[name]; old != nil && b.has(old) {
		return none(at, "removes a file of its layer")
	}
	if up.removedIn != b.layer {
		up.removed, up.removedIn = map[string]bool{}, b.layer
	}
	up.removed[name] = true
	delete(up.children, name)
	return nil
}

// has reports whether the layer that is being added has an entry for a file or for one below it, or
// a whiteout below it.
func (b *Builder) has(n *node) bool {
	if n.layer == b.layer || n.removedIn == b.layer {
		return true
	}
	for _, child := range n.children {
		if b.has(child) {
			return true
		}
	}
	return false
}

// Check returns an error that wraps ErrNone if the layers together have no outline. It is called
// after the last Add.
func (b *Builder) Check() error {
	if etc := b.root.children["etc"]; etc != nil && !etc.isDir() {
		return none("etc", "is not a directory")
	}
	return nil
}

// Write writes the outline as a tar: one layer on no other layers.
func (b *Builder) Write(w io.Writer) error {
	t := tar.NewWriter(w)
	if err := b.root.each("", func(at string, n *node) error {
		if !n.isIn(at) {
			return nil
		}
		return n.write(t, at)
	}); err != nil {
		return err
	}
	return t.Close()
}

// List returns the list of the files that the outline lacks, for Parse.
func (b *Builder) List() []byte {
	var list bytes.Buffer
	// The function never returns an error.
	_ = b.root.each("", func(at string, n *node) error {
		if !n.isIn(at) {
			n.list(&list, at)
		}
		return nil
	})
	return list.Bytes()
}

// isIn reports whether the file at a path is in the outline.
func (n *node) isIn(at string) bool {
	return n.isDir() || n.kind == tar.TypeSymlink || slices.Contains(users, at)
}

// each calls do for the file at a path, and then for those below it, sorted by name.
func (n *node) each(at string, do func(at string, n *node) error) error {
	if n.entry != nil {
		if err := do(at, n); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		if err := n.children[name].each(path.Join(at, name), do); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) write(t *tar.Writer, at string) error {
	h := &tar.Header{
		Typeflag: n.kind, Name: at, Mode: int64(n.mode), Uid: n.uid, Gid: n.gid, ModTime: n.time,
		Size: int64(len(n.content)), Format: tar.FormatPAX,
	}
	switch n.kind {
	case tar.TypeDir:
		h.Name += "/"
		if at == "" {
			h.Name = "./"
		}
	case tar.TypeSymlink:
		h.Linkname = n.link
	}
	for name, value := range n.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
	if err := t.WriteHeader(h); err != nil {
		// archive/tar cannot represent some names.
		return fmt.Errorf("%w: %q: %w", ErrNone, at, err)
	}
	_, err := t.Write(n.content)
	return err
}
