package layercheck

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// OCI image spec v1.1.1, layer.md, "Whiteouts" and "Opaque Whiteout".
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

// change is an entry of a layer.
type change struct {
	path string
	link string // path of the target, for a hard link
	node *node
}

// Apply applies a layer to t. r reads the layer, uncompressed. Whiteouts are applied first, at any
// position in the stream: they affect only the layers below. Apply returns an error for a layer
// that cannot be applied; t must not be used then.
func (t *Tree) Apply(r io.Reader) error {
	removed, changes, err := read(r)
	if err != nil {
		return fmt.Errorf("read the layer: %w", err)
	}
	for _, p := range removed {
		if err := t.remove(p); err != nil {
			return err
		}
	}
	for _, c := range changes {
		if err := t.put(c); err != nil {
			return err
		}
	}
	return nil
}

// read returns the whiteouts and the other entries of a layer.
func read(r io.Reader) (removed []string, changes []change, err error) {
	seen := map[string]bool{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			// Two blocks of zeros end an archive, and readers may stop there.
			if n, err := io.Copy(io.Discard, r); n > 0 || err != nil {
				return nil, nil, errors.Join(err, fmt.Errorf("%d bytes after the end", n))
			}
			return removed, changes, nil
		}
		if err != nil {
			return nil, nil, err
		}
		name := strings.TrimSuffix(h.Name, "/")
		if name == "" || path.Clean("/" + name)[1:] != name && name != "." {
			return nil, nil, fmt.Errorf("entry %q is not a clean path", h.Name)
		}
		if name != h.Name && h.Typeflag != tar.TypeDir {
			return nil, nil, fmt.Errorf("entry %q is not a directory, but its name ends in a slash",
				h.Name)
		}
		if seen[name] {
			return nil, nil, fmt.Errorf("two entries %q", name)
		}
		seen[name] = true
		if strings.HasPrefix(path.Base(name), whiteoutPrefix) {
			removed = append(removed, name)
			continue
		}
		c := change{path: name}
		if h.Typeflag == tar.TypeLink {
			c.link = h.Linkname
		}
		if c.node, err = newNode(h, tr); err != nil {
			return nil, nil, fmt.Errorf("entry %q: %w", name, err)
		}
		changes = append(changes, c)
	}
}

const xattrRecord = "SCHILY.xattr."

func newNode(h *tar.Header, content io.Reader) (*node, error) {
	n := &node{
		mode: uint32(h.Mode) & 0o7777, uid: uint32(h.Uid), gid: uint32(h.Gid),
		sec: h.ModTime.Unix(), names: 1,
	}
	switch h.Typeflag {
	case tar.TypeLink:
	case tar.TypeReg:
		n.mode |= unix.S_IFREG
		n.size = h.Size
		sum := sha256.New()
		if _, err := io.Copy(sum, content); err != nil {
			return nil, err
		}
		n.sum = [sha256.Size]byte(sum.Sum(nil))
	case tar.TypeDir:
		n.mode |= unix.S_IFDIR
		n.children = map[string]*node{}
	case tar.TypeSymlink:
		n.mode |= unix.S_IFLNK
		n.link = h.Linkname
	case tar.TypeChar:
		n.mode |= unix.S_IFCHR
	case tar.TypeBlock:
		n.mode |= unix.S_IFBLK
	case tar.TypeFifo:
		n.mode |= unix.S_IFIFO
	default:
		return nil, fmt.Errorf("type %q", h.Typeflag)
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		n.major, n.minor = uint32(h.Devmajor), uint32(h.Devminor)
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrRecord)
		if !ok {
			continue
		}
		if !dirfd.InLayer([]byte(name)) {
			return nil, fmt.Errorf("attribute %q does not belong in a layer", name)
		}
		if n.xattrs == nil {
			n.xattrs = map[string]string{}
		}
		n.xattrs[name] = value
	}
	return n, nil
}

// lookup returns the node at a path, nil if there is none.
func (t *Tree) lookup(p string) *node {
	n := t.root
	if p == "." {
		return n
	}
	for part := range strings.SplitSeq(p, "/") {
		if n = n.children[part]; n == nil {
			return nil
		}
	}
	return n
}

// remove applies a whiteout. A whiteout of a missing name is an error: no correct layer has one.
func (t *Tree) remove(whiteout string) error {
	dir, base := path.Split(whiteout)
	parent := t.lookup(path.Clean(dir))
	if parent == nil || !parent.isDir() {
		return fmt.Errorf("the whiteout %q is in no directory of the parent", whiteout)
	}
	if base == opaqueName {
		clear(parent.children)
		return nil
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if parent.children[name] == nil {
		return fmt.Errorf("the whiteout %q removes nothing", whiteout)
	}
	delete(parent.children, name)
	return nil
}

// put makes an entry. An existing directory keeps its content.
func (t *Tree) put(c change) error {
	if c.path == "." {
		if !c.node.isDir() {
			return errors.New("the root is not a directory")
		}
		c.node.children = t.root.children
		t.root = c.node
		return nil
	}
	dir, base := path.Split(c.path)
	parent := t.lookup(path.Clean(dir))
	if parent == nil || !parent.isDir() {
		return fmt.Errorf("entry %q is in no directory", c.path)
	}
	if c.link != "" {
		if c.node = t.lookup(c.link); c.node == nil || c.node.isDir() {
			return fmt.Errorf("entry %q is a link to %q, which is not a file", c.path, c.link)
		}
		c.node.names++
	}
	if was := parent.children[base]; was != nil && was.isDir() && c.node.isDir() {
		c.node.children = was.children
	}
	parent.children[base] = c.node
	return nil
}

// names returns the sorted names that are in at least one of two directories.
func names(a, b *node) []string {
	all := maps.Clone(a.children)
	maps.Copy(all, b.children)
	return slices.Sorted(maps.Keys(all))
}
