package analyze

import (
	"bytes"
	"cmp"
	"iter"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/sorting"
)

// findings groups dead units: for each creator, killer and reason, by the directories that hold
// them.
func (r *Report) findings() {
	var dead []int32
	for i := range r.Units {
		if u := &r.Units[i]; u.Dead() && u.Bytes > 0 {
			dead = append(dead, int32(i))
		}
	}
	compare := func(a, b int32) int {
		x, y := &r.Units[a], &r.Units[b]
		return cmp.Or(cmp.Compare(x.Layer, y.Layer), cmp.Compare(x.Killer, y.Killer),
			cmp.Compare(x.Reason, y.Reason), bit(x.Accepted)-bit(y.Accepted))
	}
	r.Findings = []Finding{}
	g := newGrouping(r.Tree)
	for group := range groups(dead, compare) {
		u := &r.Units[group[0]]
		l := &r.Layers[u.Layer]
		f := Finding{Reason: u.Reason, Owner: l.Owner, Creator: int(u.Layer), Killer: int(u.Killer),
			Accepted: u.Accepted}
		for _, i := range group {
			g.add(r.Units[i].Node, r.Units[i].Bytes)
		}
		g.emit(func(path string, bytes int64, units int) {
			f.Path, f.Bytes, f.Units, f.Compressed = path, bytes, units, l.estimate(bytes)
			f.Remedy = r.remedy(&f)
			r.Findings = append(r.Findings, f)
		})
	}
	sorting.StableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Path, b.Path),
			cmp.Compare(a.Creator, b.Creator), cmp.Compare(a.Killer, b.Killer))
	})
}

// groups sorts units, and yields the runs of units that compare as equal.
func groups(units []int32, compare func(a, b int32) int) iter.Seq[[]int32] {
	return func(yield func([]int32) bool) {
		slices.SortStableFunc(units, compare)
		for len(units) > 0 {
			n := 1
			for n < len(units) && compare(units[0], units[n]) == 0 {
				n++
			}
			if !yield(units[:n]) {
				return
			}
			units = units[n:]
		}
	}
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// grouping groups files by directories. Its slices are indexed by node; used elements are reset
// afterwards.
type grouping struct {
	tree  *Tree
	bytes []int64
	units []int32
	nodes []int32 // nodes whose elements are used
}

func newGrouping(t *Tree) *grouping {
	return &grouping{tree: t, bytes: make([]int64, t.Len()), units: make([]int32, t.Len())}
}

func (g *grouping) add(n int32, bytes int64) {
	for {
		if g.units[n] == 0 {
			g.nodes = append(g.nodes, n)
		}
		g.units[n]++
		g.bytes[n] += bytes
		if n == root {
			return
		}
		n = g.tree.nodes[n].parent
	}
}

// wideDirs are directories whose content is so diverse that their names are not useful in a
// finding.
var wideDirs = []string{"etc", "home", "lib", "opt", "usr", "var"}

// emit calls found for the groups: a single file, or the deepest directory that contains
// several. The root and wideDirs are split.
func (g *grouping) emit(found func(path string, bytes int64, units int)) {
	// Parents have lower numbers than their children. kids is the number of used children of each
	// node.
	slices.Sort(g.nodes)
	kids := map[int32]int32{}
	for _, n := range g.nodes {
		kids[g.tree.nodes[n].parent]++
	}
	covered := map[int32]bool{}
	for _, n := range g.nodes {
		node := &g.tree.nodes[n]
		if n != root && covered[node.parent] {
			covered[n] = true
			continue
		}
		below := g.bytes[n]
		leaf := kids[n] == 0
		top := n == root || node.parent == root && slices.Contains(wideDirs, node.Name)
		if leaf || kids[n] > 1 && !top {
			path := g.tree.Path(node)
			if !leaf {
				path += "/"
				covered[n] = true
			}
			found(path, below, int(g.units[n]))
		}
	}
	for _, n := range g.nodes {
		g.bytes[n], g.units[n] = 0, 0
	}
	g.nodes = g.nodes[:0]
}

// duplicates finds contents that are live at several paths.
func (r *Report) duplicates() {
	var live []int32
	for i := range r.Units {
		if u := &r.Units[i]; !u.Dead() && u.Bytes > 0 {
			live = append(live, int32(i))
		}
	}
	same := func(a, b int32) int {
		x, y := &r.Units[a], &r.Units[b]
		if c := cmp.Compare(x.Bytes, y.Bytes); c != 0 {
			return c
		}
		return bytes.Compare(x.Content[:], y.Content[:])
	}
	slices.SortFunc(live, func(a, b int32) int { return cmp.Or(same(a, b), cmp.Compare(a, b)) })
	r.Duplicates = []Duplicate{}
	for len(live) > 0 {
		n := 1
		for n < len(live) && same(live[0], live[n]) == 0 {
			n++
		}
		if n > 1 {
			r.duplicate(live[:n])
		}
		live = live[n:]
	}
	sorting.StableFunc(r.Duplicates, func(a, b Duplicate) int {
		return cmp.Or(cmp.Compare(b.Extra, a.Extra), strings.Compare(a.Paths[0], b.Paths[0]))
	})
	if len(r.Duplicates) > maxDuplicates {
		r.Duplicates = r.Duplicates[:maxDuplicates]
	}
}

// maxDuplicates limits the list: a large image has thousands of equal small files.
// DuplicateBytes counts all of them.
const maxDuplicates = 200

func (r *Report) duplicate(units []int32) {
	size := r.Units[units[0]].Bytes
	d := Duplicate{Size: size, Extra: size * int64(len(units)-1), Copies: len(units)}
	base := 0
	for _, i := range units {
		u := &r.Units[i]
		d.Paths = append(d.Paths, r.livePath(u, i))
		d.Layers = append(d.Layers, int(u.Layer))
		if r.Layers[u.Layer].Owner == BaseImage {
			base++
		}
	}
	if base >= len(units) {
		d.Owner = BaseImage
	}
	d.Remedy = r.duplicateRemedy(units, d.Owner)
	slices.Sort(d.Paths)
	d.Paths = d.Paths[:min(len(d.Paths), MaxPaths)]
	slices.Sort(d.Layers)
	d.Layers = slices.Compact(d.Layers)
	r.DuplicateBytes += d.Extra
	r.Duplicates = append(r.Duplicates, d)
}

// livePath returns a path at which a unit is visible. The path in its layer may be removed while
// a link remains.
func (r *Report) livePath(u *Unit, i int32) string {
	n := &r.Tree.nodes[u.Node]
	if f := r.Tree.At(n, r.Tree.layers-1); f != nil && f.Unit == i {
		return r.Tree.Path(n)
	}
	if r.linkPaths == nil {
		r.linkPaths = map[int32]int32{}
		for k := range r.Tree.nodes {
			if f := r.Tree.At(&r.Tree.nodes[k], r.Tree.layers-1); f != nil &&
				f.Unit >= 0 && f.Hardlink {
				r.linkPaths[f.Unit] = int32(k)
			}
		}
	}
	return r.Tree.Path(&r.Tree.nodes[r.linkPaths[i]])
}
