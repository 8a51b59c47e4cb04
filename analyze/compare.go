package analyze

import (
	"cmp"
	"io"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/sorting"
	"github.com/layerbuild/layerbuild/internal/units"
)

// DiffSchema names the format of a Comparison as JSON, as Schema does for reports.
const DiffSchema = "layerbuild.diff/1"

// Comparison holds the differences of two images.
type Comparison struct {
	Schema       string            `json:"schema"`
	A            Side              `json:"a"`
	B            Side              `json:"b"`
	Instructions []InstructionDiff `json:"instructions"` // in the images' order
	// Paths are the differences of the final file systems, the largest first. A directory that only
	// one image has is a single difference, with all its content.
	Paths []PathDiff `json:"paths"`
}

// Side is one of the two images.
type Side struct {
	Image      string `json:"image"`
	Digest     string `json:"digest,omitempty"`
	Layers     int    `json:"layers"`
	Compressed int64  `json:"compressed"`
	Sums
}

// The relations of an instruction or a path to the other image.
const (
	DiffSame     = "same"     // the same layer, or no layer in both
	DiffRebuilt  = "rebuilt"  // the same text, with another layer
	DiffChanged  = "changed"  // another text in the same place; a path with other content
	DiffMetadata = "metadata" // a path with another mode, owner, time, attribute or link
	DiffAdded    = "added"
	DiffRemoved  = "removed"
)

// InstructionDiff is an instruction of one or both images.
type InstructionDiff struct {
	Change string `json:"change"`
	A      int    `json:"a"` // index among A's instructions, -1: none
	B      int    `json:"b"`
	TextA  string `json:"textA,omitempty"`
	TextB  string `json:"textB,omitempty"`
	BytesA int64  `json:"bytesA"`
	BytesB int64  `json:"bytesB"`
	DeadA  int64  `json:"deadA"`
	DeadB  int64  `json:"deadB"`
}

// PathDiff is a path that differs.
type PathDiff struct {
	Path   string `json:"path"` // a directory's ends in a slash
	Change string `json:"change"`
	BytesA int64  `json:"bytesA"`
	BytesB int64  `json:"bytesB"`
	Files  int    `json:"files"`
	// By is the index of the instruction that made the path, among B's instructions or, for a
	// removed path, A's. For a directory it is the instruction that made most of its bytes.
	By int `json:"by"`
}

// Compare compares two images by their reports.
func Compare(a, b *Report) *Comparison {
	c := &Comparison{Schema: DiffSchema, A: a.side(), B: b.side(),
		Instructions: []InstructionDiff{}, Paths: []PathDiff{}}
	for _, pair := range align(a, b) {
		c.Instructions = append(c.Instructions, instructionDiff(a, b, pair[0], pair[1]))
	}
	d := differ{a: a, b: b, out: c, seenA: make([]bool, len(a.Units)),
		seenB: make([]bool, len(b.Units))}
	d.node(a.Tree.Root(), b.Tree.Root())
	sorting.StableFunc(c.Paths, func(x, y PathDiff) int {
		return cmp.Or(cmp.Compare(abs(y.BytesB-y.BytesA), abs(x.BytesB-x.BytesA)),
			cmp.Compare(max(y.BytesA, y.BytesB), max(x.BytesA, x.BytesB)),
			strings.Compare(x.Path, y.Path))
	})
	return c
}

func abs(n int64) int64 { return max(n, -n) }

func (r *Report) side() Side {
	s := Side{Image: r.Image, Digest: r.Digest, Layers: len(r.Layers), Sums: r.Total}
	for _, l := range r.Layers {
		s.Compressed += l.Compressed
	}
	return s
}

// WriteJSON writes the comparison as JSON.
func (c *Comparison) WriteJSON(w io.Writer) error {
	return EncodeJSON(w, c)
}

// align pairs instructions with the same text, as many as possible without changing their order,
// and then, between two such pairs, the remaining ones that begin with the same word.
func align(a, b *Report) [][2]int {
	x, y := a.Instructions, b.Instructions
	// the table has this number of cells; no real image has so many instructions
	if len(x)*len(y) > 4<<20 {
		x, y = x[:min(len(x), 2048)], y[:min(len(y), 2048)]
	}
	width := len(y) + 1
	best := make([]int32, (len(x)+1)*width)
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			at := &best[i*width+j]
			*at = max(best[(i+1)*width+j], best[i*width+j+1])
			if x[i].Text == y[j].Text {
				*at = max(*at, best[(i+1)*width+j+1]+1)
			}
		}
	}
	var pairs [][2]int
	var left, right []int
	flush := func() {
		pairs = append(pairs, pairUp(x, y, left, right)...)
		left, right = left[:0], right[:0]
	}
	i, j := 0, 0
	for i < len(x) || j < len(y) {
		switch {
		case i < len(x) && j < len(y) && x[i].Text == y[j].Text &&
			best[i*width+j] == best[(i+1)*width+j+1]+1:
			flush()
			pairs = append(pairs, [2]int{i, j})
			i, j = i+1, j+1
		case j == len(y) || i < len(x) && best[(i+1)*width+j] >= best[i*width+j+1]:
			left = append(left, i)
			i++
		default:
			right = append(right, j)
			j++
		}
	}
	flush()
	return pairs
}

func pairUp(x, y []Instruction, left, right []int) (pairs [][2]int) {
	for len(left) > 0 && len(right) > 0 {
		at := slices.IndexFunc(right, func(j int) bool {
			return verbOf(x[left[0]].Text) == verbOf(y[j].Text)
		})
		if at < 0 {
			pairs = append(pairs, [2]int{left[0], -1})
		} else {
			for _, j := range right[:at] {
				pairs = append(pairs, [2]int{-1, j})
			}
			pairs = append(pairs, [2]int{left[0], right[at]})
			right = right[at+1:]
		}
		left = left[1:]
	}
	for _, i := range left {
		pairs = append(pairs, [2]int{i, -1})
	}
	for _, j := range right {
		pairs = append(pairs, [2]int{-1, j})
	}
	return pairs
}

func instructionDiff(a, b *Report, i, j int) InstructionDiff {
	d := InstructionDiff{A: i, B: j, Change: DiffSame}
	diffID := [2]string{}
	if i >= 0 {
		d.TextA = a.Instructions[i].Text
		if l := a.Instructions[i].Layer; l >= 0 {
			d.BytesA, d.DeadA, diffID[0] = a.Layers[l].Bytes, a.Layers[l].Dead,
				cmp.Or(a.Layers[l].DiffID, a.Layers[l].Digest)
		}
	}
	if j >= 0 {
		d.TextB = b.Instructions[j].Text
		if l := b.Instructions[j].Layer; l >= 0 {
			d.BytesB, d.DeadB, diffID[1] = b.Layers[l].Bytes, b.Layers[l].Dead,
				cmp.Or(b.Layers[l].DiffID, b.Layers[l].Digest)
		}
	}
	switch {
	case i < 0:
		d.Change = DiffAdded
	case j < 0:
		d.Change = DiffRemoved
	case d.TextA != d.TextB:
		d.Change = DiffChanged
	case diffID[0] != diffID[1]:
		d.Change = DiffRebuilt
	}
	return d
}

// differ walks the final trees of two images in parallel. A unit is counted at the first of its
// paths.
type differ struct {
	a, b         *Report
	out          *Comparison
	seenA, seenB []bool
	path         []string
}

// here returns the current path.
func (d *differ) here() string { return "/" + strings.Join(d.path, "/") }

func final(r *Report, n *Node) *File {
	if n == nil || n.cur == 0 {
		return nil
	}
	return &r.Tree.files[n.cur-1]
}

func (d *differ) node(n, m *Node) {
	f, g := final(d.a, n), final(d.b, m)
	switch {
	case f == nil && g == nil:
		return
	case f == nil:
		d.whole(d.b, m, DiffAdded, d.seenB)
		return
	case g == nil:
		d.whole(d.a, n, DiffRemoved, d.seenA)
		return
	case f.Type == Dir && g.Type == Dir:
		if len(d.path) > 0 && !d.sameMeta(f, g) {
			d.out.Paths = append(d.out.Paths, PathDiff{Path: d.here() + "/",
				Change: DiffMetadata, By: d.by(d.b, g)})
		}
		d.children(n, m)
		return
	case f.Type == Dir || g.Type == Dir:
		d.whole(d.a, n, DiffRemoved, d.seenA)
		d.whole(d.b, m, DiffAdded, d.seenB)
		return
	}
	p := PathDiff{By: d.by(d.b, g), Files: 1}
	p.BytesA, p.BytesB = once(d.a, f, d.seenA), once(d.b, g, d.seenB)
	switch {
	case f.Type != g.Type || f.Link != g.Link && f.Type != Regular || !d.sameContent(f, g):
		p.Change = DiffChanged
	case !d.sameMeta(f, g) || f.Time != g.Time:
		p.Change = DiffMetadata
	default:
		return
	}
	p.Path = d.here()
	d.out.Paths = append(d.out.Paths, p)
}

func (d *differ) sameMeta(f, g *File) bool {
	return f.Mode == g.Mode && f.UID == g.UID && f.GID == g.GID &&
		d.a.Tree.attrs[f.attrs] == d.b.Tree.attrs[g.attrs]
}

func (d *differ) sameContent(f, g *File) bool {
	if f.Unit < 0 || g.Unit < 0 {
		return f.Unit == g.Unit
	}
	u, v := &d.a.Units[f.Unit], &d.b.Units[g.Unit]
	return u.Bytes == v.Bytes && u.Content == v.Content
}

// by returns the instruction that a file comes from.
func (d *differ) by(r *Report, f *File) int {
	layer := f.Layer
	if f.Unit >= 0 {
		layer = r.Units[f.Unit].Layer
	}
	return r.Layers[layer].Instruction
}

// once returns the size of f's unit, or 0 if it was already counted (seen).
func once(r *Report, f *File, seen []bool) int64 {
	if f.Unit < 0 || seen[f.Unit] {
		return 0
	}
	seen[f.Unit] = true
	return r.Units[f.Unit].Bytes
}

// children walks two lists that are sorted by name.
func (d *differ) children(n, m *Node) {
	x, y := n.child, m.child
	for x != 0 || y != 0 {
		var a, b *Node
		if x != 0 {
			a = &d.a.Tree.nodes[x]
		}
		if y != 0 {
			b = &d.b.Tree.nodes[y]
		}
		if a != nil && b != nil {
			switch c := strings.Compare(a.Name, b.Name); {
			case c < 0:
				b = nil
			case c > 0:
				a = nil
			}
		}
		name := ""
		if a != nil {
			name, x = a.Name, a.next
		}
		if b != nil {
			name, y = b.Name, b.next
		}
		d.path = append(d.path, name)
		d.node(a, b)
		d.path = d.path[:len(d.path)-1]
	}
}

// whole adds a subtree that only one of the images has.
func (d *differ) whole(r *Report, n *Node, change string, seen []bool) {
	p := PathDiff{Path: d.here(), Change: change}
	var bytes int64
	by := map[int]int64{}
	var add func(*Node)
	add = func(n *Node) {
		f := final(r, n)
		if f == nil {
			return
		}
		size := once(r, f, seen)
		bytes += size
		by[d.by(r, f)] += size
		if f.Type != Dir {
			p.Files++
		}
		for c := range r.Tree.Children(n) {
			add(c)
		}
	}
	add(n)
	if final(r, n).Type == Dir {
		p.Path += "/"
	}
	p.BytesA, p.BytesB = bytes, 0
	if change == DiffAdded {
		p.BytesA, p.BytesB = 0, bytes
	}
	p.By = -1
	for i, size := range by {
		if p.By < 0 || size > by[p.By] || size == by[p.By] && i < p.By {
			p.By = i
		}
	}
	d.out.Paths = append(d.out.Paths, p)
}

// WriteText writes the comparison for a terminal.
func (c *Comparison) WriteText(w io.Writer, o TextOptions) error {
	o = o.orDefaults(20)
	p := &printer{w: w}
	p.printf("%-12s %10s %10s %10s\n", "", "A", "B", "CHANGE")
	row := func(name string, a, b int64) {
		p.printf("%-12s %10s %10s %10s\n", name, units.Size(a), units.Size(b), change(b-a))
	}
	row("content", c.A.Bytes, c.B.Bytes)
	row("live", c.A.Live, c.B.Live)
	row("dead", c.A.Dead, c.B.Dead)
	row("compressed", c.A.Compressed, c.B.Compressed)
	p.printf("%-12s %10d %10d %+10d\n\n", "layers", c.A.Layers, c.B.Layers, c.B.Layers-c.A.Layers)
	c.textInstructions(p, o)
	if len(c.Paths) == 0 {
		p.printf("the files are the same\n")
	}
	for i := range c.Paths {
		d := &c.Paths[i]
		if i == o.Top {
			p.printf("and %d more\n", len(c.Paths)-i)
			break
		}
		files := ""
		if d.Files > 1 {
			files = " (" + plural(d.Files, "file") + ")"
		}
		p.printf("%10s  %-8s  %s%s\n", change(d.BytesB-d.BytesA), d.Change,
			Printable(d.Path), files)
	}
	return p.err
}

func (c *Comparison) textInstructions(p *printer, o TextOptions) {
	some := false
	for _, d := range c.Instructions {
		if d.Change == DiffSame {
			continue
		}
		if !some {
			p.printf("%10s %10s %10s  INSTRUCTION\n", "A", "B", "CHANGE")
			some = true
		}
		size := func(i int, n int64) string {
			if i < 0 {
				return "-"
			}
			return units.Size(n)
		}
		mark := map[string]string{DiffAdded: "+ ", DiffRemoved: "- ", DiffRebuilt: "= ",
			DiffChanged: "~ "}[d.Change]
		text := shorten(Printable(cmp.Or(d.TextB, d.TextA)), max(20, o.Width-38))
		p.printf("%10s %10s %10s  %s%s\n", size(d.A, d.BytesA), size(d.B, d.BytesB),
			change(d.BytesB-d.BytesA), mark, text)
		if d.Change == DiffChanged {
			p.printf("%10s %10s %10s    was %s\n", "", "", "",
				shorten(Printable(d.TextA), max(20, o.Width-42)))
		}
	}
	if some {
		p.printf("(+ new, - gone, = the same instruction with another layer, ~ another text)\n\n")
	}
}

// change formats a number of bytes with its sign.
func change(n int64) string {
	switch {
	case n > 0:
		return "+" + units.Size(n)
	case n < 0:
		return "-" + units.Size(-n)
	}
	return "0B"
}
