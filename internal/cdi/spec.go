package cdi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// spec is a specification: the content of a file.
type spec struct {
	Version     string      `json:"cdiVersion" yaml:"cdiVersion"`
	Kind        string      `json:"kind" yaml:"kind"`
	Annotations annotations `json:"annotations,omitempty" yaml:"annotations,omitempty"`
	Devices     []device    `json:"devices" yaml:"devices"`
	// Edits are made for each command that gets a device of the specification.
	Edits edits `json:"containerEdits" yaml:"containerEdits,omitempty"`

	file string // its name
}

// device is a device of a specification.
type device struct {
	Name        string      `json:"name" yaml:"name"`
	Annotations annotations `json:"annotations,omitempty" yaml:"annotations,omitempty"`
	Edits       edits       `json:"containerEdits" yaml:"containerEdits"`
}

// edits are the changes of a container that a device needs, as they are in a file.
type edits struct {
	Env         []string    `json:"env,omitempty" yaml:"env,omitempty"`
	DeviceNodes []Node      `json:"deviceNodes,omitempty" yaml:"deviceNodes,omitempty"`
	NetDevices  []netDevice `json:"netDevices,omitempty" yaml:"netDevices,omitempty"`
	Hooks       []Hook      `json:"hooks,omitempty" yaml:"hooks,omitempty"`
	Mounts      []Mount     `json:"mounts,omitempty" yaml:"mounts,omitempty"`
	IntelRdt    *intelRdt   `json:"intelRdt,omitempty" yaml:"intelRdt,omitempty"`
	Groups      []uint32    `json:"additionalGids,omitempty" yaml:"additionalGids,omitempty"`
}

// Node is a device node or a fifo in a container.
type Node struct {
	// Path is its path in the container.
	Path string `json:"path" yaml:"path"`
	// HostPath is the node of the host; "": it has the same path.
	HostPath string `json:"hostPath,omitempty" yaml:"hostPath,omitempty"`
	// Type is b, c (or u) or p for a fifo; "": that of the node of the host.
	Type string `json:"type,omitempty" yaml:"type,omitempty"`
	// Major and Minor are its number. If Major is 0, they are those of the node of the host.
	Major int64 `json:"major,omitempty" yaml:"major,omitempty"`
	Minor int64 `json:"minor,omitempty" yaml:"minor,omitempty"`
	// FileMode is its mode; nil: that of the node of the host.
	FileMode *uint32 `json:"fileMode,omitempty" yaml:"fileMode,omitempty"`
	// Permissions has the letters of r, w and m that are permitted; "" is all, none is none.
	Permissions string `json:"permissions,omitempty" yaml:"permissions,omitempty"`
	// UID and GID are its owner; nil: the user of the command.
	UID *uint32 `json:"uid,omitempty" yaml:"uid,omitempty"`
	GID *uint32 `json:"gid,omitempty" yaml:"gid,omitempty"`
}

// Mount is a file or directory of the host in a container.
type Mount struct {
	HostPath      string   `json:"hostPath" yaml:"hostPath"`
	ContainerPath string   `json:"containerPath" yaml:"containerPath"`
	Options       []string `json:"options,omitempty" yaml:"options,omitempty"`
	Type          string   `json:"type,omitempty" yaml:"type,omitempty"`
}

// Hook is a program of the host that prepares a container.
type Hook struct {
	// Name says when it is executed: one of hookNames.
	Name string `json:"hookName" yaml:"hookName"`
	// Path is a file of the host. Args is the argument list with the program's name; empty: Path.
	Path string   `json:"path" yaml:"path"`
	Args []string `json:"args,omitempty" yaml:"args,omitempty"`
	// Env is the whole environment.
	Env []string `json:"env,omitempty" yaml:"env,omitempty"`
	// Timeout is the number of seconds that it may run; nil: it is not limited.
	Timeout *int `json:"timeout,omitempty" yaml:"timeout,omitempty"`
}

type intelRdt struct {
	ClosID           string   `json:"closID,omitempty" yaml:"closID,omitempty"`
	L3CacheSchema    string   `json:"l3CacheSchema,omitempty" yaml:"l3CacheSchema,omitempty"`
	MemBwSchema      string   `json:"memBwSchema,omitempty" yaml:"memBwSchema,omitempty"`
	Schemata         []string `json:"schemata,omitempty" yaml:"schemata,omitempty"`
	EnableMonitoring bool     `json:"enableMonitoring,omitempty" yaml:"enableMonitoring,omitempty"`
}

type netDevice struct {
	HostInterfaceName string `json:"hostInterfaceName" yaml:"hostInterfaceName"`
	Name              string `json:"name" yaml:"name"`
}

// annotations are strings. In JSON, as in YAML, a value may also be a boolean or a number.
type annotations map[string]string

// UnmarshalJSON reads an object whose values are neither objects nor lists.
func (a *annotations) UnmarshalJSON(data []byte) error {
	var values map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&values); err != nil {
		return err
	}
	*a = annotations{}
	for key, value := range values {
		switch value.(type) {
		case map[string]any, []any, nil:
			return fmt.Errorf("annotation %s: a string is expected", key)
		}
		(*a)[key] = fmt.Sprint(value)
	}
	return nil
}

// parse reads and checks the content of a file. The name of the file determines its language.
func parse(name string, data []byte) (*spec, error) {
	s := &spec{file: name}
	read := readYAML
	if strings.HasSuffix(name, ".json") {
		read = readJSON
	}
	if err := read(data, s); err != nil {
		return nil, err
	}
	return s, s.check()
}

func readJSON(data []byte, s *spec) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err := dec.Decode(s)
	if err == nil {
		if _, err = dec.Token(); err == nil {
			err = errors.New("there is text after the object")
		} else if err == io.EOF {
			err = nil
		}
	}
	offset := int64(-1)
	if err == io.ErrUnexpectedEOF {
		offset = int64(len(data))
		err = errors.New("the text ends within a value")
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = e.Offset
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		offset = e.Offset
		err = fmt.Errorf("%s: a value of the type %s cannot be a %s", e.Field, e.Type, e.Value)
	}
	switch {
	case err == nil:
		return checkKeys(json.NewDecoder(bytes.NewReader(data)))
	case err == io.EOF:
		return errors.New("the file is empty")
	case offset >= 0:
		line := 1 + bytes.Count(data[:min(offset, int64(len(data)))], []byte("\n"))
		return fmt.Errorf("line %d: %w", line, err)
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

// checkKeys returns an error if an object of the next value has a key twice. Package json uses the
// last one, and package yaml reports the same error.
func checkKeys(dec *json.Decoder) error {
	token, err := dec.Token()
	if err != nil || token != json.Delim('{') && token != json.Delim('[') {
		return err
	}
	keys := map[json.Token]bool{}
	for dec.More() {
		if token == json.Delim('{') {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			if keys[key] {
				return fmt.Errorf("the key %q is there twice", key)
			}
			keys[key] = true
		}
		if err := checkKeys(dec); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

func readYAML(data []byte, s *spec) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	err := dec.Decode(s)
	if err == io.EOF {
		return errors.New("the file is empty")
	}
	if err != nil {
		return yamlError(err)
	}
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case err == io.EOF:
		return nil
	case err != nil:
		return yamlError(err)
	}
	return fmt.Errorf("line %d: a file has one document", second.Line)
}

// yamlError returns the first line of an error of package yaml that names a line of the file,
// without the names of Go's types.
func yamlError(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if _, list, ok := strings.Cut(text, "unmarshal errors:\n  "); ok {
		text, _, _ = strings.Cut(list, "\n")
	}
	before, _, _ := strings.Cut(text, " in type cdi.")
	text, _, _ = strings.Cut(before, " into cdi.")
	return errors.New(text)
}

// The released versions of the specification of CDI, from old to new.
var versions = [...]string{"0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"}

// features lists what a version has added, and whether a specification uses it.
var features = [...]struct {
	version, name string
	used          func(s *spec, d device) bool
}{
	{"1.1.0", "netDevices", func(_ *spec, d device) bool { return len(d.Edits.NetDevices) > 0 }},
	{"1.1.0", "schemata or enableMonitoring of intelRdt", func(_ *spec, d device) bool {
		i := d.Edits.IntelRdt
		return i != nil && (i.Schemata != nil || i.EnableMonitoring)
	}},
	{"0.7.0", "intelRdt", func(_ *spec, d device) bool { return d.Edits.IntelRdt != nil }},
	{"0.7.0", "additionalGids", func(_ *spec, d device) bool { return len(d.Edits.Groups) > 0 }},
	{"0.6.0", "annotations", func(_ *spec, d device) bool { return len(d.Annotations) > 0 }},
	{"0.6.0", "a class with a dot", func(s *spec, _ device) bool {
		_, class, _ := strings.Cut(s.Kind, "/")
		return strings.Contains(class, ".")
	}},
	{"0.5.0", "a device whose name begins with a digit", func(_ *spec, d device) bool {
		return d.Name != "" && isDigit(d.Name[0])
	}},
	{"0.5.0", "hostPath of a device node", func(_ *spec, d device) bool {
		return slices.ContainsFunc(d.Edits.DeviceNodes,
			func(n Node) bool { return n.HostPath != "" })
	}},
	{"0.4.0", "type of a mount", func(_ *spec, d device) bool {
		return slices.ContainsFunc(d.Edits.Mounts, func(m Mount) bool { return m.Type != "" })
	}},
}

// check returns an error for a specification that is not valid.
func (s *spec) check() error {
	version := slices.Index(versions[:], strings.TrimPrefix(s.Version, "v"))
	if version < 0 {
		return fmt.Errorf("cdiVersion %q: one of %s is expected", s.Version,
			strings.Join(versions[:], ", "))
	}
	if err := checkKind(s.Kind); err != nil {
		return err
	}
	parts := append(slices.Clone(s.Devices), device{Annotations: s.Annotations, Edits: s.Edits})
	for _, f := range features {
		needed := slices.Index(versions[:], f.version)
		uses := func(d device) bool { return f.used(s, d) }
		if version < needed && slices.ContainsFunc(parts, uses) {
			return fmt.Errorf("%s needs cdiVersion %s, and it is %s", f.name, f.version, s.Version)
		}
	}
	if err := s.Edits.check(); err != nil {
		return fmt.Errorf("containerEdits: %w", err)
	}
	if len(s.Devices) == 0 {
		return errors.New("there are no devices")
	}
	seen := map[string]bool{}
	for _, d := range s.Devices {
		if err := d.check(); err != nil {
			return err
		}
		if seen[d.Name] {
			return fmt.Errorf("device %q: there are two", d.Name)
		}
		seen[d.Name] = true
	}
	return nil
}

func (d *device) check() error {
	if err := checkDeviceName(d.Name); err != nil {
		return err
	}
	e := &d.Edits
	if len(e.Env)+len(e.DeviceNodes)+len(e.NetDevices)+len(e.Hooks)+len(e.Mounts)+
		len(e.Groups) == 0 && e.IntelRdt == nil {
		return fmt.Errorf("device %q: containerEdits is empty", d.Name)
	}
	if err := e.check(); err != nil {
		return fmt.Errorf("device %q: %w", d.Name, err)
	}
	return nil
}

// hookNames lists the hooks of a container (runtime-spec, config.md, POSIX-platform Hooks).
var hookNames = []string{"prestart", "createRuntime", "createContainer", "startContainer",
	"poststart", "poststop"}

func (e *edits) check() error {
	if err := checkEnv(e.Env); err != nil {
		return err
	}
	for _, n := range e.DeviceNodes {
		if err := n.check(); err != nil {
			return err
		}
	}
	for _, h := range e.Hooks {
		if !slices.Contains(hookNames, h.Name) {
			return fmt.Errorf("hookName %q: one of %s is expected", h.Name,
				strings.Join(hookNames, ", "))
		}
		if h.Path == "" {
			return fmt.Errorf("hook %s: path is missing", h.Name)
		}
		if strings.Contains(h.Path+strings.Join(h.Args, ""), "\x00") {
			return fmt.Errorf("hook %s: a path or an argument has no NUL", h.Name)
		}
		if h.Timeout != nil && (*h.Timeout <= 0 || *h.Timeout > math.MaxInt32) {
			return fmt.Errorf("hook %s: timeout %d: a number of seconds above 0 is expected",
				h.Name, *h.Timeout)
		}
		if err := checkEnv(h.Env); err != nil {
			return fmt.Errorf("hook %s: %w", h.Name, err)
		}
	}
	for _, m := range e.Mounts {
		if m.HostPath == "" || m.ContainerPath == "" {
			return fmt.Errorf("mount of %q at %q: hostPath or containerPath is missing", m.HostPath,
				m.ContainerPath)
		}
		if strings.Contains(m.HostPath+m.ContainerPath, "\x00") {
			return fmt.Errorf("mount of %q at %q: a path has no NUL", m.HostPath, m.ContainerPath)
		}
	}
	if i := e.IntelRdt; i != nil && i.ClosID != "/" && (len(i.ClosID) >= 4096 || i.ClosID == "." ||
		i.ClosID == ".." || strings.ContainsAny(i.ClosID, "/\n")) {
		return fmt.Errorf("closID %q: the name of a directory is expected", i.ClosID)
	}
	return checkNetDevices(e.NetDevices)
}

func checkEnv(env []string) error {
	for _, v := range env {
		if strings.IndexByte(v, '=') <= 0 || strings.Contains(v, "\x00") {
			return fmt.Errorf("env %q: NAME=VALUE is expected", v)
		}
	}
	return nil
}

func checkNetDevices(list []netDevice) error {
	hosts, names := map[string]bool{}, map[string]bool{}
	for _, n := range list {
		if n.HostInterfaceName == "" || n.Name == "" {
			return fmt.Errorf("net device %q: hostInterfaceName or name is missing",
				n.HostInterfaceName+n.Name)
		}
		if hosts[n.HostInterfaceName] || names[n.Name] {
			return fmt.Errorf("net device %q at %q: there are two", n.HostInterfaceName, n.Name)
		}
		hosts[n.HostInterfaceName], names[n.Name] = true, true
	}
	return nil
}

func (n *Node) check() error {
	switch {
	case n.Path == "":
		return errors.New("device node: path is missing")
	case strings.Contains(n.Path+n.HostPath, "\x00"):
		return fmt.Errorf("device node %q: a path has no NUL", n.Path)
	case !slices.Contains([]string{"", "b", "c", "u", "p"}, n.Type):
		return fmt.Errorf("device node %s: type %q: b, c, u or p is expected", n.Path, n.Type)
	case n.Major < 0 || n.Minor < 0:
		return fmt.Errorf("device node %s: the number %d:%d is negative", n.Path, n.Major, n.Minor)
	case n.Permissions != noPermissions && strings.Trim(n.Permissions, "rwm") != "":
		return fmt.Errorf("device node %s: permissions %q: some of r, w and m are expected, or "+
			"none", n.Path, n.Permissions)
	}
	return nil
}

// noPermissions is the value of Node.Permissions for a node that cannot be opened.
const noPermissions = "none"
