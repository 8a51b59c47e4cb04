package html

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/internal/ui"
)

// The largest numbers of nodes of the page. Other nodes are merged into their directories, the
// smallest first.
const (
	maxNodes     = 30_000
	maxViewNodes = 6_000
	minViewNodes = 40
	maxViews     = 300
	maxName      = 100 // columns
)

// view is one tree of the page.
type view struct {
	label, short string
	places       []place
}

// place is a unit and the node at which its bytes are counted.
type place struct{ unit, node int32 }

// views returns the views of everything, of the visible files, and of each layer with content;
// layers beyond the limit have no view. ofLayer returns the index of a layer's view, or -1 if there
// is none.
func views(r *analyze.Report) (all []view, ofLayer []int) {
	ofLayer = make([]int, len(r.Layers))
	for i := range ofLayer {
		ofLayer[i] = -1
	}
	if r.Tree == nil {
		return nil, ofLayer
	}
	layers := make([][]place, len(r.Layers))
	var whole []place
	for i := range r.Units {
		if u := &r.Units[i]; u.Bytes > 0 {
			p := place{int32(i), u.Node}
			whole = append(whole, p)
			layers[u.Layer] = append(layers[u.Layer], p)
		}
	}
	all = []view{
		{label: "All bytes of the image", short: "the image", places: whole},
		{label: "The final file system", short: "the final file system", places: visible(r)},
	}
	for i, places := range layers {
		if len(places) == 0 || len(all) == maxViews {
			continue
		}
		ofLayer[i] = len(all)
		all = append(all, view{label: stepName(r, i),
			short: "layer " + strconv.Itoa(i+1), places: places})
	}
	return all, ofLayer
}

// visible returns the live units, each at the first path of the final file system that refers to
// it. That path may differ from the unit's path in its layer.
func visible(r *analyze.Report) []place {
	var all []place
	seen := make([]bool, len(r.Units))
	for i := range r.Tree.Len() {
		f := r.Tree.At(r.Tree.Node(int32(i)), len(r.Layers)-1)
		if f != nil && f.Unit >= 0 && !seen[f.Unit] && r.Units[f.Unit].Bytes > 0 {
			seen[f.Unit] = true
			all = append(all, place{f.Unit, int32(i)})
		}
	}
	return all
}

// grove computes the sums of one view at a time, over the same tree.
type grove struct {
	report *analyze.Report
	sums   []sum
	used   []int32 // nodes of the current view
}

type sum struct {
	live, dead int64
	units      int32
	lead       int32 // the largest dead unit directly in this node, +1
	used       bool
}

func (s *sum) total() int64 { return s.live + s.dead }

func newGrove(r *analyze.Report) *grove {
	return &grove{report: r, sums: make([]sum, r.Tree.Len())}
}

// fill makes v the current view.
func (g *grove) fill(v view) {
	for _, n := range g.used {
		g.sums[n] = sum{}
	}
	g.used = g.used[:0]
	t := g.report.Tree
	for _, p := range v.places {
		u := &g.report.Units[p.unit]
		if s := &g.sums[p.node]; u.Dead() &&
			(s.lead == 0 || u.Bytes > g.report.Units[s.lead-1].Bytes) {
			s.lead = p.unit + 1
		}
		for n := t.Node(p.node); n != nil; n = t.Parent(n) {
			s := &g.sums[t.Number(n)]
			if !s.used {
				s.used = true
				g.used = append(g.used, t.Number(n))
			}
			s.units++
			if u.Dead() {
				s.dead += u.Bytes
			} else {
				s.live += u.Bytes
			}
		}
	}
}

// cutting selects the visible nodes of a view: all nodes with more than least bytes, and ties of
// the nodes with exactly least bytes.
type cutting struct {
	least int64
	ties  int
}

// limit returns a cutting that selects at most n nodes. A directory is never smaller than its
// content, so the visible nodes are connected.
func (g *grove) limit(n int) cutting {
	if len(g.used) <= n {
		return cutting{}
	}
	sizes := make([]int64, len(g.used))
	for i, node := range g.used {
		sizes[i] = g.sums[node].total()
	}
	slices.SortFunc(sizes, func(a, b int64) int { return cmp.Compare(b, a) })
	c := cutting{least: sizes[n]}
	c.ties = n - max(0, slices.IndexFunc(sizes, func(s int64) bool { return s <= c.least }))
	return c
}

func (c *cutting) keep(s *sum) bool {
	if s.total() == c.least && c.ties > 0 {
		c.ties--
		return true
	}
	return s.total() > c.least
}

// append writes the current view below n as JSON; page.js documents the order of the values of a
// node.
func (g *grove) append(b []byte, n *analyze.Node, c *cutting) []byte {
	t := g.report.Tree
	s := &g.sums[t.Number(n)]
	b = append(b, '[')
	b = appendString(b, ui.Cut(ui.Visible(n.Name), maxName))
	b = fmt.Appendf(b, ",%d,%d", s.live, s.dead)
	var children []*analyze.Node
	var rest sum
	for child := range t.Children(n) {
		if cs := &g.sums[t.Number(child)]; cs.used {
			if c.keep(cs) {
				children = append(children, child)
				continue
			}
			rest.live, rest.dead, rest.units = rest.live+cs.live,
				rest.dead+cs.dead, rest.units+cs.units
		}
	}
	if len(children) > 0 || rest.units > 0 {
		slices.SortStableFunc(children, func(x, y *analyze.Node) int {
			return cmp.Compare(g.sums[t.Number(y)].total(), g.sums[t.Number(x)].total())
		})
		sep := byte('[')
		b = append(b, ',')
		for _, child := range children {
			b = g.append(append(b, sep), child, c)
			sep = ','
		}
		if rest.units > 0 {
			b = fmt.Appendf(append(b, sep), "[%d,%d,%d]", rest.units, rest.live, rest.dead)
		}
		b = append(b, ']')
	}
	if s.lead > 0 {
		if len(children) == 0 && rest.units == 0 {
			b = append(b, ",0"...)
		}
		u := &g.report.Units[s.lead-1]
		b = fmt.Appendf(b, ",%d,%d,%d", u.Reason, u.Layer, u.Killer)
	}
	return append(b, ']')
}

// appendData writes the data for page.js.
func appendData(b []byte, r *analyze.Report, all []view) []byte {
	b = append(b, `{"views":[`...)
	if len(all) > 0 {
		g := newGrove(r)
		left := maxNodes
		for i, v := range all {
			if i > 0 {
				b = append(b, ',')
			}
			g.fill(v)
			share := min(maxViewNodes, max(minViewNodes, left/(len(all)-i), left/3))
			c := g.limit(share)
			left -= min(share, len(g.used))
			b = append(b, `{"label":`...)
			b = appendString(b, v.label)
			b = append(b, `,"short":`...)
			b = appendString(b, v.short)
			b = append(b, `,"tree":`...)
			b = append(g.append(b, r.Tree.Root(), &c), '}')
		}
	}
	b = append(b, `],"steps":[`...)
	for i := range r.Layers {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, stepName(r, i))
	}
	b = append(b, `],"reasons":[`...)
	for reason := analyze.Live; reason <= analyze.RewrittenMetadata; reason++ {
		if reason > 0 {
			b = append(b, ',')
		}
		b = appendString(b, reason.Text())
	}
	return append(b, `]}`...)
}

// appendString writes s as a string that has no special meaning in JSON or HTML.
func appendString(b []byte, s string) []byte {
	j, err := json.Marshal(s) // with < > & and the line separators as \u
	if err != nil {
		panic(err) // strings can always be encoded
	}
	return append(b, j...)
}

// stepName returns the name of a layer by the instruction that made it, on one line.
func stepName(r *analyze.Report, layer int) string {
	name := "Layer " + strconv.Itoa(layer+1)
	i := r.Layers[layer].Instruction
	if i < 0 || i >= len(r.Instructions) {
		return name
	}
	in := &r.Instructions[i]
	if in.Line > 0 {
		name += ", line " + strconv.Itoa(in.Line)
	}
	return name + ": " + ui.Cut(ui.Visible(in.Text), 110)
}
