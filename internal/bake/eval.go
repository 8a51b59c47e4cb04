package bake

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/layerbuild/layerbuild/internal/suggest"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// Limits for evaluations.
const (
	maxDepth     = 200     // values that are evaluated because of each other
	maxCalls     = 100_000 // calls of functions that the files define
	maxValue     = 1 << 20 // bytes of the value of a variable or an attribute
	maxInstances = 10_000  // targets of all matrices
)

// locals are variables of a matrix or of a function.
type locals map[string]cty.Value

// evaluator evaluates the definitions of files.
type evaluator struct {
	o         *Options
	functions map[string]function.Function

	variables map[string]*variable
	attrs     map[string]*hcl.Attribute // at the top level
	values    map[string]cty.Value      // of variables and attrs
	instances map[string][]*instance    // of targets and groups, by type and name, as target.app

	// active has what is being evaluated, to find definitions that refer to themselves.
	active map[string]bool
	calls  int
}

// instance is a target or group, or one of a matrix. A name may have several, in different blocks.
type instance struct {
	kind   string // target or group
	name   string
	locals locals
	attrs  hcl.Attributes
	values map[string]cty.Value
	def    hcl.Range
}

// blockTypes are the types of blocks at the top level.
var blockTypes = [...]string{"group", "target", "variable", "function"}

// addBodies evaluates HCL and adds its definitions.
func (c *Config) addBodies(bodies []hcl.Body, o *Options) error {
	e := &evaluator{o: o, variables: map[string]*variable{}, attrs: map[string]*hcl.Attribute{},
		values: map[string]cty.Value{}, instances: map[string][]*instance{},
		active: map[string]bool{}}
	e.functions = e.standardFunctions()
	var blocks hcl.Blocks
	for _, body := range bodies {
		list, err := e.load(body)
		if err != nil {
			return err
		}
		blocks = append(blocks, list...)
	}
	for name, value := range o.Builtins {
		e.values[name] = cty.StringVal(value)
	}
	var err error
	if c.Variables, err = e.allVariables(); err != nil {
		return err
	}
	return e.addBlocks(c, blocks)
}

// load adds the variables, functions and attributes of a file, and returns its other blocks.
func (e *evaluator) load(body hcl.Body) (hcl.Blocks, error) {
	schema := &hcl.BodySchema{}
	for _, name := range blockTypes {
		schema.Blocks = append(schema.Blocks,
			hcl.BlockHeaderSchema{Type: name, LabelNames: []string{"name"}})
	}
	if err := checkBlocks(body, blockTypes[:]); err != nil {
		return nil, err
	}
	content, rest, diags := body.PartialContent(schema)
	if err := failed(diags); err != nil {
		return nil, err
	}
	attrs, err := attributesOf(rest)
	if err != nil {
		return nil, err
	}
	maps.Copy(e.attrs, attrs)
	var blocks hcl.Blocks
	for _, b := range content.Blocks {
		var err error
		switch b.Type {
		case "variable":
			err = e.addVariable(b)
		case "function":
			err = e.addFunction(b)
		default:
			blocks = append(blocks, b)
		}
		if err != nil {
			return nil, err
		}
	}
	return blocks, nil
}

// attributesOf returns the attributes of a body whose blocks have been checked.
func attributesOf(body hcl.Body) (hcl.Attributes, error) {
	attrs, diags := body.JustAttributes()
	if _, ok := body.(*hclsyntax.Body); ok {
		return attrs, nil // the diagnostics are about blocks
	}
	return attrs, failed(diags)
}

// checkBlocks returns an error for a block of another type than those known. JSON has no blocks
// that can be told from attributes.
func checkBlocks(body hcl.Body, known []string) error {
	syntax, ok := body.(*hclsyntax.Body)
	if !ok {
		return nil
	}
	for _, b := range syntax.Blocks {
		if slices.Contains(known, b.Type) {
			continue
		}
		if known == nil {
			return errorf(b.DefRange(), "%s is not a block; write %s = { … }", b.Type, b.Type)
		}
		if near := suggest.Near(b.Type, known); near != "" {
			return errorf(b.DefRange(), "unknown block %s: did you mean %s?", b.Type, near)
		}
		return errorf(b.DefRange(), "unknown block %s (known: %s)", b.Type,
			strings.Join(known, ", "))
	}
	return nil
}

// eval evaluates an expression.
func (e *evaluator) eval(expr hcl.Expression, l locals) (cty.Value, error) {
	vars, err := e.needed(expr, l)
	if err != nil {
		return cty.NilVal, err
	}
	v, diags := expr.Value(&hcl.EvalContext{Variables: vars, Functions: e.functions})
	if err := failed(diags); err != nil {
		return cty.NilVal, at(expr.Range(), err)
	}
	if !v.IsWhollyKnown() {
		return cty.NilVal, errorf(expr.Range(), "the value is not known")
	}
	if sizeOf(v) > maxValue {
		return cty.NilVal, errorf(expr.Range(), "the value has more than %d KiB", maxValue>>10)
	}
	return v, nil
}

// needed returns the variables that an expression refers to. It leaves out those that do not exist:
// package hcl has a message for them, and the function try accepts them.
func (e *evaluator) needed(expr hcl.Expression, l locals) (map[string]cty.Value, error) {
	vars := map[string]cty.Value{}
	blocks := map[string]map[string]map[string]cty.Value{}
	for _, t := range expr.Variables() {
		root := t.RootName()
		if v, ok := l[root]; ok {
			vars[root] = v
			continue
		}
		if _, ok := vars[root]; ok {
			continue
		}
		if root == "target" || root == "group" {
			if err := e.reference(t, blocks); err != nil {
				return nil, err
			}
			continue
		}
		v, ok, err := e.named(root)
		if err != nil {
			return nil, err
		}
		if ok {
			vars[root] = v
		}
	}
	for kind, byName := range blocks {
		objects := map[string]cty.Value{}
		for name, attrs := range byName {
			objects[name] = cty.ObjectVal(attrs)
		}
		vars[kind] = cty.ObjectVal(objects)
	}
	return vars, nil
}

// reference evaluates what an expression such as target.app.tags refers to, and adds it to blocks.
func (e *evaluator) reference(t hcl.Traversal,
	blocks map[string]map[string]map[string]cty.Value) error {
	kind := t.RootName()
	if len(t) < 2 {
		return errorf(t.SourceRange(), "%s is not a value; write %s.NAME.ATTRIBUTE", kind, kind)
	}
	name, ok := stepName(t[1])
	list := e.instances[kind+"."+name]
	if !ok || len(list) == 0 {
		return nil
	}
	if blocks[kind] == nil {
		blocks[kind] = map[string]map[string]cty.Value{}
	}
	if blocks[kind][name] == nil {
		blocks[kind][name] = map[string]cty.Value{}
	}
	names := attributeNames(kind)
	if len(t) > 2 {
		if attr, ok := stepName(t[2]); ok {
			names = []string{attr}
		}
	}
	for _, attr := range names {
		if !slices.Contains(attributeNames(kind), attr) {
			continue
		}
		v, err := e.lastValue(list, attr)
		if err != nil {
			return at(t.SourceRange(), err)
		}
		blocks[kind][name][attr] = v
	}
	return nil
}

// lastValue returns the value of an attribute in the last block that has it.
func (e *evaluator) lastValue(list []*instance, attr string) (cty.Value, error) {
	for _, in := range slices.Backward(list) {
		if in.attrs[attr] != nil {
			return e.attribute(in, attr)
		}
	}
	return cty.NullVal(attributeType(attr)), nil
}

// stepName returns the name of a step of a traversal, as in .NAME or ["NAME"].
func stepName(t hcl.Traverser) (string, bool) {
	switch t := t.(type) {
	case hcl.TraverseAttr:
		return t.Name, true
	case hcl.TraverseIndex:
		if t.Key.Type() == cty.String && t.Key.IsKnown() && !t.Key.IsNull() {
			return t.Key.AsString(), true
		}
	}
	return "", false
}

// attribute evaluates an attribute of a target or group, once.
func (e *evaluator) attribute(in *instance, name string) (cty.Value, error) {
	if v, ok := in.values[name]; ok {
		return v, nil
	}
	attr := in.attrs[name]
	var v cty.Value
	err := e.once(in.kind+"."+in.name+"."+name, attr.Expr.Range(), func() (err error) {
		v, err = e.eval(attr.Expr, in.locals)
		return err
	})
	if err == nil {
		v, err = convertAttribute(name, v)
		err = at(attr.Expr.Range(), err)
	}
	if err != nil {
		return cty.NilVal, err
	}
	in.values[name] = v
	return v, nil
}

// once calls f, which evaluates what, unless that is being evaluated: then it refers to itself.
func (e *evaluator) once(what string, r hcl.Range, f func() error) error {
	if e.active[what] {
		return errorf(r, "%s refers to itself", what)
	}
	if len(e.active) >= maxDepth {
		return errorf(r, "%s is evaluated because of more than %d other values", what, maxDepth)
	}
	e.active[what] = true
	defer delete(e.active, what)
	return f()
}

// sizeOf returns the number of bytes that the strings of a value have, with one byte for each
// element, and more for large numbers, whose text is long.
func sizeOf(v cty.Value) int {
	t := v.Type()
	switch {
	case v.IsNull() || !v.IsKnown():
		return 1
	case t == cty.String:
		return 1 + len(v.AsString())
	case t == cty.Number:
		return 1 + abs(v.AsBigFloat().MantExp(nil)) // at least its digits
	case t.IsPrimitiveType(), t.IsCapsuleType():
		return 1
	}
	size := 1
	for key, element := range v.Elements() {
		if key.Type() == cty.String && key.IsKnown() && !t.IsSetType() {
			size += len(key.AsString())
		}
		size += sizeOf(element)
	}
	return size
}

func abs(n int) int { return max(n, -n) }

// describe returns the names of targets or groups for messages.
func describe(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	const most = 20
	if len(names) > most {
		return fmt.Sprintf("%s and %d others", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
