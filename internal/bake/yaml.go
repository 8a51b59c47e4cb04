package bake

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits for YAML, in which an alias may stand for much text.
const (
	maxNodes     = 200_000
	maxNodeDepth = 100
)

// node is a value of a YAML file: a scalar, a list or a map.
type node struct {
	file string
	line int
	tag  string // such as !!str, or !reset and !override of compose files

	text string // of a scalar
	list []*node
	keys map[string]*node // nil: not a map
}

// isNull reports whether a value is null, or missing.
func (n *node) isNull() bool { return n == nil || n.tag == "!!null" }

// isList reports whether a value is a list.
func (n *node) isList() bool { return n.list != nil }

// get returns the value of a key; nil: there is none, or the value is not a map.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	return n.keys[key]
}

// names returns the keys of a map in their order.
func (n *node) names() []string {
	if n == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(n.keys))
}

// errorf returns an error with the position of the value.
func (n *node) errorf(format string, args ...any) error {
	return &Error{File: n.file, Start: n.line, End: n.line, Err: fmt.Errorf(format, args...)}
}

// yamlReader turns the nodes of package yaml into those of this package.
type yamlReader struct {
	file  string
	nodes int
	// expand replaces the variables in a scalar.
	expand func(string) (string, error)
}

// readYAML parses a file. Variables in its values are replaced by expand.
func readYAML(f File, expand func(string) (string, error)) (*node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(f.Data, &doc); err != nil {
		return nil, yamlError(f.Name, err)
	}
	if len(doc.Content) == 0 {
		return &node{file: f.Name, keys: map[string]*node{}}, nil
	}
	r := &yamlReader{file: f.Name, expand: expand}
	return r.convert(doc.Content[0], 0)
}

// yamlError returns an error of package yaml with its line.
func yamlError(file string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		number, message, _ := strings.Cut(rest, ": ")
		if line, numErr := strconv.Atoi(number); numErr == nil {
			return &Error{File: file, Start: line, End: line, Err: errors.New(message)}
		}
	}
	return &Error{File: file, Err: errors.New(text)}
}

func (r *yamlReader) convert(y *yaml.Node, depth int) (*node, error) {
	n := &node{file: r.file, line: y.Line, tag: y.ShortTag()}
	if r.nodes++; r.nodes > maxNodes || depth > maxNodeDepth {
		return nil, n.errorf("the file has too many values, or they are nested too deeply")
	}
	switch y.Kind {
	case yaml.AliasNode:
		return r.convert(y.Alias, depth+1)
	case yaml.ScalarNode:
		text, err := r.expand(y.Value)
		if err != nil {
			return nil, n.errorf("%w", err)
		}
		if n.text = text; text == y.Value {
			n.text = canonical(y, n.tag)
		}
	case yaml.SequenceNode:
		n.list = []*node{}
		for _, element := range y.Content {
			e, err := r.convert(element, depth+1)
			if err != nil {
				return nil, err
			}
			n.list = append(n.list, e)
		}
	case yaml.MappingNode:
		return n, r.convertMap(n, y, depth)
	}
	return n, nil
}

// canonical returns the text of a scalar. As in buildx, a number, true, false or a time that is not
// quoted is first decoded: 1.20 is 1.2, and True is true.
func canonical(y *yaml.Node, tag string) string {
	var v any
	switch tag {
	case "!!bool", "!!int", "!!float", "!!timestamp":
		if y.Decode(&v) == nil && v != nil {
			return fmt.Sprint(v)
		}
	}
	return y.Value
}

// convertMap sets the keys of a map. Those of the merge key << come first.
func (r *yamlReader) convertMap(n *node, y *yaml.Node, depth int) error {
	n.keys = map[string]*node{}
	for i := 0; i+1 < len(y.Content); i += 2 {
		if y.Content[i].ShortTag() != "!!merge" {
			continue
		}
		merged, err := r.convert(y.Content[i+1], depth+1)
		if err != nil {
			return err
		}
		for _, m := range slices.Backward(append(slices.Clone(merged.list), merged)) {
			maps.Copy(n.keys, m.keys)
		}
	}
	for i := 0; i+1 < len(y.Content); i += 2 {
		key := y.Content[i]
		if key.ShortTag() == "!!merge" {
			continue
		}
		if key.Kind != yaml.ScalarNode {
			return (&node{file: r.file, line: key.Line}).errorf("a key is not a string")
		}
		v, err := r.convert(y.Content[i+1], depth+1)
		if err != nil {
			return err
		}
		n.keys[key.Value] = v
	}
	return nil
}

// mergeNodes returns a value that a later file changes: the keys of maps are merged, and lists are
// joined.
func mergeNodes(old, later *node) *node {
	switch {
	case later != nil && later.tag == "!reset":
		return nil
	case old == nil || later == nil || later.tag == "!override":
		return cmpNode(later, old)
	case old.keys != nil && later.keys != nil:
		out := *later
		out.keys = maps.Clone(old.keys)
		for key, value := range later.keys {
			if out.keys[key] = mergeNodes(old.keys[key], value); out.keys[key] == nil {
				delete(out.keys, key)
			}
		}
		return &out
	case old.isList() && later.isList():
		out := *later
		out.list = slices.Concat(old.list, later.list)
		return &out
	}
	return later
}

// cmpNode returns the first value that is not nil.
func cmpNode(a, b *node) *node {
	if a != nil {
		return a
	}
	return b
}

// with returns a map in which the value of a key that it has is replaced.
func (n *node) with(key string, replace func(*node) *node) *node {
	value := n.get(key)
	if value.isNull() {
		return n
	}
	out := *n
	out.keys = maps.Clone(n.keys)
	out.keys[key] = replace(value)
	return &out
}

// each returns a map or a list whose values are replaced, or the replacement of a scalar.
func (n *node) each(replace func(*node) *node) *node {
	out := *n
	switch {
	case n.keys != nil:
		out.keys = map[string]*node{}
		for key, value := range n.keys {
			out.keys[key] = replace(value)
		}
	case n.isList():
		out.list = nil
		for _, value := range n.list {
			out.list = append(out.list, replace(value))
		}
	default:
		return replace(n)
	}
	return &out
}

// string returns the text of a scalar.
func (n *node) string(name string) (string, error) {
	if n.isNull() {
		return "", nil
	}
	if n.keys != nil || n.isList() {
		return "", n.errorf("%s: a string is expected", name)
	}
	return n.text, nil
}

// strings returns the texts of a list.
func (n *node) strings(name string) ([]string, error) {
	if n.isNull() {
		return nil, nil
	}
	if !n.isList() {
		return nil, n.errorf("%s: a list is expected", name)
	}
	var out []string
	for _, element := range n.list {
		s, err := element.string(name)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// bool returns the value of a scalar that is true or false.
func (n *node) bool(name string) (bool, error) {
	s, err := n.string(name)
	if err != nil || s == "" {
		return false, err
	}
	switch strings.ToLower(s) {
	case "true", "yes", "y", "on":
		return true, nil
	case "false", "no", "n", "off":
		return false, nil
	}
	return false, n.errorf("%s: true or false is expected", name)
}

// pairs returns the keys and values of a map, or of a list of KEY=VALUE; nil stands for a key
// without a value.
func (n *node) pairs(name string) (map[string]*string, error) {
	if n.isNull() {
		return nil, nil
	}
	out := map[string]*string{}
	for _, element := range n.list {
		s, err := element.string(name)
		if err != nil {
			return nil, err
		}
		key, value, ok := strings.Cut(s, "=")
		if out[key] = nil; ok {
			out[key] = &value
		}
	}
	for key, value := range n.keys {
		s, err := value.string(name)
		if err != nil {
			return nil, err
		}
		if out[key] = nil; !value.isNull() {
			out[key] = &s
		}
	}
	if n.keys == nil && !n.isList() {
		return nil, n.errorf("%s: a map is expected", name)
	}
	return out, nil
}
