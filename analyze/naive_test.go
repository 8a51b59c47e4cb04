package analyze

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// naive counts an image's waste with a plain algorithm: it has a map of paths and, for each layer,
// compares the files before and after. It shares no code with the builder.
type naive struct {
	now   map[string]*naiveFile
	units []*naiveUnit
	live  map[string]*naiveFile // before the layer
}

type naiveFile struct {
	item item // the file's own item, or for a hard link the item of its target
	unit *naiveUnit
}

type naiveUnit struct {
	bytes   int64
	creator int
	killer  int
	reasons []Reason // each of these is correct
}

func above(p string) (list []string) {
	for p = path.Dir(p); p != "."; p = path.Dir(p) {
		list = append(list, p)
	}
	return list
}

func inside(p, d string) bool { return strings.HasPrefix(p, d+"/") }

func (n *naive) layer(k int, items []item) {
	n.live = map[string]*naiveFile{}
	for p, f := range n.now {
		n.live[p] = f
	}
	for _, i := range items {
		for p := range n.now {
			if i.kind == 'w' && (p == i.path || inside(p, i.path)) ||
				i.kind == 'o' && inside(p, i.path) {
				delete(n.now, p)
			}
		}
	}
	first := len(n.units)
	for _, i := range items {
		if i.kind == 'w' || i.kind == 'o' {
			continue
		}
		f := &naiveFile{item: i}
		switch i.kind {
		case 'f':
			f.unit = &naiveUnit{bytes: int64(len(i.data)), creator: k, killer: -1}
			n.units = append(n.units, f.unit)
		case 'l':
			*f = *n.now[i.data]
		}
		for _, d := range above(i.path) {
			if old := n.now[d]; old == nil || old.item.kind != 'd' {
				n.now[d] = &naiveFile{item: dir(d)}
			}
		}
		if i.kind != 'd' {
			for p := range n.now {
				if inside(p, i.path) {
					delete(n.now, p)
				}
			}
		}
		n.now[i.path] = f
	}
	there := map[*naiveUnit]bool{}
	for _, f := range n.now {
		there[f.unit] = true
	}
	for p, f := range n.live {
		if f.unit != nil && !there[f.unit] {
			f.unit.killer = k
			f.unit.reasons = append(f.unit.reasons, n.why(p, f, items)...)
		}
	}
	for _, u := range n.units[first:] {
		if !there[u] {
			u.killer = k
			u.reasons = []Reason{Overwritten, RewrittenSame, RewrittenTime,
				RewrittenMetadata, DirectoryReplaced}
		}
	}
}

// why returns the reasons for which a layer may have removed the file of a path.
func (n *naive) why(p string, f *naiveFile, items []item) (reasons []Reason) {
	for _, i := range items {
		if i.path == p && strings.IndexByte("flp", i.kind) >= 0 {
			is := i
			for i.kind == 'l' && is.kind == 'l' {
				is = n.now[p].item
			}
			switch {
			case is.kind != 'f' || is.data != f.item.data:
				reasons = append(reasons, Overwritten)
			case is.mode != f.item.mode || is.uid != f.item.uid || is.xattr != f.item.xattr:
				reasons = append(reasons, RewrittenMetadata)
			case is.time != f.item.time:
				reasons = append(reasons, RewrittenTime)
			default:
				reasons = append(reasons, RewrittenSame)
			}
		}
	}
	if reasons != nil {
		return reasons // the path's own entry has the most exact reason
	}
	for _, i := range items {
		switch {
		case i.kind == 'w' && (i.path == p || inside(p, i.path)):
			reasons = append(reasons, Deleted)
		case i.kind == 'o' && inside(p, i.path):
			reasons = append(reasons, HiddenByOpaque)
		case strings.IndexByte("flp", i.kind) >= 0 && inside(p, i.path):
			reasons = append(reasons, DirectoryReplaced)
		case i.kind == 'd' && i.path == p || inside(i.path, p) && i.kind != 'w' && i.kind != 'o':
			reasons = append(reasons, Overwritten)
		}
	}
	return reasons
}

var names = []string{"a", "b", "c"}

// drawImage draws layers that a tool could have written: sorted, with hard links only to existing
// files.
func drawImage(t *rapid.T) [][]item {
	tree := &naive{now: map[string]*naiveFile{}}
	var layers [][]item
	for k := range rapid.IntRange(1, 5).Draw(t, "layers") {
		var items []item
		taken := map[string]byte{}
		for range rapid.IntRange(0, 8).Draw(t, "entries") {
			parts := rapid.SliceOfN(rapid.SampledFrom(names), 1, 3).Draw(t, "path")
			i := item{path: strings.Join(parts, "/"),
				kind: rapid.SampledFrom([]byte("fffffddlpwwwo")).Draw(t, "kind")}
			switch i.kind {
			case 'f':
				i.data = rapid.SampledFrom([]string{"", "x", "xx", "yy", "zzzzz"}).Draw(t, "data")
				i.mode = rapid.SampledFrom([]int64{0o644, 0o755}).Draw(t, "mode")
				i.uid = rapid.SampledFrom([]int{0, 1}).Draw(t, "uid")
				i.time = rapid.SampledFrom([]int64{0, 1}).Draw(t, "time")
			case 'd':
				i.mode = 0o755
			case 'l':
				i.data = rapid.SampledFrom(names).Draw(t, "target")
			}
			if !fits(taken, i) {
				continue
			}
			if i.kind != 'w' && i.kind != 'o' {
				taken[i.path] = i.kind
			} else if i.kind == 'w' {
				taken["w"+i.path] = 'w'
			}
			items = append(items, i)
		}
		items = sorted(t, items)
		tree.layer(k, items)
		layers = append(layers, items)
	}
	return layers
}

// fits reports whether a layer with the entries in taken can also have i: each path occurs once,
// and only directories have entries below them.
func fits(taken map[string]byte, i item) bool {
	if i.kind == 'w' || i.kind == 'o' {
		if i.kind == 'o' && taken[i.path] != 'd' && taken[i.path] != 0 {
			return false
		}
		for _, d := range above(i.path) {
			if k := taken[d]; k != 0 && k != 'd' {
				return false
			}
		}
		return taken["w"+i.path] == 0 || i.kind == 'o'
	}
	if taken[i.path] != 0 {
		return false
	}
	if i.kind == 'l' && (taken[i.data] != 'f' || inside(i.path, i.data)) {
		return false
	}
	for _, d := range above(i.path) {
		if k := taken[d]; k != 0 && k != 'd' {
			return false
		}
		if i.kind != 'd' {
			taken[d] = 'd'
		}
	}
	if i.kind != 'd' {
		for p := range taken {
			if inside(p, i.path) {
				return false
			}
		}
	}
	return true
}

// sorted puts entries in an order in which they can be unpacked: marks anywhere, and hard links
// last.
func sorted(t *rapid.T, items []item) []item {
	items = rapid.Permutation(items).Draw(t, "order")
	rank := func(i item) int {
		switch i.kind {
		case 'd':
			return strings.Count(i.path, "/")
		case 'l':
			return 100
		}
		return 50
	}
	var marks, rest []item
	for _, i := range items {
		if i.kind == 'w' || i.kind == 'o' {
			marks = append(marks, i)
		} else {
			rest = append(rest, i)
		}
	}
	slices.SortStableFunc(rest, func(a, b item) int { return rank(a) - rank(b) })
	cut := rapid.IntRange(0, len(marks)).Draw(t, "marks first")
	return slices.Concat(marks[:cut], rest, marks[cut:])
}

// TestSums compares the sums of random images with those of the naive count.
func TestSums(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		layers := drawImage(rt)
		base := rapid.IntRange(0, len(layers)).Draw(rt, "base")
		want := &naive{now: map[string]*naiveFile{}}
		var packed [][]byte
		for k, items := range layers {
			want.layer(k, items)
			packed = append(packed, pack(t, items))
		}
		r := analyzed(rt, base, packed...)
		compare(rt, r, want)
		invariants(rt, r)
	})
}

func compare(t *rapid.T, r *Report, want *naive) {
	if len(r.Warnings) > 0 {
		t.Fatal(r.Warnings)
	}
	if len(r.Units) != len(want.units) {
		t.Fatalf("%d units, want %d", len(r.Units), len(want.units))
	}
	for i, w := range want.units {
		u := r.Units[i]
		if u.Bytes != w.bytes || int(u.Layer) != w.creator || int(u.Killer) != w.killer {
			t.Fatalf("unit %s: %d bytes %d>%d, want %d %d>%d", r.Tree.Path(r.Tree.Node(u.Node)),
				u.Bytes, u.Layer, u.Killer, w.bytes, w.creator, w.killer)
		}
		if w.killer >= 0 && !slices.Contains(w.reasons, u.Reason) ||
			w.killer < 0 && u.Reason != Live {
			t.Fatalf("unit %s of layer %d: %s, want one of %v", r.Tree.Path(r.Tree.Node(u.Node)),
				u.Layer, u.Reason, w.reasons)
		}
	}
	var have, expected []string
	var list func(n *Node)
	list = func(n *Node) {
		for c := range r.Tree.Children(n) {
			if f := r.Tree.At(c, len(r.Layers)-1); f != nil {
				have = append(have, fmt.Sprintf("%s %s %d", r.Tree.Path(c), f.Type, f.Size))
				list(c)
			}
		}
	}
	list(r.Tree.Root())
	for p, f := range want.now {
		kind := map[byte]Type{'f': Regular, 'd': Dir, 'p': Fifo}[f.item.kind]
		bytes := int64(0)
		if kind == Regular {
			bytes = f.unit.bytes
		}
		expected = append(expected, fmt.Sprintf("/%s %s %d", p, kind, bytes))
	}
	slices.Sort(have)
	slices.Sort(expected)
	if !slices.Equal(have, expected) {
		t.Fatalf("final tree\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(expected, "\n"))
	}
}

// invariants checks conditions that hold for every report.
func invariants(t *rapid.T, r *Report) {
	var total, live, dead, creators, killers, reasons, findings, owners int64
	for _, u := range r.Units {
		total += u.Bytes
		if u.Dead() != (u.Killer >= 0) || u.Dead() != (u.Reason != Live) {
			t.Fatalf("unit %+v is half dead", u)
		}
		if u.Dead() {
			dead += u.Bytes
		} else {
			live += u.Bytes
		}
	}
	for _, l := range r.Layers {
		if l.Bytes != l.Live+l.Dead {
			t.Fatalf("layer %+v", l)
		}
		creators += l.Dead
		killers += l.Killed
	}
	for _, s := range r.Reasons {
		reasons += s.Bytes
	}
	for _, f := range r.Findings {
		findings += f.Bytes
	}
	for _, o := range r.Owners {
		owners += o.Dead
	}
	if total != live+dead || r.Total.Bytes != total || r.Total.Live != live ||
		r.Total.Dead != dead {
		t.Fatalf("total %+v, want %d = %d + %d", r.Total, total, live, dead)
	}
	for _, sum := range []int64{creators, killers, reasons, findings, owners} {
		if sum != dead {
			t.Fatalf(
				"dead %d: by creator %d, by killer %d, by reason %d, by finding %d, by owner %d",
				dead, creators, killers, reasons, findings, owners)
		}
	}
	final := r.Tree.Final(r.Units)
	if got := final.Bytes(r.Tree.Root()); got != live {
		t.Fatalf("the final view has %d bytes, live are %d", got, live)
	}
	for i, l := range r.Layers {
		v := r.Tree.Layer(i, r.Units)
		if v.Bytes(r.Tree.Root()) > l.Bytes || v.Dead(r.Tree.Root()) > l.Dead {
			t.Fatalf("layer %d's view has %d bytes, %d dead; the layer %d, %d", i,
				v.Bytes(r.Tree.Root()), v.Dead(r.Tree.Root()), l.Bytes, l.Dead)
		}
	}
}
