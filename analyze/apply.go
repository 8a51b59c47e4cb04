package analyze

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// builder applies layer after layer to a tree and keeps account of every unit. During this, a
// node's cur is the present file. All nodes above a present file are directories.
type builder struct {
	t     *Tree
	units []Unit
	index map[nodeKey]int32
	attrs map[string]int32
	// by node: the number (from 1) of the last layer with an entry there that is not a directory
	provided []int32
	warnings []string

	layer int32
	sum   *Layer // of the current layer

	// needed are the files that layers need for a reason other than their contents: symbolic links
	// on the way to a named path, and targets of hard links without content. If it is nil, they are
	// not recorded.
	needed map[int32]bool
	// seen is called for each entry with the index of the file that it made, or -1 if it made none,
	// as for a mark; for a mark, hides reports whether it hides anything. skip reports which
	// entries are ignored. Both may be nil.
	seen func(ordinal int, file int32, hides bool)
	skip func(ordinal int) bool
	// dirs are directories that the layer lists in addition to its table.
	dirs []string

	total int64 // bytes of all files
}

// maxBytes limits the bytes of all files together, so that no sum overflows. Sparse files can
// reach it in a small layer.
const maxBytes = 1 << 61

type nodeKey struct {
	parent int32
	name   string
}

func newBuilder() *builder {
	b := &builder{
		t:     &Tree{nodes: []Node{{Name: "/", parent: -1}}, attrs: []string{""}},
		index: map[nodeKey]int32{}, attrs: map[string]int32{"": 0}, provided: []int32{0},
	}
	b.layer = -1
	b.put(root, File{Type: Dir, Mode: 0o755, Implied: true, Unit: -1}) // not made by any layer
	return b
}

const maxWarnings = 100

func (b *builder) warn(format string, args ...any) {
	if len(b.warnings) < maxWarnings {
		b.warnings = append(b.warnings, fmt.Sprintf("layer %d: ",
			b.layer+1)+fmt.Sprintf(format, args...))
	}
}

// apply applies the next layer. Marks come first, wherever they are in the tar: they concern the
// layers below.
func (b *builder) apply(table *Table, sum *Layer) error {
	b.layer++
	b.sum = sum
	sum.Tar, sum.Entries = table.Tar, table.Entries
	marks := false
	for e, err := range table.All() {
		if err != nil {
			return err
		}
		if e.Type == Gone || e.Opaque {
			marks = true
			sum.Whiteouts++
		}
	}
	if marks {
		links := b.linksBelow(table)
		b.marks(table)
		for _, l := range links {
			if b.cur(l.to) == nil && b.provided[l.to] != b.layer+1 {
				return fmt.Errorf("/%s is a hard link to /%s, which a mark of the same layer "+
					"removes: unpackers differ in what it is", l.path, l.target)
			}
		}
	}
	for i, e := range b.entries(table) {
		if e.Type != Gone && !e.Opaque {
			if b.total += e.Size; b.total > maxBytes || e.Size > maxBytes {
				return fmt.Errorf("the files of the image have more than %d bytes together",
					int64(maxBytes))
			}
			b.entry(i, e)
			continue
		}
		path := e.Path
		if e.Opaque {
			path += "/" // the mark is in the directory
		}
		if link := b.ownLink(path); link >= 0 {
			return fmt.Errorf(
				"the mark for %q leads through the symbolic link %s of the same layer", e.Path,
				b.t.Path(&b.t.nodes[link]))
		}
	}
	for _, dir := range b.dirs {
		b.entry(-1, &Entry{Path: dir, Type: Dir, Mode: 0o755})
	}
	b.t.layers++
	return nil
}

// lowerLink is a hard link whose target is in a lower layer.
type lowerLink struct {
	path, target string
	to           int32
}

// linksBelow returns the hard links of a layer to files of lower layers.
func (b *builder) linksBelow(table *Table) []lowerLink {
	var list []lowerLink
	for _, e := range b.entries(table) {
		if !e.Hardlink {
			continue
		}
		if n := b.find(e.Link); n >= 0 && b.cur(n) != nil {
			list = append(list, lowerLink{e.Path, e.Link, n})
		}
	}
	return list
}

// entries returns the entries that are not skipped, with their ordinals. The table has been read
// before without an error.
func (b *builder) entries(table *Table) iter.Seq2[int, *Entry] {
	return func(yield func(int, *Entry) bool) {
		i := 0
		for e := range table.All() {
			if (b.skip == nil || !b.skip(i)) && !yield(i, e) {
				return
			}
			i++
		}
	}
}

func (b *builder) see(ordinal int, file int32, hides bool) {
	if b.seen != nil && ordinal >= 0 {
		b.seen(ordinal, file, hides)
	}
}

func (b *builder) need(n int32) {
	if i := b.t.nodes[n].cur; b.needed != nil && i != 0 {
		b.needed[i-1] = true
	}
}

// marks applies whiteouts and opaque marks. A path for which the layer has an entry is skipped:
// applying that entry finds a more exact reason.
func (b *builder) marks(table *Table) {
	for _, e := range b.entries(table) {
		if e.Type == Gone || e.Type == Dir {
			continue
		}
		if n := b.find(e.Path); n >= 0 {
			b.provided[n] = b.layer + 1
		}
	}
	for i, e := range b.entries(table) {
		switch {
		case e.Opaque:
			n := b.find(e.Path)
			there := n >= 0 && b.cur(n) != nil && b.cur(n).Type == Dir && b.any(n)
			b.see(i, -1, there)
			if !there || !b.removeBelow(n, HiddenByOpaque) {
				b.sum.IdleWhiteouts++
			}
		case e.Type == Gone:
			n := b.find(e.Path)
			there := n >= 0 && b.cur(n) != nil
			b.see(i, -1, there)
			if !there || b.provided[n] == b.layer+1 {
				b.sum.IdleWhiteouts++
				continue
			}
			b.remove(n, Deleted)
		}
	}
}

// ownLink returns the first symbolic link above a path that the current layer has made, or -1 if
// there is none. If the layer is unpacked in the order of its entries, a mark below such a link
// removes files at the link's target. The tree that this package builds applies marks first, so it
// would differ. No tool makes such layers.
func (b *builder) ownLink(path string) int32 {
	n := root
	for rest := path; ; {
		var name string
		var more bool
		if name, rest, more = strings.Cut(rest, "/"); !more {
			return -1
		}
		if n = b.child(n, name, false); n < 0 {
			return -1
		}
		if f := b.cur(n); f != nil && f.Type == Symlink {
			if f.Layer == b.layer {
				return n
			}
			return -1 // all unpackers follow a link of a lower layer
		}
	}
}

// any reports whether a directory has any content.
func (b *builder) any(n int32) bool {
	for c := b.t.nodes[n].child; c != 0; c = b.t.nodes[c].next {
		if b.t.nodes[c].cur != 0 {
			return true
		}
	}
	return false
}

// cur returns the present file of a node; nil if there is none.
func (b *builder) cur(n int32) *File {
	if i := b.t.nodes[n].cur; i != 0 {
		return &b.t.files[i-1]
	}
	return nil
}

// put sets the layer's file of a node.
func (b *builder) put(n int32, f File) {
	f.Layer = max(b.layer, 0)
	b.t.files = append(b.t.files, f)
	at, node := int32(len(b.t.files)), &b.t.nodes[n]
	if node.last == 0 {
		node.first = at
	} else {
		b.t.files[node.last-1].next = at
	}
	node.last, node.cur = at, at
	if f.Type == Gone {
		node.cur = 0
	}
}

// remove removes a node and everything below it. It reports whether the node is removed: it
// stays if the layer has an entry for something below it.
func (b *builder) remove(n int32, reason Reason) bool {
	f := b.cur(n)
	if f == nil {
		return true
	}
	if b.provided[n] == b.layer+1 && reason != DirectoryReplaced {
		return false
	}
	if f.Type == Dir {
		b.removeBelow(n, reason)
		if b.any(n) {
			// a new directory, until the layer lists it
			b.put(n, File{Type: Dir, Mode: 0o755, Implied: true, Unit: -1})
			return false
		}
	}
	b.release(b.cur(n), reason)
	b.put(n, File{Type: Gone, Unit: -1})
	return true
}

// removeBelow removes the content of a directory, and reports whether it has removed anything.
func (b *builder) removeBelow(n int32, reason Reason) (some bool) {
	for c := b.t.nodes[n].child; c != 0; c = b.t.nodes[c].next {
		if b.t.nodes[c].cur != 0 {
			some = b.remove(c, reason) || some
		}
	}
	return some
}

// release removes a name from the unit of f.
func (b *builder) release(f *File, reason Reason) {
	if f.Unit < 0 {
		return
	}
	u := &b.units[f.Unit]
	if u.Links--; u.Links == 0 {
		u.Killer, u.Reason = b.layer, reason
	}
}

// entry applies an entry that is not a mark.
func (b *builder) entry(ordinal int, e *Entry) {
	n := b.place(e.Path)
	if n == root && e.Type != Dir {
		b.warn("the root is not a directory")
		b.see(ordinal, -1, true)
		return
	}
	f := File{Type: e.Type, Mode: e.Mode, UID: e.UID, GID: e.GID, Time: e.Time, Link: e.Link,
		Unit: -1, attrs: b.attr(e.Xattrs)}
	switch {
	case e.Hardlink:
		if target, ok := b.linked(e, n); ok {
			f = target
			break
		}
		// Nothing can be unpacked there. The old file is hidden nevertheless, as the layer
		// intends.
		if old := b.cur(n); old != nil {
			b.replace(n, old, &File{Type: Gone, Unit: -1})
			b.put(n, File{Type: Gone, Unit: -1})
		}
		b.see(ordinal, -1, true)
		return
	case e.Type == Regular:
		f.Size, f.Unit = e.Size, int32(len(b.units))
		b.units = append(b.units, Unit{Node: n, Layer: b.layer, Killer: -1,
			Bytes: e.Size, Content: e.Content})
	}
	if f.Unit >= 0 {
		b.units[f.Unit].Links++
	}
	if old := b.cur(n); old != nil {
		b.replace(n, old, &f)
	}
	b.put(n, f)
	b.see(ordinal, int32(len(b.t.files))-1, true)
}

// linked returns the target of a hard link.
func (b *builder) linked(e *Entry, n int32) (File, bool) {
	to := b.find(e.Link)
	if to < 0 || b.cur(to) == nil || b.cur(to).Type == Dir {
		b.warn("/%s is a hard link to /%s, which is not there", e.Path, e.Link)
		return File{}, false
	}
	f := *b.cur(to)
	if f.Unit < 0 {
		b.need(to)
	}
	f.Hardlink, f.next = to != n, 0
	return f, true
}

// replace removes old, the file of a node, since the file with replaces it.
func (b *builder) replace(n int32, old, with *File) {
	switch {
	case old.Type == Dir && with.Type == Dir:
	case old.Type == Dir:
		b.removeBelow(n, DirectoryReplaced)
	default:
		b.release(old, b.reason(old, with))
	}
}

// reason returns why old is dead when with replaces it, by comparing the two.
func (b *builder) reason(old, with *File) Reason {
	if old.Unit < 0 || with.Unit < 0 {
		return Overwritten
	}
	was, is := &b.units[old.Unit], &b.units[with.Unit]
	switch {
	case was.Bytes != is.Bytes || was.Content != is.Content:
		return Overwritten
	case !sameMeta(old, with):
		return RewrittenMetadata
	case old.Time != with.Time:
		return RewrittenTime
	}
	return RewrittenSame
}

func (b *builder) attr(s string) int32 {
	if s == "" {
		return 0
	}
	i, ok := b.attrs[s]
	if !ok {
		i = int32(len(b.t.attrs))
		b.attrs[s] = i
		b.t.attrs = append(b.t.attrs, s)
	}
	return i
}

// child returns the child of a node with a name; a missing child is created if make is true, and
// otherwise -1 is returned.
func (b *builder) child(parent int32, name string, make bool) int32 {
	if n, ok := b.index[nodeKey{parent, name}]; ok {
		return n
	}
	if !make {
		return -1
	}
	n := int32(len(b.t.nodes))
	name = strings.Clone(name) // a path is much longer than its last part
	b.t.nodes = append(b.t.nodes, Node{Name: name, id: n, parent: parent,
		next: b.t.nodes[parent].child})
	b.t.nodes[parent].child = n
	b.provided = append(b.provided, 0)
	b.index[nodeKey{parent, name}] = n
	return n
}

// find returns the node of a path, -1 if there is none. Links above it are followed.
func (b *builder) find(path string) int32 {
	n, rest := b.walk(path, false)
	if rest {
		return -1
	}
	return n
}

// place returns the node of a path. Missing directories above it are made.
func (b *builder) place(path string) int32 {
	n, _ := b.walk(path, true)
	return n
}

// maxLinks is the largest number of symbolic links in a path, as in the kernel.
const maxLinks = 40

// walk follows a path's parts. A symbolic link above the last part is followed inside the image,
// as in unpackers. walk ends early, with missing set, at a part without a node.
func (b *builder) walk(path string, make bool) (n int32, missing bool) {
	links := 0
	for rest := path; rest != "" && rest != "."; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			n = max(b.t.nodes[n].parent, root)
			continue
		}
		at := b.child(n, name, make)
		if at < 0 {
			return n, true
		}
		if rest == "" {
			return at, false
		}
		f := b.cur(at)
		if f != nil && f.Type == Symlink && links < maxLinks {
			links++
			b.need(at)
			if strings.HasPrefix(f.Link, "/") {
				n = root
			}
			rest = f.Link + "/" + rest
			continue
		}
		if make && (f == nil || f.Type != Dir) {
			b.imply(at, f)
		}
		n = at
	}
	return n, false
}

// imply makes a directory that a layer does not list but has entries below.
func (b *builder) imply(n int32, old *File) {
	dir := File{Type: Dir, Mode: 0o755, Implied: true, Unit: -1}
	if old != nil {
		b.replace(n, old, &dir)
	}
	b.put(n, dir)
}

// finish sorts siblings by name.
func (b *builder) finish() {
	b.index, b.provided = nil, nil
	nodes := b.t.nodes
	var list []int32
	for i := range nodes {
		list = list[:0]
		for c := nodes[i].child; c != 0; c = nodes[c].next {
			list = append(list, c)
		}
		if len(list) < 2 {
			continue
		}
		slices.SortFunc(list, func(a, b int32) int {
			return strings.Compare(nodes[a].Name, nodes[b].Name)
		})
		nodes[i].child = list[0]
		for k, c := range list {
			nodes[c].next = 0
			if k+1 < len(list) {
				nodes[c].next = list[k+1]
			}
		}
	}
}
