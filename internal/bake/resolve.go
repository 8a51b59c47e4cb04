package bake

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/suggest"
)

// Definition has the targets of one command line, with all that they inherit.
type Definition struct {
	// Groups are the groups that were named, and the group default with what was named.
	Groups  map[string]*Group
	Targets map[string]*Target
}

// Resolve returns the targets with the given names, or of the groups of these names, which may be
// patterns, and the targets that these use as contexts. sets are values of --set.
func (c *Config) Resolve(names []string, sets []Override) (*Definition, error) {
	names, err := c.matchNames(names)
	if err != nil {
		return nil, err
	}
	r := &resolver{c: c, sets: map[string][]Override{},
		def: &Definition{Groups: map[string]*Group{}, Targets: map[string]*Target{}}}
	for _, o := range sets {
		for _, name := range o.Names {
			r.sets[name] = append(r.sets[name], o)
		}
	}
	for _, name := range names {
		if err := r.addNamed(name); err != nil {
			return nil, err
		}
	}
	r.addDefaultGroup(names)
	for _, name := range slices.Sorted(maps.Keys(r.def.Targets)) {
		if err := r.link(name, nil); err != nil {
			return nil, err
		}
	}
	return r.def, nil
}

// resolver resolves the targets of a command line.
type resolver struct {
	c    *Config
	sets map[string][]Override // by target
	def  *Definition
}

// matchNames replaces patterns with the names that match.
func (c *Config) matchNames(patterns []string) ([]string, error) {
	var names []string
	for _, p := range patterns {
		p = targetName(p)
		if !strings.ContainsAny(p, "*?[]") {
			names = append(names, p)
			continue
		}
		before := len(names)
		for _, name := range c.names() {
			if ok, err := path.Match(p, name); err != nil {
				return nil, fmt.Errorf("the pattern %q: %w", p, err)
			} else if ok {
				names = append(names, name)
			}
		}
		if len(names) == before {
			return nil, fmt.Errorf("no target matches %s (targets: %s)", p, describe(c.names()))
		}
	}
	return uniqueStrings(names), nil
}

// names returns the names of all groups and targets.
func (c *Config) names() []string {
	var names []string
	for _, g := range c.Groups {
		names = append(names, g.Name)
	}
	for _, t := range c.Targets {
		names = append(names, t.Name)
	}
	return uniqueStrings(names)
}

// unknown returns an error for a name that is not a target, nor a group if groups is set.
func (c *Config) unknown(what, name string, groups bool) error {
	var names []string
	for _, t := range c.Targets {
		names = append(names, t.Name)
	}
	if groups {
		names = c.names()
	}
	if near := suggest.Near(name, names); near != "" {
		return fmt.Errorf("there is no %s %s: did you mean %s?", what, name, near)
	}
	return fmt.Errorf("there is no %s %s (targets: %s)", what, name, describe(names))
}

// addNamed adds the target or all targets of the group with a name.
func (r *resolver) addNamed(name string) error {
	targets, groups := r.c.members(name, map[string]bool{})
	for _, name := range targets {
		if r.def.Targets[name] != nil {
			continue
		}
		t, err := r.c.resolve(name, r.sets)
		if err != nil {
			return err
		}
		r.def.Targets[name] = t
	}
	for _, name := range groups {
		g := *r.c.group(name)
		r.def.Groups[name] = &g
	}
	return nil
}

// members returns the targets of a group and of the groups in it, and these groups. A name that is
// not a group stands for a target.
func (c *Config) members(name string, visited map[string]bool) (targets, groups []string) {
	g := c.group(name)
	if g == nil {
		return []string{name}, nil
	}
	if visited[name] {
		return nil, nil
	}
	visited[name] = true
	groups = []string{name}
	for _, member := range g.Targets {
		t, g := c.members(member, visited)
		targets, groups = append(targets, t...), append(groups, g...)
	}
	return uniqueStrings(targets), uniqueStrings(groups)
}

// addDefaultGroup makes the group default: that of the files if it was named, with all other names
// of the command line.
func (r *resolver) addDefaultGroup(names []string) {
	g := r.def.Groups["default"]
	if g == nil {
		g = &Group{Name: "default"}
	}
	list := slices.Clone(g.Targets)
	for _, name := range names {
		if name != "default" || r.def.Groups["default"] == nil {
			list = append(list, name)
		}
	}
	if g.Targets = uniqueStrings(list); g.Targets == nil {
		g.Targets = []string{}
	}
	slices.Sort(g.Targets)
	r.def.Groups["default"] = g
}

// resolve returns a target with all that it inherits.
func (c *Config) resolve(name string, sets map[string][]Override) (*Target, error) {
	if c.target(name) == nil {
		return nil, c.unknown("target", name, true)
	}
	t, err := c.inherit(name, map[string]*Target{}, sets)
	if err != nil {
		return nil, err
	}
	t = t.clone()
	t.Inherits = nil
	if t.Context == nil {
		t.Context = pointer(".")
	}
	t.InCwd = strings.HasPrefix(*t.Context, "cwd://")
	t.Context = pointer(cleanContext(*t.Context))
	if t.Dockerfile == nil || *t.Dockerfile == "" {
		t.Dockerfile = pointer("Dockerfile")
	}
	return t, nil
}

// cleanContext returns the shortest form of the path of a context. Other places are not changed.
func cleanContext(where string) string {
	local, ok := strings.CutPrefix(where, "cwd://")
	if where == "-" || !ok && (strings.Contains(where, "://") || strings.HasPrefix(where, "git@") ||
		strings.HasPrefix(where, "github.com/")) {
		return where
	}
	return path.Clean(local)
}

func pointer(s string) *string { return &s }

// inherit returns a target merged with those that it inherits from; nil for one that inherits from
// itself, which has no effect.
func (c *Config) inherit(name string, visited map[string]*Target,
	sets map[string][]Override) (*Target, error) {
	if t, ok := visited[name]; ok {
		return t, nil
	}
	visited[name] = nil
	own := c.target(name)
	if own == nil {
		return nil, c.unknown("target", name, false)
	}
	t := &Target{Name: name, file: own.file, line: own.line}
	for _, parent := range own.Inherits {
		p, err := c.inherit(parent, visited, sets)
		if err != nil {
			if own.line > 0 && c.target(parent) == nil {
				err = &Error{File: own.file, Start: own.line, End: own.line,
					Err: fmt.Errorf("target %s inherits from %s: %w", name, parent, err)}
			}
			return nil, err
		}
		if p != nil {
			t.merge(p)
		}
	}
	t.merge(own)
	if err := t.apply(sets[name]); err != nil {
		return nil, err
	}
	t.normalize()
	visited[name] = t
	return t, nil
}

// contextTarget is the prefix of a context that is the result of another target.
const contextTarget = "target:"

// LinkedTarget returns the name of the target to which a context refers, and reports whether it
// refers to one.
func LinkedTarget(where string) (string, bool) { return strings.CutPrefix(where, contextTarget) }

// link adds the targets that a target has as contexts. via are the targets that led to it.
func (r *resolver) link(name string, via []string) error {
	t := r.def.Targets[name]
	via = append(slices.Clone(via), name)
	for _, key := range slices.Sorted(maps.Keys(t.Contexts)) {
		other, ok := LinkedTarget(t.Contexts[key])
		if !ok {
			continue
		}
		if slices.Contains(via, other) {
			return fmt.Errorf("target %s has itself as a context: %s", other,
				strings.Join(append(via, other), " -> "))
		}
		if r.def.Targets[other] == nil {
			o, err := r.c.resolve(other, r.sets)
			if err != nil {
				return fmt.Errorf("context %s of target %s: %w", key, name, err)
			}
			o.Outputs, o.Linked = []Entry{{"type": "cacheonly"}}, true
			r.def.Targets[other] = o
		}
		if err := r.link(other, via); err != nil {
			return err
		}
		o := r.def.Targets[other]
		t.Entitlements = uniqueStrings(slices.Concat(t.Entitlements, o.Entitlements))
		if err := samePlatforms(t, o); err != nil {
			return err
		}
	}
	return nil
}

// samePlatforms returns an error if a target cannot be built because its context lacks platforms.
func samePlatforms(t, of *Target) error {
	if len(t.Platforms) < 2 || len(of.Platforms) < 2 {
		return nil
	}
	for _, p := range t.Platforms {
		if !slices.Contains(of.Platforms, p) {
			return fmt.Errorf("target %s is for %s, and target %s, which is its context, is not "+
				"(only for %s)", t.Name, p, of.Name, strings.Join(of.Platforms, ", "))
		}
	}
	return nil
}

var errNoDefinitions = errors.New("the files define no targets")

// CheckTargets returns an error if there are no targets.
func (c *Config) CheckTargets() error {
	if len(c.Targets) == 0 {
		return errNoDefinitions
	}
	return nil
}

// targetName returns the name of the target of a compose service, whose name may have dots.
func targetName(service string) string { return strings.ReplaceAll(service, ".", "_") }
