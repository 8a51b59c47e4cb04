package bake

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
)

// composer turns compose files into targets.
type composer struct {
	o       *Options
	env     func(string) (string, bool)
	model   *node // all files, merged
	pending map[string]bool
	given   map[string]bool // the files of the command line, by name
	// dirs has what the paths in an included file are relative to, by its name.
	dirs  map[string]string
	files int // that were included
}

// addCompose adds the services of compose files that have a build section.
func (c *Config) addCompose(files []File, o *Options) error {
	dotEnv, err := parseDotEnv(o.DotEnv, o.lookup)
	if err != nil {
		return &Error{File: ".env", Err: err}
	}
	m := &composer{o: o, pending: map[string]bool{}, given: map[string]bool{},
		dirs: map[string]string{}}
	m.env = func(name string) (string, bool) {
		if v, ok := o.lookup(name); ok {
			return v, true
		}
		v, ok := dotEnv[name]
		return v, ok
	}
	for _, f := range files {
		m.given[f.Name] = true
	}
	for _, f := range files {
		doc, err := m.read(f)
		if err != nil {
			return err
		}
		m.model = mergeNodes(m.model, doc)
	}
	services := m.model.get("services")
	if services.isNull() {
		return &Error{File: files[0].Name, Err: fmt.Errorf("there are no services")}
	}
	g := &Group{Name: "default"}
	for _, name := range services.names() {
		service := services.get(name)
		if service.get("build").isNull() {
			continue
		}
		t, err := m.target(name, service)
		if err != nil {
			return err
		}
		c.addTarget(t)
		g.Targets = append(g.Targets, t.Name)
	}
	c.addGroup(g)
	return nil
}

// read parses a file, replaces its variables, and brings its services into one form.
func (m *composer) read(f File) (*node, error) {
	doc, err := readYAML(f, (&interpolator{m.env}).expand)
	if err != nil {
		return nil, err
	}
	if doc.keys == nil {
		return nil, doc.errorf("a map with the key services is expected")
	}
	included, err := m.include(f, doc)
	if err != nil {
		return nil, err
	}
	services := doc.get("services")
	if services.isNull() {
		return mergeNodes(included, doc), nil
	}
	if services.keys == nil {
		return nil, services.errorf("services: a map is expected")
	}
	for name, service := range services.keys {
		if err := normalizeService(name, service); err != nil {
			return nil, err
		}
	}
	for _, name := range services.names() {
		if services.keys[name], err = m.extend(f, services, name, 0); err != nil {
			return nil, err
		}
	}
	return mergeNodes(included, doc), nil
}

// normalizeService replaces the short forms of a service, so that those of several files can be
// merged.
func normalizeService(name string, service *node) error {
	if service.isNull() {
		return nil
	}
	if service.keys == nil {
		return service.errorf("service %s: a map is expected", name)
	}
	if files := service.get("env_file"); !files.isNull() && !files.isList() {
		one := *files
		*files = node{file: one.file, line: one.line, list: []*node{&one}}
	}
	build := service.get("build")
	if build.isNull() {
		return nil
	}
	if build.keys == nil && !build.isList() { // only the context
		context := *build
		*build = node{file: build.file, line: build.line, keys: map[string]*node{
			"context": &context}}
	}
	for _, key := range []string{"args", "labels", "additional_contexts", "extra_hosts", "ssh"} {
		list := build.get(key)
		if list == nil || !list.isList() {
			continue
		}
		list.keys = map[string]*node{}
		for _, element := range list.list {
			s, err := element.string(key)
			if err != nil {
				return err
			}
			k, v, ok := strings.Cut(s, "=")
			if key == "extra_hosts" && !ok {
				k, v, ok = strings.Cut(s, ":")
			}
			value := &node{file: element.file, line: element.line, tag: "!!null"}
			if ok {
				value.tag, value.text = "!!str", v
			}
			if have := list.keys[k]; have != nil && key == "extra_hosts" {
				value.text = have.text + "," + value.text
			}
			list.keys[k] = value
		}
		list.list = nil
	}
	return nil
}

// extend returns a service merged with the service that it extends.
func (m *composer) extend(f File, services *node, name string, depth int) (*node, error) {
	service := services.get(name)
	extends := service.get("extends")
	if extends.isNull() {
		return service, nil
	}
	if depth > maxNodeDepth {
		return nil, extends.errorf("service %s extends itself", name)
	}
	base, file := extends, ""
	if extends.keys != nil {
		base = extends.get("service")
		var err error
		if file, err = extends.get("file").string("file"); err != nil {
			return nil, err
		}
	}
	baseName, err := base.string("extends")
	if err != nil {
		return nil, err
	}
	from, dir := services, ""
	if file != "" && file != f.Name {
		if f, from, err = m.readExtended(f, file, extends); err != nil {
			return nil, err
		}
		dir = path.Dir(file)
	}
	if from.get(baseName) == nil {
		return nil, extends.errorf("service %s extends %s, which does not exist", name, baseName)
	}
	parent, err := m.extend(f, from, baseName, depth+1)
	if err != nil {
		return nil, err
	}
	own := *service
	own.keys = maps.Clone(service.keys)
	delete(own.keys, "extends")
	return mergeNodes(moved(parent, dir), &own), nil
}

// readExtended reads a file whose services another file extends. Its name is relative to the
// working directory in the files of the command line, as all their paths are, and else to the other
// file.
func (m *composer) readExtended(f File, name string, extends *node) (File, *node, error) {
	if m.o.ReadFile == nil {
		return f, nil, extends.errorf("extends: other files are not read")
	}
	if !m.given[f.Name] {
		name = joined(path.Dir(f.Name), name)
	}
	name = path.Clean(name)
	other, doc, err := m.readOther(name, "extends", extends)
	return other, doc.get("services"), err
}

// readOther reads a file that another one names by a key at a node.
func (m *composer) readOther(name, key string, at *node) (File, *node, error) {
	f := File{Name: name}
	if m.pending[name] {
		return f, nil, at.errorf("%s: %s names itself", key, name)
	}
	m.pending[name] = true
	defer delete(m.pending, name)
	data, err := m.o.ReadFile(name)
	if err == nil && len(data) > MaxSize {
		err = fmt.Errorf("the file has more than %d MiB", MaxSize>>20)
	}
	if err != nil {
		return f, nil, at.errorf("%s: %w", key, err)
	}
	f.Data = data
	if err := checkNesting(f); err != nil {
		return f, nil, err
	}
	doc, err := m.read(f)
	return f, doc, err
}

// moved returns a service of a file in a directory whose paths are relative to the directory of the
// file that extends it: contexts, keys for SSH and files of variables.
func moved(service *node, dir string) *node {
	if dir == "" || dir == "." {
		return service
	}
	file := func(n *node) *node { return n.movedTo(dir) }
	context := func(n *node) *node {
		if !isLocalContext(n.text) {
			return n
		}
		return n.movedTo(dir)
	}
	service = service.with("env_file", func(n *node) *node {
		return n.each(func(n *node) *node {
			if n.keys != nil {
				return n.with("path", file)
			}
			return file(n)
		})
	})
	return service.with("build", func(build *node) *node {
		build = build.with("context", context)
		build = build.with("additional_contexts", func(n *node) *node { return n.each(context) })
		return build.with("ssh", func(n *node) *node { return n.each(file) })
	})
}

// isLocalContext reports whether a context of a compose file is a directory.
func isLocalContext(where string) bool {
	return !strings.Contains(where, ":") && !strings.HasPrefix(where, "github.com/")
}

// movedTo returns a relative path relative to another directory.
func (n *node) movedTo(dir string) *node {
	if n.isNull() || n.text == "" || path.IsAbs(n.text) || strings.HasPrefix(n.text, "~") {
		return n
	}
	out := *n
	out.text = path.Join(dir, n.text)
	return &out
}

// target returns the target of a service.
func (m *composer) target(name string, service *node) (*Target, error) {
	b := service.get("build")
	if err := checkName(targetName(name)); err != nil {
		return nil, service.errorf("%w", err)
	}
	if b.keys == nil {
		return nil, b.errorf("build: a context or a map is expected")
	}
	t := &Target{Name: targetName(name), file: service.file, line: service.line}
	for _, set := range []func(*Target, *node) error{m.setTexts, m.setLists, m.setMaps,
		m.setFlags, m.setLimits, m.setSecrets, setAttests,
		func(t *Target, b *node) error { return m.setArgs(t, service, b) }, m.setExtension} {
		if err := set(t, b); err != nil {
			return nil, err
		}
	}
	image, err := service.get("image").string("image")
	if len(t.Tags) == 0 && image != "" {
		t.Tags = []string{image}
	}
	return t, err
}

// setTexts sets the attributes that are strings.
func (m *composer) setTexts(t *Target, b *node) error {
	for key, attribute := range map[string]string{"context": "context",
		"dockerfile": "dockerfile", "dockerfile_inline": "dockerfile-inline",
		"network": "network", "target": "target"} {
		s, err := b.get(key).string(key)
		if err != nil {
			return err
		}
		if s != "" {
			*t.text(attribute) = &s
		}
	}
	return nil
}

// setLists sets the attributes that are lists.
func (m *composer) setLists(t *Target, b *node) (err error) {
	if t.Tags, err = b.get("tags").strings("tags"); err != nil {
		return err
	}
	if t.Platforms, err = b.get("platforms").strings("platforms"); err != nil {
		return err
	}
	for key, attribute := range map[string]string{"cache_from": "cache-from",
		"cache_to": "cache-to"} {
		n := b.get(key)
		texts, err := n.strings(key)
		if err != nil || texts == nil {
			if err != nil {
				return err
			}
			continue
		}
		if *t.entries(attribute), err = parseEntries(attribute, texts); err != nil {
			return n.errorf("%s: %w", key, err)
		}
	}
	return nil
}

// setMaps sets the attributes with keys and values.
func (m *composer) setMaps(t *Target, b *node) (err error) {
	if t.Labels, err = b.get("labels").pairs("labels"); err != nil {
		return err
	}
	for key, value := range t.Labels {
		if value == nil {
			t.Labels[key] = pointer("")
		}
	}
	if t.ExtraHosts, err = hostsOf(b.get("extra_hosts")); err != nil {
		return err
	}
	contexts, err := b.get("additional_contexts").pairs("additional_contexts")
	if err != nil {
		return err
	}
	t.addContexts(contexts)
	ssh := b.get("ssh")
	paths, err := ssh.pairs("ssh")
	for _, id := range slices.Sorted(maps.Keys(paths)) {
		s := SSH{ID: id}
		if p := paths[id]; p != nil && *p != "" {
			s.Paths = []string{*p}
		}
		t.SSH = append(t.SSH, s)
	}
	return err
}

// hostsOf returns the addresses of hosts.
func hostsOf(n *node) (map[string]*string, error) {
	if n.isNull() {
		return nil, nil
	}
	out := map[string]*string{}
	for _, name := range n.names() {
		value := n.get(name)
		list := []*node{value}
		if value.isList() {
			list = value.list
		}
		var addresses []string
		for _, address := range list {
			s, err := address.string("extra_hosts")
			if err != nil {
				return nil, err
			}
			for one := range strings.SplitSeq(s, ",") {
				addresses = append(addresses, withoutBrackets(strings.TrimSpace(one)))
			}
		}
		out[strings.TrimSpace(name)] = pointer(strings.Join(addresses, ","))
	}
	return out, nil
}

// withoutBrackets returns the address of [ADDRESS], the form for IPv6 in compose files.
func withoutBrackets(address string) string {
	if inner, ok := strings.CutPrefix(address, "["); ok && strings.HasSuffix(inner, "]") {
		return strings.TrimSuffix(inner, "]")
	}
	return address
}

// addContexts adds named contexts that a target does not have. As in compose files, service:NAME is
// the result of another service.
func (t *Target) addContexts(contexts map[string]*string) {
	for name, where := range contexts {
		if _, ok := t.Contexts[name]; ok || where == nil {
			continue
		}
		if t.Contexts == nil {
			t.Contexts = map[string]string{}
		}
		value := *where
		for _, prefix := range []string{"service:", contextTarget} {
			if other, ok := strings.CutPrefix(value, prefix); ok {
				value = contextTarget + targetName(other)
				break
			}
		}
		t.Contexts[name] = value
	}
}

// setFlags sets the attributes that are true or false. As in buildx, false is the same as nothing.
func (m *composer) setFlags(t *Target, b *node) error {
	for key, attribute := range map[string]string{"pull": "pull", "no_cache": "no-cache"} {
		is, err := b.get(key).bool(key)
		if err != nil {
			return err
		}
		if is {
			*t.flag(attribute) = &is
		}
	}
	return nil
}

// setLimits sets the limits of the commands of RUN.
func (m *composer) setLimits(t *Target, b *node) error {
	shm := b.get("shm_size")
	s, err := shm.string("shm_size")
	if err != nil {
		return err
	}
	if s != "" {
		n, err := units.RAMInBytes(s)
		if err != nil {
			return shm.errorf("shm_size: %w", err)
		}
		if n > 0 {
			t.ShmSize = pointer(strings.TrimSuffix(units.BytesSize(float64(n)), "iB"))
			t.ShmSize = pointer(units.BytesSize(float64(n)))
		}
	}
	ulimits := b.get("ulimits")
	for _, name := range ulimits.names() {
		u := ulimits.get(name)
		soft, hard := u, u
		if u.keys != nil {
			soft, hard = u.get("soft"), u.get("hard")
		}
		limit, err := limitOf(name, soft, hard)
		if err != nil {
			return u.errorf("ulimits: %w", err)
		}
		t.Ulimits = append(t.Ulimits, limit)
	}
	return nil
}

// limitOf returns a limit in the form of --ulimit.
func limitOf(name string, soft, hard *node) (string, error) {
	var n [2]int64
	for i, value := range []*node{soft, hard} {
		s, err := value.string(name)
		if err != nil {
			return "", err
		}
		if n[i], err = strconv.ParseInt(s, 10, 64); s != "" && err != nil {
			return "", fmt.Errorf("%s is %q: a number is expected", name, s)
		}
	}
	u, err := units.ParseUlimit(fmt.Sprintf("%s=%d:%d", name, n[0], n[1]))
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

// setSecrets sets the secrets of a build. Their sources are at the top level.
func (m *composer) setSecrets(t *Target, b *node) error {
	list := b.get("secrets")
	if list.isNull() {
		return nil
	}
	if !list.isList() {
		return list.errorf("secrets: a list is expected")
	}
	for _, element := range list.list {
		id := element
		if element.keys != nil {
			id = element.get("source")
		}
		name, err := id.string("secrets")
		if err != nil {
			return err
		}
		if name == "" {
			return element.errorf("secrets: the source of a secret is missing")
		}
		source := m.model.get("secrets").get(name)
		if external, err := source.get("external").bool("external"); err != nil || external {
			return element.errorf("secret %s is external: its value is not in the file", name)
		}
		e := Entry{"id": name}
		for from, key := range map[string]string{"file": "src", "environment": "env"} {
			value, err := source.get(from).string(from)
			if err != nil {
				return err
			}
			if value != "" && key == "src" {
				value = path.Clean(value) // as buildx does
			}
			if value != "" {
				e[key] = value
			}
		}
		t.Secrets = append(t.Secrets, e)
	}
	return nil
}

// setAttests sets the attestations.
func setAttests(t *Target, b *node) error {
	for _, kind := range []string{"sbom", "provenance"} {
		n := b.get(kind)
		s, err := n.string(kind)
		if err != nil {
			return err
		}
		if s == "" {
			continue
		}
		list, err := parseEntries("attest", []string{Attestation(kind, s)})
		if err != nil {
			return n.errorf("%s: %w", kind, err)
		}
		t.Attest = append(t.Attest, list...)
	}
	return nil
}

// Attestation returns the value of an attestation for a value of --sbom or --provenance.
func Attestation(kind, value string) string {
	if is, err := strconv.ParseBool(value); err == nil {
		return fmt.Sprintf("type=%s,disabled=%t", kind, !is)
	}
	return "type=" + kind + "," + value
}

// setArgs sets the build arguments. One without a value takes that of the service's environment, or
// of the environment of the build.
func (m *composer) setArgs(t *Target, service, b *node) error {
	args, err := b.get("args").pairs("args")
	if err != nil {
		return err
	}
	own, err := m.environment(service)
	if err != nil {
		return err
	}
	for name, value := range args {
		if value != nil {
			continue
		}
		if v := own[name]; v != nil {
			args[name] = v
		} else if v, ok := m.env(name); ok {
			args[name] = &v
		} else {
			delete(args, name)
		}
	}
	t.Args = args
	return nil
}

// environment returns the variables of a service.
func (m *composer) environment(service *node) (map[string]*string, error) {
	out := map[string]*string{}
	files := service.get("env_file")
	list := []*node{files}
	if files != nil && files.isList() {
		list = files.list
	}
	for _, n := range list {
		if n.isNull() || m.o.ReadFile == nil {
			continue
		}
		optional := false
		if n.keys != nil {
			required, err := n.get("required").string("required")
			if err != nil {
				return nil, err
			}
			n, optional = n.get("path"), required == "false"
		}
		name, err := n.string("env_file")
		if err != nil || name == "" {
			return nil, err
		}
		data, err := m.o.ReadFile(name)
		if err != nil && !optional {
			return nil, n.errorf("env_file: %w", err)
		}
		vars, err := parseDotEnv(data, m.env)
		if err != nil {
			return nil, n.errorf("env_file %s: %w", name, err)
		}
		for key, value := range vars {
			out[key] = &value
		}
	}
	vars, err := service.get("environment").pairs("environment")
	maps.Copy(out, vars)
	return out, err
}

// setExtension sets what the key x-bake of a build section has: attributes for which compose files
// have no key.
func (m *composer) setExtension(t *Target, b *node) error {
	x := b.get("x-bake")
	for _, key := range x.names() {
		if err := setExtended(t, key, x.get(key)); err != nil {
			return err
		}
	}
	return nil
}

// setExtended sets one attribute of x-bake.
func setExtended(t *Target, key string, n *node) error {
	switch key {
	case "pull", "no-cache":
		is, err := n.bool(key)
		*t.flag(key) = &is
		return err
	case "contexts":
		contexts, err := n.pairs(key)
		t.addContexts(contexts)
		return err
	}
	var texts []string
	var err error
	if n.isList() {
		texts, err = n.strings(key)
	} else {
		var s string
		s, err = n.string(key)
		texts = strings.Fields(s)
	}
	if err != nil || len(texts) == 0 {
		return err
	}
	switch key {
	case "tags", "platforms", "no-cache-filter":
		*t.list(key) = uniqueStrings(append(*t.list(key), texts...))
	case "ssh":
		t.SSH = uniqueSSH(append(t.SSH, parseSSHs(texts)...))
		slices.SortFunc(t.SSH, func(a, b SSH) int { return strings.Compare(a.ID, b.ID) })
	case "cache-from", "cache-to", "secret", "output":
		list, err := parseEntries(key, texts)
		if err != nil {
			return n.errorf("%s: %w", key, err)
		}
		*t.entries(key) = uniqueEntries(key, append(*t.entries(key), list...))
	}
	return nil
}
