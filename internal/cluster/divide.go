package cluster

import (
	"slices"
	"time"
)

// Stage is a stage of a build for one platform.
type Stage struct {
	// Name is shown. Target is the value of --target.
	Name, Target string
	// Needs are the indexes of the stages whose results are needed: those of the base and of steps
	// that have no result in the cache.
	Needs []int
	// Steps is the number of steps that have no result in the cache, and Cost the time that they
	// took when they last ran. Known is set if that of all of them is known.
	Steps int
	Cost  time.Duration
	Known bool
}

// Graph has the stages of a build for one platform.
type Graph struct {
	Platform string
	Stages   []Stage
	Final    int // the index of the stage that becomes the image
}

// Node is a build of a stage, with the stages that it needs and that have no node of their own.
type Node struct {
	Name     string
	Platform string
	Target   string // "" for the node of the image
	Stages   []string
	// Needs are the indexes of the nodes that must have ended before this one begins. Level is the
	// length of the longest path to it: nodes of one level can run at the same time.
	Needs []int
	Level int
	Cost  time.Duration
	Known bool // the cost is known
	// Args is the command line of the node.
	Args []string
}

// Divide returns the nodes of a graph, each after those that it needs. The last one is that of the
// image. A stage gets a node if two other stages need it, which do not need each other, or if it
// can run while another one does. A stage whose cost is known and less than least gets none.
func Divide(g Graph, least time.Duration) []Node {
	d := &divider{g: g, own: make([]bool, len(g.Stages))}
	for _, i := range d.reach(g.Final, func(int) bool { return true }) {
		d.own[i] = i == g.Final || g.Stages[i].Steps > 0
	}
	d.own[g.Final] = true
	for {
		for d.joinChain() {
		}
		if !d.dropCheapest(least) {
			return d.nodes()
		}
	}
}

// divider chooses the stages that have nodes.
type divider struct {
	g   Graph
	own []bool // by the index of a stage: it has a node
}

// reach returns the stages to which the needs of a stage lead, each once, those that a stage needs
// before it. It does not go on from stages for which through returns false.
func (d *divider) reach(from int, through func(int) bool) []int {
	var list []int
	seen := make([]bool, len(d.g.Stages))
	var walk func(int)
	walk = func(i int) {
		for _, n := range d.g.Stages[i].Needs {
			if seen[n] {
				continue
			}
			seen[n] = true
			if through(n) {
				walk(n)
			}
			list = append(list, n)
		}
	}
	walk(from)
	return list
}

// parts returns the stages without a node that the node of a stage builds, and the nodes whose
// results it uses, as indexes of stages. What those nodes build is in the cache by then.
func (d *divider) parts(i int) (with, needs []int) {
	for _, n := range d.reach(i, func(n int) bool { return !d.own[n] }) {
		if d.own[n] {
			needs = append(needs, n)
		} else {
			with = append(with, n)
		}
	}
	return d.without(with, needs), needs
}

// without returns the stages of a list to which none of other nodes leads.
func (d *divider) without(list, other []int) []int {
	return slices.DeleteFunc(slices.Clone(list), func(n int) bool {
		return slices.ContainsFunc(other, func(m int) bool {
			return m != n && slices.Contains(d.reach(m, func(int) bool { return true }), n)
		})
	})
}

// waits returns the nodes for which a node waits: of those that it needs the ones that no other one
// needs.
func (d *divider) waits(i int) []int {
	_, needs := d.parts(i)
	return d.without(needs, needs)
}

// joinChain takes the node from a stage that only one other waits for, and for which that one waits
// alone. It reports whether there was such a stage.
func (d *divider) joinChain() bool {
	users := map[int]int{}
	var alone []int
	for i, own := range d.own {
		if !own {
			continue
		}
		waits := d.waits(i)
		for _, n := range waits {
			users[n]++
		}
		if len(waits) == 1 {
			alone = append(alone, waits[0])
		}
	}
	for _, n := range alone {
		if users[n] == 1 {
			d.own[n] = false
			return true
		}
	}
	return false
}

// dropCheapest takes the node from the stage whose node costs least, if that is less than least,
// and reports whether there was one.
func (d *divider) dropCheapest(least time.Duration) bool {
	cheapest, cost := -1, least
	for i, own := range d.own {
		if c, known := d.cost(i); own && i != d.g.Final && known && c < cost {
			cheapest, cost = i, c
		}
	}
	if cheapest >= 0 {
		d.own[cheapest] = false
	}
	return cheapest >= 0
}

// cost returns the cost of the node of a stage, and reports whether it is known.
func (d *divider) cost(i int) (cost time.Duration, known bool) {
	with, _ := d.parts(i)
	known = true
	for _, n := range append(with, i) {
		s := &d.g.Stages[n]
		cost, known = cost+s.Cost, known && (s.Known || s.Steps == 0)
	}
	return cost, known
}

// nodes returns the nodes.
func (d *divider) nodes() []Node {
	var list []Node
	at := map[int]int{} // by the index of a stage: that of its node
	all := func(int) bool { return true }
	for _, i := range append(d.reach(d.g.Final, all), d.g.Final) {
		if !d.own[i] {
			continue
		}
		s := &d.g.Stages[i]
		n := Node{Platform: d.g.Platform, Target: s.Target}
		n.Name = nodeName(i, s.Name)
		if i == d.g.Final {
			n.Name, n.Target = "image", ""
		}
		with, _ := d.parts(i)
		for _, w := range with {
			if d.g.Stages[w].Steps > 0 {
				n.Stages = append(n.Stages, d.g.Stages[w].Name)
			}
		}
		n.Stages = append(n.Stages, s.Name)
		n.Cost, n.Known = d.cost(i)
		for _, w := range d.waits(i) {
			n.Needs = append(n.Needs, at[w])
			n.Level = max(n.Level, list[at[w]].Level+1)
		}
		slices.Sort(n.Needs)
		at[i] = len(list)
		list = append(list, n)
	}
	return list
}

// Critical returns the time of the slowest path through nodes, and that of all nodes together.
// known is set if all costs are known.
func Critical(nodes []Node) (path, sum time.Duration, known bool) {
	ends := make([]time.Duration, len(nodes))
	known = true
	for i, n := range nodes {
		for _, w := range n.Needs {
			ends[i] = max(ends[i], ends[w])
		}
		ends[i] += n.Cost
		path, sum, known = max(path, ends[i]), sum+n.Cost, known && n.Known
	}
	return path, sum, known
}

// Waves returns the indexes of nodes by their levels.
func Waves(nodes []Node) [][]int {
	var waves [][]int
	for i, n := range nodes {
		for len(waves) <= n.Level {
			waves = append(waves, nil)
		}
		waves[n.Level] = append(waves[n.Level], i)
	}
	return waves
}
