package bake

import (
	"encoding/json"
	"slices"
	"strings"
)

// escape escapes what would be evaluated if the output of --print were read as a file.
func escape(s string) string {
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(s)
}

// escapeAll escapes the values of a map.
func escapeAll(m map[string]*string) map[string]*string {
	out := make(map[string]*string, len(m))
	for key, value := range m {
		if out[key] = value; value != nil {
			out[key] = pointer(escape(*value))
		}
	}
	return out
}

// MarshalJSON returns the entry as an object. Of an attestation, disabled is not a string.
func (e Entry) MarshalJSON() ([]byte, error) {
	m := make(map[string]any, len(e))
	for key, value := range e {
		if m[key] = value; key == "disabled" {
			m[key] = true
		}
	}
	return json.Marshal(m)
}

// MarshalJSON returns the policy with the keys of buildx.
func (p Policy) MarshalJSON() ([]byte, error) {
	type file struct {
		Filename string
		Data     []byte
	}
	out := struct {
		Files           []file
		Reset, Disabled bool
		Strict          *bool
		LogLevel        *string
	}{Reset: p["reset"] == "true", Disabled: p["disabled"] == "true"}
	if name := p["filename"]; name != "" {
		out.Files = []file{{Filename: name}}
	}
	if strict, ok := p["strict"]; ok {
		is := strict == "true"
		out.Strict = &is
	}
	if level, ok := p["log-level"]; ok {
		out.LogLevel = &level
	}
	return json.Marshal(out)
}

// MarshalJSON returns the target in the form of --print, which can be read as docker-bake.json.
func (t *Target) MarshalJSON() ([]byte, error) {
	type plain Target
	out := plain(*t)
	out.Args, out.Labels = escapeAll(t.Args), escapeAll(t.Labels)
	out.ExtraHosts = escapeAll(t.ExtraHosts)
	out.Annotations = slices.Clone(t.Annotations)
	for i, a := range out.Annotations {
		out.Annotations[i] = escape(a)
	}
	if t.DockerfileInline != nil {
		out.DockerfileInline = pointer(escape(*t.DockerfileInline))
	}
	return json.Marshal(out)
}

// JSON returns the definition in the form of --print.
func (d *Definition) JSON() ([]byte, error) {
	return json.MarshalIndent(struct {
		Group  map[string]*Group  `json:"group,omitempty"`
		Target map[string]*Target `json:"target"`
	}{d.Groups, d.Targets}, "", "  ")
}

// Listed is a target or group for --list targets.
type Listed struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Group       bool   `json:"group,omitempty"`
}

// List returns the targets and groups in the order of their names, without those whose names begin
// with an underscore.
func (c *Config) List() []Listed {
	var list []Listed
	for _, t := range c.Targets {
		list = append(list, Listed{Name: t.Name, Description: t.Description})
	}
	for _, g := range c.Groups {
		names := slices.Sorted(slices.Values(g.Targets))
		about := strings.Join(names, ", ")
		if g.Description != "" && about != "" {
			about = g.Description + " (" + about + ")"
		} else if about == "" {
			about = g.Description
		}
		list = append(list, Listed{Name: g.Name, Description: about, Group: true})
	}
	list = slices.DeleteFunc(list, func(l Listed) bool { return strings.HasPrefix(l.Name, "_") })
	slices.SortStableFunc(list, func(a, b Listed) int { return strings.Compare(a.Name, b.Name) })
	return list
}
