package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// parse reads a graph: a line "NAME COST: NEEDS" for each stage. The last one is the final stage.
// COST may also be cached, or ? if it is not known.
func parse(t *testing.T, text string) Graph {
	t.Helper()
	g := Graph{Platform: "linux/amd64"}
	at := map[string]int{}
	for line := range strings.Lines(strings.TrimSpace(text)) {
		head, needs, ok := strings.Cut(strings.TrimSpace(line), ":")
		words := strings.Fields(head)
		if !ok || len(words) != 2 {
			t.Fatalf("line %q", line)
		}
		s := Stage{Name: words[0], Target: words[0], Steps: 1}
		switch words[1] {
		case "cached":
			s.Steps, s.Known = 0, true
		case "?":
		default:
			cost, err := time.ParseDuration(words[1])
			if err != nil {
				t.Fatal(err)
			}
			s.Cost, s.Known = cost, true
		}
		for _, name := range strings.Fields(needs) {
			s.Needs = append(s.Needs, at[name])
		}
		at[s.Name] = len(g.Stages)
		g.Final = len(g.Stages)
		g.Stages = append(g.Stages, s)
	}
	return g
}

func format(nodes []Node) string {
	var b strings.Builder
	for _, n := range nodes {
		fmt.Fprintf(&b, "%d %s (%s)", n.Level, n.Name, strings.Join(n.Stages, " "))
		for _, i := range n.Needs {
			b.WriteString(" " + nodes[i].Name)
		}
		if n.Known {
			fmt.Fprintf(&b, " %v", n.Cost)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestDivide(t *testing.T) {
	for _, tt := range []struct {
		name, graph string
		least       time.Duration
		want        string
	}{
		{"one stage", "a 1s:", 0, "0 image (a) 1s\n"},
		{"chain", "a 1s:\nb 2s: a\nc 3s: b", 0, "0 image (a b c) 6s\n"},
		{"chain that a later stage also uses", "a 1s:\nb 2s: a\nc 3s: b a", 0,
			"0 image (a b c) 6s\n"},
		{"two beside each other", "a 1s:\nb 2s:\nc 3s: a b", 0,
			"0 s0-a (a) 1s\n0 s1-b (b) 2s\n1 image (c) s0-a s1-b 3s\n"},
		{"diamond", "base 1s:\nb 2s: base\nc ?: base\nd 1s: b c", 0,
			"0 s0-base (base) 1s\n1 s1-b (b) s0-base 2s\n1 s2-c (c) s0-base\n" +
				"2 image (d) s1-b s2-c 1s\n"},
		{"chains beside each other", "a 1s:\nb 2s: a\nc 4s:\nd 8s: c\ne 1s: b d a", 0,
			"0 s1-b (a b) 3s\n0 s3-d (c d) 12s\n1 image (e) s1-b s3-d 1s\n"},
		{"a cached stage", "a cached:\nb 2s: a\nc 4s: a\nd 1s: b c", 0,
			"0 s1-b (b) 2s\n0 s2-c (c) 4s\n1 image (d) s1-b s2-c 1s\n"},
		{"a stage without steps", "a 1s:\nb cached: a\nc 2s: b\nd 3s: b\ne 1s: c d", 0,
			"0 s0-a (a) 1s\n1 s2-c (c) s0-a 2s\n1 s3-d (d) s0-a 3s\n2 image (e) s2-c s3-d 1s\n"},
		{"all cached", "a cached:\nb cached:", 0, "0 image (b) 0s\n"},
		{"not needed", "a 1s:\nb 2s:\nc 3s: a", 0, "0 image (a c) 4s\n"},
		{"cheap", "base 1s:\nb 20s: base\nc 30s: base\nd 1s: b c", 5 * time.Second,
			"0 s1-b (base b) 21s\n0 s2-c (base c) 31s\n1 image (d) s1-b s2-c 1s\n"},
		{"of two one is cheap", "a 1s:\nb 20s:\nc 1s: a b", 5 * time.Second,
			"0 image (a b c) 22s\n"},
		{"a chain that is worth it", "a 4s:\nb 4s: a\nc 20s:\nd 1s: b c", 5 * time.Second,
			"0 s1-b (a b) 8s\n0 s2-c (c) 20s\n1 image (d) s1-b s2-c 1s\n"},
		{"unknown is not cheap", "a ?:\nb 20s:\nc 1s: a b", time.Hour, "0 image (a b c)\n"},
		{"two unknown", "a ?:\nb ?:\nc 1s: a b", time.Hour,
			"0 s0-a (a)\n0 s1-b (b)\n1 image (c) s0-a s1-b 1s\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := format(Divide(parse(t, tt.graph), tt.least)); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

// FuzzDivide checks that the nodes of any graph build each needed stage, and that no node begins
// before one that it needs.
func FuzzDivide(f *testing.F) {
	f.Add([]byte{1, 0, 2, 1, 3, 3, 4, 6}, int64(3))
	f.Add([]byte{9, 0, 9, 1, 9, 1, 9, 1, 9, 14}, int64(0))
	f.Fuzz(func(t *testing.T, data []byte, least int64) {
		var g Graph
		for i := 0; i+1 < len(data) && len(g.Stages) < 12; i += 2 {
			n := len(g.Stages)
			s := Stage{Name: fmt.Sprint(n), Target: fmt.Sprint(n), Steps: int(data[i] % 3),
				Known: data[i]%5 > 0, Cost: time.Duration(data[i])}
			for k := range min(n, 8) {
				if data[i+1]>>k&1 == 1 {
					s.Needs = append(s.Needs, n-1-k)
				}
			}
			g.Stages = append(g.Stages, s)
		}
		if len(g.Stages) == 0 {
			return
		}
		g.Final = len(g.Stages) - 1
		nodes := Divide(g, time.Duration(least))
		built := map[string]bool{}
		for i, n := range nodes {
			for _, w := range n.Needs {
				if w >= i || nodes[w].Level >= n.Level {
					t.Fatalf("node %s needs %s:\n%s", n.Name, nodes[w].Name, format(nodes))
				}
			}
			for _, s := range n.Stages {
				built[s] = true
			}
		}
		if nodes[len(nodes)-1].Name != "image" {
			t.Fatalf("the last node is not the image:\n%s", format(nodes))
		}
		d := &divider{g: g, own: make([]bool, len(g.Stages))}
		for _, i := range d.reach(g.Final, func(int) bool { return true }) {
			if g.Stages[i].Steps > 0 && !built[g.Stages[i].Name] {
				t.Fatalf("no node builds stage %d:\n%s", i, format(nodes))
			}
		}
	})
}
