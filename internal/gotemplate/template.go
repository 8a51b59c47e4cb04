package gotemplate

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/template/parse"
	"time"
)

// Template is a parsed template.
type Template struct {
	tree *parse.Tree
}

// Parse parses a template.
func Parse(text string) (*Template, error) {
	names := map[string]any{}
	for name := range functions {
		names[name] = true
	}
	for _, name := range [...]string{"and", "or"} { // call evaluates only some of their arguments
		names[name] = true
	}
	trees, err := parse.Parse("template", text, "{{", "}}", names)
	if err != nil {
		// "template: template:1: unclosed action"
		return nil, errors.New(strings.TrimPrefix(err.Error(), "template: template:"))
	}
	if len(trees) > 1 {
		return nil, errors.New("define and block are not available")
	}
	tree := trees["template"]
	if tree == nil { // the text is empty
		tree = &parse.Tree{Root: &parse.ListNode{}}
	}
	return &Template{tree}, nil
}

// Execute writes the template's text for a value. If it returns an error, it may have written a
// part.
func (t *Template) Execute(w io.Writer, value any) error {
	dot := reflect.ValueOf(value)
	s := &state{w: w, vars: []variable{{"$", dot}}}
	err := s.walk(dot, t.tree.Root)
	if errors.Is(err, errBreak) || errors.Is(err, errContinue) {
		return nil // the parser returns an error for those outside of a range
	}
	return err
}

// state is the state of one execution.
type state struct {
	w     io.Writer
	vars  []variable
	loops int // rounds of range so far
}

type variable struct {
	name  string
	value reflect.Value
}

// errBreak and errContinue end the body of a range.
var (
	errBreak    = errors.New("break")
	errContinue = errors.New("continue")
)

// maxLoops limits the rounds of all loops of an execution: nested loops could run for ever.
const maxLoops = 1 << 20

// walk executes a node.
func (s *state) walk(dot reflect.Value, node parse.Node) error {
	switch n := node.(type) {
	case *parse.ListNode:
		for _, child := range n.Nodes {
			if err := s.walk(dot, child); err != nil {
				return err
			}
		}
		return nil
	case *parse.TextNode:
		_, err := s.w.Write(n.Text)
		return err
	case *parse.ActionNode:
		v, err := s.pipeline(dot, n.Pipe)
		if err != nil || len(n.Pipe.Decl) > 0 {
			return err
		}
		_, err = io.WriteString(s.w, text(v))
		return err
	case *parse.IfNode:
		return s.branch(dot, &n.BranchNode, false)
	case *parse.WithNode:
		return s.branch(dot, &n.BranchNode, true)
	case *parse.RangeNode:
		return s.each(dot, n)
	case *parse.BreakNode:
		return errBreak
	case *parse.ContinueNode:
		return errContinue
	case *parse.CommentNode:
		return nil
	}
	return fmt.Errorf("%s is not available", node)
}

// branch executes if and with.
func (s *state) branch(dot reflect.Value, n *parse.BranchNode, with bool) error {
	defer s.pop(len(s.vars))
	v, err := s.pipeline(dot, n.Pipe)
	if err != nil {
		return err
	}
	switch {
	case !truth(v):
		if n.ElseList == nil {
			return nil
		}
		return s.walk(dot, n.ElseList)
	case with:
		dot = v
	}
	return s.walk(dot, n.List)
}

func (s *state) pop(n int) { s.vars = s.vars[:n] }

// each executes range.
func (s *state) each(dot reflect.Value, n *parse.RangeNode) error {
	defer s.pop(len(s.vars))
	v, err := s.pipeline(dot, n.Pipe)
	if err != nil {
		return err
	}
	v = indirect(v)
	items, err := itemsOf(v)
	if err != nil {
		return fmt.Errorf("range %s: %w", n.Pipe, err)
	}
	if len(items) == 0 && n.ElseList != nil {
		return s.walk(dot, n.ElseList)
	}
	depth := len(s.vars)
	for _, it := range items {
		if s.loops++; s.loops > maxLoops {
			return fmt.Errorf("range has more than %d rounds", maxLoops)
		}
		s.declare(n.Pipe, it)
		err := s.walk(it.value, n.List)
		s.pop(depth)
		if errors.Is(err, errBreak) {
			break
		}
		if err != nil && !errors.Is(err, errContinue) {
			return err
		}
	}
	return nil
}

// declare sets the variables of a range to an item: the element, or its key and the element. The
// pipeline has declared them as the last variables, or assigns to others.
func (s *state) declare(pipe *parse.PipeNode, it item) {
	values := []reflect.Value{it.key, it.value}[2-len(pipe.Decl):]
	for i, d := range pipe.Decl {
		if pipe.IsAssign {
			s.set(d.Ident[0], values[i])
		} else {
			s.vars[len(s.vars)-len(pipe.Decl)+i].value = values[i]
		}
	}
}

// set changes the innermost variable with a name.
func (s *state) set(name string, v reflect.Value) {
	for i := len(s.vars) - 1; i >= 0; i-- {
		if s.vars[i].name == name {
			s.vars[i].value = v
			return
		}
	}
}

// pipeline evaluates a pipeline, and sets the variables that it declares.
func (s *state) pipeline(dot reflect.Value, pipe *parse.PipeNode) (reflect.Value, error) {
	var v reflect.Value
	if pipe == nil {
		return v, nil
	}
	for i, cmd := range pipe.Cmds {
		var final []reflect.Value
		if i > 0 {
			final = []reflect.Value{v}
		}
		var err error
		if v, err = s.command(dot, cmd, final); err != nil {
			return v, err
		}
	}
	for _, d := range pipe.Decl {
		if pipe.IsAssign {
			s.set(d.Ident[0], v)
		} else {
			s.vars = append(s.vars, variable{d.Ident[0], v})
		}
	}
	return v, nil
}

// command evaluates a function with its arguments, or a single value. final is the result of the
// command before it, which becomes the last argument.
func (s *state) command(dot reflect.Value, cmd *parse.CommandNode,
	final []reflect.Value) (reflect.Value, error) {
	first := cmd.Args[0]
	if id, ok := first.(*parse.IdentifierNode); ok {
		return s.call(dot, id.Ident, cmd.Args[1:], final)
	}
	if len(cmd.Args) > 1 || len(final) > 0 {
		return reflect.Value{}, fmt.Errorf("%s is not a function: it takes no arguments", first)
	}
	return s.arg(dot, first)
}

// call calls a function.
func (s *state) call(dot reflect.Value, name string, nodes []parse.Node,
	final []reflect.Value) (reflect.Value, error) {
	logic := name == "and" || name == "or"
	var args []reflect.Value
	for _, node := range nodes {
		v, err := s.arg(dot, node)
		if err != nil {
			return v, err
		}
		if logic && truth(v) == (name == "or") {
			return v, nil
		}
		args = append(args, v)
	}
	args = append(args, final...)
	if logic {
		if len(args) == 0 {
			return reflect.Value{}, fmt.Errorf("%s: an argument is missing", name)
		}
		return args[len(args)-1], nil
	}
	v, err := functions[name](args)
	if err != nil {
		return reflect.Value{}, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

// arg evaluates an operand.
func (s *state) arg(dot reflect.Value, node parse.Node) (reflect.Value, error) {
	switch n := node.(type) {
	case *parse.DotNode:
		return dot, nil
	case *parse.NilNode:
		return reflect.Value{}, errors.New("nil is not a value")
	case *parse.BoolNode:
		return reflect.ValueOf(n.True), nil
	case *parse.StringNode:
		return reflect.ValueOf(n.Text), nil
	case *parse.NumberNode:
		return number(n)
	case *parse.FieldNode:
		return fields(dot, n.Ident)
	case *parse.ChainNode:
		v, err := s.arg(dot, n.Node)
		if err != nil {
			return v, err
		}
		return fields(v, n.Field)
	case *parse.VariableNode:
		for i := len(s.vars) - 1; i >= 0; i-- {
			if s.vars[i].name == n.Ident[0] {
				return fields(s.vars[i].value, n.Ident[1:])
			}
		}
		return reflect.Value{}, fmt.Errorf("there is no variable %s", n.Ident[0])
	case *parse.PipeNode:
		return s.pipeline(dot, n)
	case *parse.IdentifierNode:
		return s.call(dot, n.Ident, nil, nil)
	}
	return reflect.Value{}, fmt.Errorf("%s is not available", node)
}

// number returns the value of a number without a type. As in text/template, the way it is written
// decides: a decimal point or an exponent makes a float64, else it is an int.
func number(n *parse.NumberNode) (reflect.Value, error) {
	hex := strings.HasPrefix(strings.ToLower(n.Text), "0x") && !strings.ContainsAny(n.Text, "pP")
	char := strings.HasPrefix(n.Text, "'")
	switch {
	case n.IsComplex:
		return reflect.Value{}, fmt.Errorf("the complex number %s is not available", n.Text)
	case n.IsFloat && !hex && !char && strings.ContainsAny(n.Text, ".eEpP"):
		return reflect.ValueOf(n.Float64), nil
	case n.IsInt:
		return reflect.ValueOf(int(n.Int64)), nil
	}
	return reflect.Value{}, fmt.Errorf("the number %s is too large", n.Text)
}

// fields returns the field of a field …
func fields(v reflect.Value, names []string) (reflect.Value, error) {
	for _, name := range names {
		v = indirect(v)
		switch v.Kind() {
		case reflect.Struct:
			f, ok := fieldOf(v, name)
			if !ok {
				return f, fmt.Errorf("there is no field %s; the fields are %s", name,
					strings.Join(fieldNames(v.Type()), ", "))
			}
			v = f
		case reflect.Map:
			if v.Type().Key().Kind() != reflect.String {
				return v, fmt.Errorf("there is no field %s", name)
			}
			v = v.MapIndex(reflect.ValueOf(name).Convert(v.Type().Key()))
		case reflect.Invalid:
			return v, fmt.Errorf("there is no field %s: the value before it is missing", name)
		default:
			return v, fmt.Errorf("there is no field %s: %s has none", name, v.Kind())
		}
	}
	return v, nil
}

// fieldOf returns the field of a struct with a name, in Go or in JSON.
func fieldOf(v reflect.Value, name string) (reflect.Value, bool) {
	var found reflect.StructField
	ok := false
	for _, f := range reflect.VisibleFields(v.Type()) {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.IsExported() && (f.Name == name || tag == name && !ok) {
			found, ok = f, true
		}
	}
	if !ok {
		return reflect.Value{}, false
	}
	f, err := v.FieldByIndexErr(found.Index) // an embedded pointer may be nil
	return f, err == nil
}

// fieldNames returns the names of the fields of a struct, in JSON if they have one there.
func fieldNames(t reflect.Type) []string {
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		if !f.IsExported() || f.Anonymous {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			name = f.Name
		}
		names = append(names, name)
	}
	return names
}

// indirect returns the value to which pointers and interfaces lead; the zero Value for nil.
func indirect(v reflect.Value) reflect.Value {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	return v
}

// truth reports whether a value is not the zero value of its type, and not empty.
func truth(v reflect.Value) bool {
	if v = indirect(v); !v.IsValid() {
		return false
	}
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.String, reflect.Array:
		return v.Len() > 0
	case reflect.Struct:
		return true // as in text/template
	}
	return !v.IsZero()
}

// printed returns the value that package fmt prints for v: what a pointer points to, or the pointer
// itself if it is nil, which fmt prints as <nil>. The result is not valid if there is no value.
func printed(v reflect.Value) reflect.Value {
	for v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	return v
}

// text returns the text of a value in the output.
func text(v reflect.Value) string {
	if v = printed(v); !v.IsValid() {
		return "<no value>"
	}
	if t, ok := v.Interface().(time.Time); ok {
		return t.Format(time.RFC3339Nano) // as in JSON, which docker's times come from
	}
	return fmt.Sprint(v.Interface())
}
