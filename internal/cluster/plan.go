package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Plan has the nodes of a build, which may be one for several platforms.
type Plan struct {
	// Nodes has each node after those that it needs.
	Nodes []Node
	// Keys tell this plan from one of other inputs with the same command lines.
	Keys []string
	// Notes are conditions for the machines on which the nodes run, a sentence each.
	Notes []string
	// Image is the image with layerbuild for the pods of Kubernetes.
	Image string
	// Dir is the working directory of the jobs of Slurm.
	Dir string
	// Claim is the volume claim with the context, which is mounted at ClaimPath; "": there is none.
	Claim string
}

// ClaimPath is the directory of the context's volume in a pod.
const ClaimPath = "/source"

// Add adds the nodes of a graph. suffix tells their names from those of other graphs; "" if there
// are no others.
func (p *Plan) Add(nodes []Node, suffix string) {
	first := len(p.Nodes)
	for _, n := range nodes {
		n.Name = p.unused(n.Name, suffix)
		needs := make([]int, len(n.Needs))
		for i, at := range n.Needs {
			needs[i] = first + at
		}
		n.Needs = needs
		p.Nodes = append(p.Nodes, n)
	}
}

// unused returns the name of a node with a suffix, which no other node has.
func (p *Plan) unused(name, suffix string) string {
	if suffix == "" {
		return name
	}
	unique := name + "-" + cut(Label(suffix), maxSuffix)
	for k := 2; slices.ContainsFunc(p.Nodes, func(n Node) bool { return n.Name == unique }); k++ {
		unique = fmt.Sprintf("%s-%s%d", name, cut(Label(suffix), maxSuffix-2), k)
	}
	return unique
}

// Join adds the node that joins the images of all platforms.
func (p *Plan) Join(args []string) {
	n := Node{Name: "index", Args: args, Known: true}
	for i, of := range p.Nodes {
		if of.Target == "" {
			n.Needs, n.Level = append(n.Needs, i), max(n.Level, of.Level+1)
			n.Platform = p.Nodes[n.Needs[0]].Platform
		}
	}
	p.Nodes = append(p.Nodes, n)
}

// ID returns a name for what the plan builds and how: eight hexadecimal digits.
func (p *Plan) ID() string {
	h := sha256.New()
	for _, n := range p.Nodes {
		fmt.Fprintf(h, "%q %q %v\n", n.Name, n.Args, n.Needs)
	}
	fmt.Fprintf(h, "%q %q %q", p.Keys, p.Image, p.Claim)
	return hex.EncodeToString(h.Sum(nil)[:4])
}

// Check returns an error for a command line that the formats of engines cannot have: YAML and JSON
// have only characters, and arguments are bytes.
func (p *Plan) Check() error {
	for _, n := range p.Nodes {
		for _, arg := range n.Args {
			if !utf8.ValidString(arg) {
				return fmt.Errorf("%q is not UTF-8, which the output of a plan must be", arg)
			}
		}
	}
	return nil
}

// heading writes the comment at the beginning of the output. Lines are those of the format.
func (p *Plan) heading(b *strings.Builder, lines ...string) {
	first := "Made by layerbuild plan. The nodes share only the cache and can be repeated."
	for _, line := range slices.Concat([]string{first}, lines, p.Notes) {
		b.WriteString(strings.TrimRight("# "+comment(line), " ") + "\n")
	}
}

// architecture returns the architecture of a node.
func (n *Node) architecture() string {
	_, rest, _ := strings.Cut(n.Platform, "/")
	arch, _, _ := strings.Cut(rest, "/")
	return arch
}
