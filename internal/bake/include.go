package bake

import (
	"errors"
	"io/fs"
	"maps"
	"path"
	"strings"
)

// maxIncluded limits the files that compose files include, each counted as often as it is read.
const maxIncluded = 1000

// include is an element of the list include of a compose file.
type include struct {
	at    *node
	files []string // merged in their order
	dir   string   // what the paths in them are relative to
	env   []string // files of variables; nil: the file .env of the directory, if there is one
}

// include returns the files that a document includes, merged, with the paths of their services
// relative to the directory of the document. The name of an included file is relative to it, too.
func (m *composer) include(f File, doc *node) (*node, error) {
	list := doc.get("include")
	if list.isNull() {
		return nil, nil
	}
	if !list.isList() {
		return nil, list.errorf("include: a list is expected")
	}
	if m.o.ReadFile == nil {
		return nil, list.errorf("include: other files are not read")
	}
	var all *node
	for _, element := range list.list {
		in, err := parseInclude(element)
		if err != nil {
			return nil, err
		}
		other, err := m.included(f, in)
		if err != nil {
			return nil, err
		}
		all = mergeNodes(all, other)
	}
	return all, nil
}

// parseInclude reads the short form of an include, the name of a file, or the long one.
func parseInclude(n *node) (in include, err error) {
	in.at = n
	if n.keys == nil {
		name, err := n.string("include")
		in.files, in.dir = []string{name}, path.Dir(name)
		return in, errors.Join(err, in.check())
	}
	for _, key := range n.names() {
		value := n.get(key)
		switch key {
		case "path":
			in.files, err = value.oneOrMore(key)
		case "project_directory":
			in.dir, err = value.string(key)
		case "env_file":
			in.env, err = value.oneOrMore(key)
		default:
			err = value.errorf("include has no key %s", key)
		}
		if err != nil {
			return in, err
		}
	}
	if len(in.files) == 0 {
		return in, n.errorf("include: path is missing")
	}
	if in.dir == "" {
		in.dir = path.Dir(in.files[0])
	}
	return in, in.check()
}

// oneOrMore returns the texts of a list, or a single text.
func (n *node) oneOrMore(name string) ([]string, error) {
	if n.isList() {
		return n.strings(name)
	}
	s, err := n.string(name)
	return []string{s}, err
}

// check returns an error for files that are not on this machine.
func (in *include) check() error {
	for _, name := range in.files {
		if name == "" || strings.Contains(name, "://") || strings.HasPrefix(name, "git@") {
			return in.at.errorf("include %q: the path of a file is expected", name)
		}
	}
	return nil
}

// included reads the files of an include of the file f.
func (m *composer) included(f File, in include) (*node, error) {
	base, ok := m.dirs[f.Name]
	if !ok && !m.given[f.Name] {
		base = path.Dir(f.Name) // another file extends it
	}
	dir := joined(base, in.dir)
	outer := m.env
	defer func() { m.env = outer }()
	if err := m.includeVariables(base, dir, in); err != nil {
		return nil, err
	}
	var all *node
	for _, name := range in.files {
		name = joined(base, name)
		if m.files++; m.files > maxIncluded {
			return nil, in.at.errorf("include: more than %d files", maxIncluded)
		}
		if name == path.Clean(f.Name) {
			return nil, in.at.errorf("include: %s names itself", name)
		}
		doc, err := m.readIncluded(name, dir, in.at)
		if err != nil {
			return nil, err
		}
		all = mergeNodes(all, doc)
	}
	return movedFile(all, in.dir), nil
}

// joined returns a path that is relative to a directory relative to the working directory.
func joined(base, name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(base, name)
}

// includeVariables adds variables of the files of an include to those of the files around it, which
// take precedence.
func (m *composer) includeVariables(base, dir string, in include) error {
	outer, vars := m.env, map[string]string{}
	files, optional := in.env, in.env == nil
	if optional {
		files = []string{path.Join(dir, ".env")}
	} else {
		for i := range files {
			files[i] = joined(base, files[i])
		}
	}
	for _, name := range files {
		data, err := m.o.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) && optional {
			continue
		}
		if err != nil {
			return in.at.errorf("include: env_file: %w", err)
		}
		more, err := parseDotEnv(data, outer)
		if err != nil {
			return in.at.errorf("include: env_file %s: %w", name, err)
		}
		maps.Copy(vars, more)
	}
	m.env = func(name string) (string, bool) {
		if v, ok := outer(name); ok {
			return v, true
		}
		v, ok := vars[name]
		return v, ok
	}
	return nil
}

// readIncluded reads an included file, whose paths are relative to dir.
func (m *composer) readIncluded(name, dir string, at *node) (*node, error) {
	m.dirs[name] = dir
	defer delete(m.dirs, name)
	_, doc, err := m.readOther(name, "include", at)
	return doc, err
}

// movedFile returns a document whose paths are relative to another directory.
func movedFile(doc *node, dir string) *node {
	if dir == "." {
		return doc
	}
	doc = doc.with("services", func(n *node) *node {
		return n.each(func(n *node) *node { return moved(n, dir) })
	})
	return doc.with("secrets", func(n *node) *node {
		return n.each(func(n *node) *node {
			return n.with("file", func(n *node) *node { return n.movedTo(dir) })
		})
	})
}
