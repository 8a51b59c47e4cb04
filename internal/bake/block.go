package bake

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/layerbuild/layerbuild/internal/suggest"
	"github.com/zclconf/go-cty/cty"
)

// addBlocks adds the targets and groups of blocks.
func (e *evaluator) addBlocks(c *Config, blocks hcl.Blocks) error {
	var all []*instance
	made := map[string][]string{} // the names of the targets of a matrix
	for _, b := range blocks {
		list, err := e.instancesOf(b, &c.Warnings)
		if err != nil {
			return err
		}
		if len(all)+len(list) > maxInstances {
			return errorf(b.DefRange, "the files define more than %d targets", maxInstances)
		}
		for _, in := range list {
			key := in.kind + "." + in.name
			e.instances[key] = append(e.instances[key], in)
			made[b.Type+"."+b.Labels[0]] = append(made[b.Type+"."+b.Labels[0]], in.name)
		}
		all = append(all, list...)
	}
	for _, in := range all {
		if err := e.add(c, in); err != nil {
			return err
		}
	}
	return addMatrixGroups(c, blocks, made)
}

// addMatrixGroups adds a group for each matrix, with its targets.
func addMatrixGroups(c *Config, blocks hcl.Blocks, made map[string][]string) error {
	for _, b := range blocks {
		key, label := b.Type+"."+b.Labels[0], b.Labels[0]
		names := uniqueStrings(made[key])
		delete(made, key) // each once
		if b.Type != "target" || len(names) == 0 || len(names) == 1 && names[0] == label {
			continue
		}
		c.addGroup(&Group{Name: label, Targets: names})
	}
	return nil
}

// isNameRune reports whether the name of a target may have a character.
func isNameRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' ||
		r == '-'
}

// checkName returns an error for a name that no target or group can have.
func checkName(name string) error {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return !isNameRune(r) }) {
		return fmt.Errorf("the name %q is invalid; a name has letters, digits, _ and -", name)
	}
	return nil
}

// instancesOf returns the target or group of a block, or all targets of a matrix.
func (e *evaluator) instancesOf(b *hcl.Block, warnings *[]string) ([]*instance, error) {
	if err := at(b.LabelRanges[0], checkName(b.Labels[0])); err != nil {
		return nil, err
	}
	if err := checkBlocks(b.Body, nil); err != nil {
		return nil, err
	}
	attrs, err := attributesOf(b.Body)
	if err != nil {
		return nil, err
	}
	matrix, name := attrs["matrix"], attrs["name"]
	delete(attrs, "matrix")
	delete(attrs, "name")
	for _, attr := range []*hcl.Attribute{matrix, name} {
		if b.Type == "group" && attr != nil {
			return nil, errorf(attr.NameRange, "a group has no attribute %s", attr.Name)
		}
	}
	*warnings = append(*warnings, unknownAttributes(b, attrs)...)
	if matrix == nil && name != nil {
		return nil, errorf(name.NameRange, "the attribute name is for targets with a matrix; the "+
			"name of this one is %s", b.Labels[0])
	}
	all := []locals{nil}
	if matrix != nil {
		if all, err = e.expand(matrix); err != nil {
			return nil, err
		}
	}
	var list []*instance
	for _, l := range all {
		in := &instance{kind: b.Type, name: b.Labels[0], locals: l, attrs: attrs,
			values: map[string]cty.Value{}, def: b.DefRange}
		if err := e.setName(in, name); err != nil {
			return nil, err
		}
		list = append(list, in)
	}
	return list, distinct(list, matrix)
}

// setName sets the name of a target of a matrix.
func (e *evaluator) setName(in *instance, name *hcl.Attribute) (err error) {
	if name == nil {
		return nil
	}
	if in.name, err = e.text(name, in.locals); err != nil {
		return err
	}
	return at(name.Expr.Range(), checkName(in.name))
}

// distinct returns an error if two targets of a matrix have the same name.
func distinct(list []*instance, matrix *hcl.Attribute) error {
	seen := map[string]bool{}
	for _, in := range list {
		if seen[in.name] {
			return errorf(matrix.NameRange, "two targets of the matrix have the name %s; give "+
				"each its own with the attribute name", in.name)
		}
		seen[in.name] = true
	}
	return nil
}

// unknownAttributes removes the attributes that targets or groups do not have, and returns warnings
// about them: buildx ignores them.
func unknownAttributes(b *hcl.Block, attrs hcl.Attributes) []string {
	known := attributeNames(b.Type)
	var warnings []string
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		if slices.Contains(known, name) {
			continue
		}
		r := attrs[name].NameRange
		w := fmt.Sprintf("%s:%d: a %s has no attribute %s", r.Filename, r.Start.Line, b.Type, name)
		if near := suggest.Near(name, known); near != "" {
			w += fmt.Sprintf(": did you mean %s?", near)
		}
		warnings = append(warnings, w)
		delete(attrs, name)
	}
	return warnings
}

// expand returns the variables of each target of a matrix: all combinations of its values.
func (e *evaluator) expand(matrix *hcl.Attribute) ([]locals, error) {
	r := matrix.Expr.Range()
	v, err := e.eval(matrix.Expr, nil)
	if err != nil {
		return nil, err
	}
	if t := v.Type(); v.IsNull() || !t.IsMapType() && !t.IsObjectType() {
		return nil, errorf(r, "the matrix is a map of lists")
	}
	all := []locals{{}}
	for key, values := range v.Elements() {
		if t := values.Type(); values.IsNull() || !t.IsListType() && !t.IsTupleType() &&
			!t.IsSetType() {
			return nil, errorf(r, "the matrix has no list of values for %s", key.AsString())
		}
		if len(all)*values.LengthInt() > maxInstances {
			return nil, errorf(r, "the matrix has more than %d targets", maxInstances)
		}
		var next []locals
		for _, value := range values.Elements() {
			for _, l := range all {
				l = maps.Clone(l)
				l[key.AsString()] = value
				next = append(next, l)
			}
		}
		all = next
	}
	return all, nil
}

// add evaluates all attributes of a target or group and adds it. The definitions of a name in
// several blocks are merged.
func (e *evaluator) add(c *Config, in *instance) error {
	if in.kind == "group" {
		return e.addGroup(c, in)
	}
	t := &Target{Name: in.name, file: in.def.Filename, line: in.def.Start.Line}
	for _, name := range slices.Sorted(maps.Keys(in.attrs)) {
		v, err := e.attribute(in, name)
		if err != nil {
			return err
		}
		if err := t.setAttribute(name, v); err != nil {
			return at(in.attrs[name].Expr.Range(), err)
		}
	}
	c.addTarget(t)
	return nil
}

// addGroup evaluates a group and adds it. A later block takes the place of an earlier one.
func (e *evaluator) addGroup(c *Config, in *instance) error {
	g := &Group{Name: in.name}
	for name := range in.attrs {
		v, err := e.attribute(in, name)
		switch {
		case err != nil:
			return err
		case v.IsNull():
		case name == "description":
			g.Description = v.AsString()
		default:
			g.Targets, err = stringsOf(v)
			if err != nil {
				return at(in.attrs[name].Expr.Range(), err)
			}
		}
	}
	if in.attrs["targets"] == nil {
		return errorf(in.def, "the group %s has no targets", in.name)
	}
	c.addGroup(g)
	return nil
}

// addTarget adds a target, or merges it with one of the same name.
func (c *Config) addTarget(t *Target) {
	if have := c.target(t.Name); have != nil {
		have.merge(t)
		return
	}
	c.Targets = append(c.Targets, t)
}

// addGroup adds a group in place of one with the same name.
func (c *Config) addGroup(g *Group) {
	g.Targets = uniqueStrings(g.Targets)
	for i, have := range c.Groups {
		if have.Name == g.Name {
			c.Groups[i] = g
			return
		}
	}
	c.Groups = append(c.Groups, g)
}

// target returns the target with a name; nil: there is none.
func (c *Config) target(name string) *Target {
	for _, t := range c.Targets {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// group returns the group with a name; nil: there is none.
func (c *Config) group(name string) *Group {
	for _, g := range c.Groups {
		if g.Name == name {
			return g
		}
	}
	return nil
}
