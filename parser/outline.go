package parser

import (
	"cmp"
	"slices"

	"github.com/layerbuild/layerbuild/internal/sorting"
	bkparser "github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Outline lists what a user can give to a build of a stage.
type Outline struct {
	// Name and Description are those of the stage; see Target.
	Name, Description string
	// Args are the build arguments.
	Args []Parameter
	// Secrets and SSH are the secrets and agents that RUNs mount.
	Secrets, SSH []Parameter
	// Caches are the cache mounts of RUNs.
	Caches []Parameter
}

// Parameter is an entry of an Outline.
type Parameter struct {
	Name string
	// Description is the comment above the ARG that starts with the name.
	Description string
	// Value is the value of an argument in this build.
	Value string
	// Required is true for a secret or an agent without which the RUN fails.
	Required bool
	// Range is the position of the ARG, or of the first RUN that mounts it.
	Range Range
}

// parameters are those of the instructions of one stage.
type parameters struct {
	args   []Parameter
	mounts []mountParameter
	// inherited are the names of ARGs with the value of a global argument.
	inherited []string
}

// mountParameter is a mount of a RUN.
type mountParameter struct {
	Parameter
	of MountType
}

// globalArg is an ARG before the first FROM.
type globalArg struct {
	Parameter
	uses map[string]struct{} // the arguments in its default value
}

// Outline returns what can be set for the target: for its stage, and for those that it needs. Of
// several entries of one name it has that of the stage that is nearest to the target. All stages
// must have been walked to the end before; see Check.
//
// The arguments of a stage are those that its FROM uses, those that it declares, and the global
// ones in the default values of these. An automatic argument, such as TARGETARCH, has an entry only
// if an ARG gives it a default value.
func (p *Plan) Outline() Outline {
	o := Outline{Name: p.Target.Name, Description: p.file.targets[p.Target.Index].Description}
	c := collector{plan: p, stages: map[*Stage]bool{}, found: map[foundParameter]bool{}, to: &o}
	c.stage(p.Target)
	for _, list := range [][]Parameter{o.Args, o.Secrets, o.SSH, o.Caches} {
		sorting.StableFunc(list, func(a, b Parameter) int {
			return cmp.Compare(a.Range.Start, b.Range.Start)
		})
	}
	return o
}

// collector collects the parameters of stages.
type collector struct {
	plan   *Plan
	stages map[*Stage]bool
	found  map[foundParameter]bool
	to     *Outline
}

type foundParameter struct {
	list *[]Parameter
	name string
}

// add adds a parameter to a list that has no other of its name.
func (c *collector) add(list *[]Parameter, p *Parameter) {
	if key := (foundParameter{list, p.Name}); !c.found[key] {
		c.found[key] = true
		*list = append(*list, *p)
	}
}

// stage adds the parameters of a stage, of the stage on which it is based, and of the others that
// it needs.
func (c *collector) stage(s *Stage) {
	if c.stages[s] {
		return
	}
	c.stages[s] = true
	if final := s.final.Load(); final != nil {
		c.stageArgs(s, &final.own)
		lists := map[MountType]*[]Parameter{MountSecret: &c.to.Secrets, MountSSH: &c.to.SSH,
			MountCache: &c.to.Caches}
		for i := range final.own.mounts {
			m := &final.own.mounts[i]
			c.add(lists[m.of], &m.Parameter)
		}
	}
	if in, ok := s.Base.(StageInput); ok {
		c.stage(in.Stage)
	}
	for _, need := range s.Needs {
		c.stage(need)
	}
}

// stageArgs adds the arguments that a stage uses.
func (c *collector) stageArgs(s *Stage, own *parameters) {
	known := map[string]*globalArg{}
	for _, a := range c.plan.globalArgs {
		known[a.Name] = a
	}
	used := slices.Clone(own.inherited)
	for i := range own.args {
		a := &own.args[i]
		known[a.Name] = &globalArg{Parameter: *a}
		used = append(used, a.Name)
	}
	for _, l := range s.Lineage() {
		used = append(used, l.fromArgs...)
	}
	seen := map[string]bool{}
	for len(used) > 0 {
		name := used[0]
		used = used[1:]
		if a := known[name]; a != nil && !seen[name] {
			seen[name] = true
			c.add(&c.to.Args, &a.Parameter)
			used = append(used, sortedKeys(a.uses)...)
		}
	}
}

// mount records a mount of a RUN.
func (own *parameters) mount(m *RunMount, loc []bkparser.Range) {
	switch m.Type {
	case MountSecret, MountSSH, MountCache:
		own.mounts = append(own.mounts, mountParameter{Parameter{Name: m.ID,
			Required: m.Required && m.Type != MountCache, Range: rangeOf(loc)}, m.Type})
	}
}
