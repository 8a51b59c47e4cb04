package browse

import (
	"cmp"
	"slices"

	"github.com/layerbuild/layerbuild/analyze"
)

// rows are the lines of a tree with its open directories. The content of a closed directory is
// not processed.
type rows struct {
	view   *analyze.View
	byName bool
	list   []row
	at     int // the selected one
	top    int // the first that is visible

	open    map[int32]bool // directories, by node; they stay open when another layer is selected
	allOpen bool           // all directories are open except those in open
	pass    []uint8        // by node: the filter's result
}

type row struct {
	node  int32
	depth int32
}

// Results of a filter for a node.
const (
	hidden uint8 = iota
	shown
	parent // shown, and something below it is shown
)

// fill makes the rows again and keeps the selection, or selects the nearest existing directory
// above it.
func (r *rows) fill(v *analyze.View, f *filter) {
	was := r.selected()
	r.view = v
	r.sieve(f)
	r.list = r.list[:0]
	r.list = r.below(r.list, v.Tree.Root(), 0)
	r.at = 0
	for n := was; n >= 0; {
		if i := r.find1(n); i >= 0 {
			r.at = i
			break
		}
		p := v.Tree.Parent(v.Tree.Node(n))
		if p == nil {
			break
		}
		n = v.Tree.Number(p)
	}
}

// sieve applies the filter to every node, from the last one to the first: a node comes after its
// parent.
func (r *rows) sieve(f *filter) {
	v, t := r.view, r.view.Tree
	if len(r.pass) != t.Len() {
		r.pass = make([]uint8, t.Len())
	}
	clear(r.pass)
	below := make([]bool, t.Len()) // the view has a node below it
	for i := t.Len() - 1; i > 0; i-- {
		n := t.Node(int32(i))
		if !v.Shown(n) {
			continue
		}
		p := t.Number(t.Parent(n))
		if r.pass[i] == hidden && f.passes(v, n, below[i]) {
			r.pass[i] = shown
		}
		if r.pass[i] != hidden {
			r.pass[p] = parent
		}
		below[p] = true
	}
	r.pass[0] = parent
}

// passes reports whether a node itself matches the filter.
func (f *filter) passes(v *analyze.View, n *analyze.Node, more bool) bool {
	c := v.Change(n)
	switch {
	case f.hide[c], f.onlyDead && v.Dead(n) == 0:
		return false
	case more:
		// The Change of a directory includes that of its contents. The directory itself passes only
		// if the layer has an entry for it.
		file := v.File(n)
		if file == nil || file.Implied || int(file.Layer) < v.First || f.onlyDead {
			return false
		}
	}
	return f.path == nil || f.path.MatchString(v.Tree.Path(n))
}

// below adds the rows below a directory.
func (r *rows) below(list []row, dir *analyze.Node, depth int32) []row {
	for _, n := range r.children(dir) {
		id := r.view.Tree.Number(n)
		list = append(list, row{id, depth})
		if r.pass[id] == parent && r.isOpen(id) {
			list = r.below(list, n, depth+1)
		}
	}
	return list
}

// children returns the children that the filter selects, in the order of the rows.
func (r *rows) children(dir *analyze.Node) []*analyze.Node {
	var all []*analyze.Node
	for n := range r.view.Tree.Children(dir) {
		if r.pass[r.view.Tree.Number(n)] != hidden {
			all = append(all, n)
		}
	}
	if !r.byName {
		v := r.view
		slices.SortStableFunc(all, func(a, b *analyze.Node) int {
			return cmp.Compare(v.Bytes(b), v.Bytes(a))
		})
	}
	return all
}

func (r *rows) isOpen(n int32) bool { return r.open[n] != r.allOpen }

// selected returns the node of the selected row, -1 if there is none.
func (r *rows) selected() int32 {
	if r.at < 0 || r.at >= len(r.list) {
		return -1
	}
	return r.list[r.at].node
}

func (r *rows) find1(n int32) int {
	return slices.IndexFunc(r.list, func(row row) bool { return row.node == n })
}

func (r *rows) move(by int) { r.at = max(0, min(r.at+by, len(r.list)-1)) }

// toggle opens or closes the selected directory.
func (r *rows) toggle() {
	n := r.selected()
	if n < 0 || r.pass[n] != parent {
		return
	}
	depth := r.list[r.at].depth
	if r.isOpen(n) {
		end := r.at + 1
		for end < len(r.list) && r.list[end].depth > depth {
			end++
		}
		r.list = slices.Delete(r.list, r.at+1, end)
	} else {
		r.list = slices.Insert(r.list, r.at+1, r.below(nil, r.view.Tree.Node(n), depth+1)...)
	}
	r.open[n] = !r.open[n]
}

// enter opens a closed directory, or moves into an open one.
func (r *rows) enter() {
	n := r.selected()
	if n < 0 || r.pass[n] != parent {
		return
	}
	if r.isOpen(n) {
		r.move(1)
	} else {
		r.toggle()
	}
}

// leave closes an open directory, or moves to the directory above.
func (r *rows) leave() {
	n := r.selected()
	if n < 0 {
		return
	}
	if r.pass[n] == parent && r.isOpen(n) {
		r.toggle()
		return
	}
	for i := r.at - 1; i >= 0; i-- {
		if r.list[i].depth < r.list[r.at].depth {
			r.at = i
			return
		}
	}
}

// toggleAll opens or closes all directories; the caller calls fill afterwards.
func (r *rows) toggleAll() {
	r.allOpen = !r.allOpen
	clear(r.open)
}

// find returns the nodes that match, in the order of the rows with all directories open.
func (r *rows) find(match func(name string, path func() string) bool) []int32 {
	t := r.view.Tree
	hit := make([]bool, t.Len()) // the node, or something below it, matches
	self := make([]bool, t.Len())
	for i := t.Len() - 1; i > 0; i-- {
		n := t.Node(int32(i))
		if r.pass[i] == hidden {
			continue
		}
		self[i] = match(n.Name, func() string { return t.Path(n) })
		if self[i] || hit[i] {
			hit[i] = true
			hit[t.Number(t.Parent(n))] = true
		}
	}
	var found []int32
	var walk func(dir *analyze.Node)
	walk = func(dir *analyze.Node) {
		if !hit[t.Number(dir)] {
			return
		}
		for _, n := range r.children(dir) {
			if id := t.Number(n); hit[id] {
				if self[id] {
					found = append(found, id)
				}
				walk(n)
			}
		}
	}
	walk(t.Root())
	return found
}

// rank returns the index in found of the first result after a node, or of the last one before
// it.
func (r *rows) rank(found []int32, from int32, forward bool) int {
	if from < 0 {
		return 0
	}
	n := len(found)
	i, exact := slices.BinarySearchFunc(found, from,
		func(a, b int32) int { return r.compare(a, b) })
	switch {
	case forward && exact:
		return (i + 1) % n
	case forward:
		return i % n
	}
	return (i - 1 + n) % n
}

// compare compares the positions of two nodes with all directories open.
func (r *rows) compare(a, b int32) int {
	if a == b {
		return 0
	}
	t := r.view.Tree
	x, y := r.chain(a), r.chain(b)
	for i := 0; ; i++ {
		switch {
		case i == len(x):
			return -1
		case i == len(y):
			return 1
		case x[i] == y[i]:
			continue
		}
		if !r.byName {
			if c := cmp.Compare(r.view.Bytes(t.Node(y[i])), r.view.Bytes(t.Node(x[i]))); c != 0 {
				return c
			}
		}
		return cmp.Compare(t.Node(x[i]).Name, t.Node(y[i]).Name)
	}
}

// chain returns a node and all nodes above it, the root first.
func (r *rows) chain(n int32) []int32 {
	var all []int32
	for at := r.view.Tree.Node(n); at != nil; at = r.view.Tree.Parent(at) {
		all = append(all, r.view.Tree.Number(at))
	}
	slices.Reverse(all)
	return all
}

// reveal opens the directories above a node and selects it.
func (r *rows) reveal(n int32) {
	chain := r.chain(n)
	for _, dir := range chain[1 : len(chain)-1] {
		if !r.isOpen(dir) {
			if i := r.find1(dir); i >= 0 {
				r.at = i
				r.toggle()
			}
		}
	}
	if i := r.find1(n); i >= 0 {
		r.at = i
	}
}
