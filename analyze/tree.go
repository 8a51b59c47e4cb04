package analyze

import (
	"iter"
	"slices"
	"strings"
	"time"
)

// Tree holds every path that a layer of the image names, with the file of each layer at that path.
// It is compact: half a million entries take well below 200 MB. Sums for display are computed for
// one View at a time.
type Tree struct {
	nodes  []Node
	files  []File
	attrs  []string
	layers int
}

// Node is a path.
type Node struct {
	Name string // its last part; "/" for the root

	id          int32
	parent      int32 // -1: this is the root
	child       int32 // the first, by name; 0: none (the root is not a child)
	next        int32 // its next sibling; 0: none
	first, last int32 // the layers' files: indexes in files, first+1; 0: none
	cur         int32 // the present file, and after the last layer the final one, +1; 0: none
}

// Type is the type of a file.
type Type uint8

// The types. Gone is the type of a path that a layer removes with a whiteout, or by replacing a
// directory above it.
const (
	Gone Type = iota
	Dir
	Regular
	Symlink
	Device
	Fifo
)

var typeNames = [...]string{"gone", "dir", "file", "symlink", "device", "fifo"}

// String returns the word for the type in reports.
func (t Type) String() string { return typeNames[t] }

// File is one layer's file at one path.
type File struct {
	Layer    int32 // index in Report.Layers
	Unit     int32 // index in Report.Units for a regular file; -1 otherwise
	UID, GID uint32
	Time     int64  // nanoseconds since 1970
	Size     int64  // of a regular file
	Link     string // a symbolic link's target; for a device its type flag and numbers, "31,3"
	Mode     uint16 // 12 bits
	Type     Type
	// Hardlink is set if the layer has the path as a link to another path of the same unit.
	Hardlink bool
	// Implied is set for a directory that the layer does not list but has content for.
	Implied bool

	attrs int32
	next  int32 // +1
}

// ModTime returns the modification time.
func (f *File) ModTime() time.Time { return time.Unix(0, f.Time) }

// Change is the way in which a layer changed a path.
type Change uint8

// The changes.
const (
	Unchanged Change = iota
	Added
	Changed // for a directory: itself, or something below it
	Removed
)

var changeNames = [...]string{"unchanged", "added", "changed", "removed"}

// String returns the word for the change in reports.
func (c Change) String() string { return changeNames[c] }

const root = int32(0)

// Len returns the number of nodes.
func (t *Tree) Len() int { return len(t.nodes) }

// Root returns the node of "/".
func (t *Tree) Root() *Node { return &t.nodes[root] }

// Node returns the node with a number. Numbers go from 0, the root, to Len()-1.
func (t *Tree) Node(n int32) *Node { return &t.nodes[n] }

// Number returns a node's number.
func (t *Tree) Number(n *Node) int32 { return n.id }

// Parent returns the node above, nil for the root.
func (t *Tree) Parent(n *Node) *Node {
	if n.parent < 0 {
		return nil
	}
	return &t.nodes[n.parent]
}

// Path returns a node's path, absolute and without a slash at its end.
func (t *Tree) Path(n *Node) string {
	if n.parent < 0 {
		return "/"
	}
	var parts []string
	for ; n.parent >= 0; n = &t.nodes[n.parent] {
		parts = append(parts, n.Name)
	}
	slices.Reverse(parts)
	return "/" + strings.Join(parts, "/")
}

// Children returns the nodes below a node, in the order of their names.
func (t *Tree) Children(n *Node) iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for c := n.child; c != 0; c = t.nodes[c].next {
			if !yield(&t.nodes[c]) {
				return
			}
		}
	}
}

// Find returns the node of a path, nil if no layer names it.
func (t *Tree) Find(path string) *Node {
	n := t.Root()
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if name == "" || name == "." {
			continue
		}
		found := (*Node)(nil)
		for c := range t.Children(n) {
			if c.Name == name {
				found = c
				break
			}
		}
		if found == nil {
			return nil
		}
		n = found
	}
	return n
}

// Files returns the layers' files at a node, the lowest layer first.
func (t *Tree) Files(n *Node) iter.Seq[*File] {
	return func(yield func(*File) bool) {
		for i := n.first; i != 0; i = t.files[i-1].next {
			if !yield(&t.files[i-1]) {
				return
			}
		}
	}
}

// At returns the file at a node after a layer was applied; nil if there is none or it was
// removed.
func (t *Tree) At(n *Node, layer int) *File {
	var last *File
	for f := range t.Files(n) {
		if int(f.Layer) > layer {
			break
		}
		last = f
	}
	if last == nil || last.Type == Gone {
		return nil
	}
	return last
}

// View is the tree at one layer, with sums for every directory.
type View struct {
	Tree *Tree
	// Layer is the layer's index. Whole is set if the view shows all files that exist after this
	// layer, and not only the layer's own. First is the first layer whose changes the view shows;
	// it equals Layer except in a view that Since returns.
	Layer int
	Whole bool
	First int

	sums []viewSum
}

type viewSum struct {
	bytes, dead int64
	files       int32
	change      Change
	shown       bool
}

// Layer returns the view of the files that one layer has and removes. Bytes counts the units that
// the layer created.
func (t *Tree) Layer(layer int, units []Unit) *View { return t.view(layer, layer, false, units) }

// After returns the view of the file system after a layer. Names that the layer removed are also
// shown. Bytes counts the existing units. Dead counts those of them that a layer above makes dead.
func (t *Tree) After(layer int, units []Unit) *View { return t.view(layer, layer, true, units) }

// Since is like After, but combines the changes of all layers from first to layer: a file that was
// added and then changed is shown as added, and one that was added and removed is not shown.
func (t *Tree) Since(first, layer int, units []Unit) *View {
	return t.view(first, layer, true, units)
}

// Final returns the view of the image's final file system.
func (t *Tree) Final(units []Unit) *View { return t.After(t.layers-1, units) }

// view computes sums from the last node to the first: a node is made after its parent, so its
// number is higher.
func (t *Tree) view(first, layer int, whole bool, units []Unit) *View {
	v := &View{Tree: t, Layer: layer, First: first, Whole: whole,
		sums: make([]viewSum, len(t.nodes))}
	seen := make([]bool, len(units)) // a unit is counted at one of its paths
	for i := len(t.nodes) - 1; i >= 0; i-- {
		n, s := &t.nodes[i], &v.sums[i]
		before, now := t.around(n, first, layer)
		mine := now != nil && int(now.Layer) >= first
		switch {
		case mine && now.Type == Gone:
			if before != nil {
				s.change, s.shown = Removed, true
			}
		case mine && before == nil:
			s.change, s.shown = Added, true
		case mine:
			s.shown = true
			if now.Type != Dir || before.Type != Dir || !now.Implied && !sameMeta(before, now) {
				s.change = Changed
			}
		case whole && now != nil && now.Type != Gone:
			s.shown = true
		}
		if now != nil && now.Unit >= 0 && (mine || whole) && !seen[now.Unit] {
			u := &units[now.Unit]
			if whole || int(u.Layer) == layer {
				seen[now.Unit] = true
				s.bytes += u.Bytes
				s.files++
				if u.Dead() {
					s.dead += u.Bytes
				}
			}
		}
		if n.parent < 0 {
			continue
		}
		p := &v.sums[n.parent]
		p.bytes, p.dead, p.files = p.bytes+s.bytes, p.dead+s.dead, p.files+s.files
		p.shown = p.shown || s.shown
		if s.change != Unchanged && p.change == Unchanged {
			p.change = Changed
		}
	}
	return v
}

// around returns the file that a node has before layer first, or nil, and the last file that the
// layers up to layer have there, which may be of type Gone.
func (t *Tree) around(n *Node, first, layer int) (before, now *File) {
	for f := range t.Files(n) {
		if int(f.Layer) > layer {
			break
		}
		if int(f.Layer) < first {
			before = f
		}
		now = f
	}
	if before != nil && before.Type == Gone {
		before = nil
	}
	return before, now
}

// sameMeta compares the attributes that chmod, chown and setfattr change.
func sameMeta(a, b *File) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.attrs == b.attrs
}

// sum returns the sum of a node.
func (v *View) sum(n *Node) *viewSum { return &v.sums[n.id] }

// Shown reports whether the view has the node. A directory is shown if something below it is.
func (v *View) Shown(n *Node) bool { return v.sum(n).shown }

// Change returns how the layer changed the node or, for a directory, a node below it.
func (v *View) Change(n *Node) Change { return v.sum(n).change }

// Bytes returns the size of the content at and below a node, each unit once.
func (v *View) Bytes(n *Node) int64 { return v.sum(n).bytes }

// Dead returns the part of Bytes that is dead in the final image.
func (v *View) Dead(n *Node) int64 { return v.sum(n).dead }

// Count returns the number of units at and below a node.
func (v *View) Count(n *Node) int { return int(v.sum(n).files) }

// File returns the layer's file at the node or, with Whole, the file after the layer. It is nil
// if there is none.
func (v *View) File(n *Node) *File {
	if v.Whole {
		return v.Tree.At(n, v.Layer)
	}
	for f := range v.Tree.Files(n) {
		if int(f.Layer) == v.Layer {
			return f
		}
	}
	return nil
}
