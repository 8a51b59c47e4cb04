package bake

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// attributeTypes has the types of the attributes of targets. Those of entries, whose elements may
// have different types, are cty.DynamicPseudoType.
func attributeTypes() map[string]cty.Type {
	list, texts := cty.List(cty.String), cty.Map(cty.String)
	return map[string]cty.Type{
		"annotations": list, "args": texts, "attest": cty.DynamicPseudoType,
		"cache-from": cty.DynamicPseudoType, "cache-to": cty.DynamicPseudoType,
		"call": cty.String, "context": cty.String, "contexts": texts,
		"description": cty.String, "dockerfile": cty.String, "dockerfile-inline": cty.String,
		"entitlements": list, "extra-hosts": texts, "inherits": list, "labels": texts,
		"network": cty.String, "no-cache": cty.Bool, "no-cache-filter": list,
		"output": cty.DynamicPseudoType, "platforms": list, "policy": cty.DynamicPseudoType,
		"pull": cty.Bool, "resources": texts, "secret": cty.DynamicPseudoType,
		"shm-size": cty.String, "ssh": cty.DynamicPseudoType, "tags": list,
		"target": cty.String, "targets": list, "ulimits": list,
	}
}

// attributeNames returns the names of the attributes of targets or groups.
func attributeNames(kind string) []string {
	if kind == "group" {
		return []string{"description", "targets"}
	}
	names := slices.Sorted(maps.Keys(attributeTypes()))
	return slices.DeleteFunc(names, func(name string) bool { return name == "targets" })
}

func attributeType(name string) cty.Type { return attributeTypes()[name] }

// convertAttribute converts the value of an attribute to its type.
func convertAttribute(name string, v cty.Value) (cty.Value, error) {
	t := attributeType(name)
	if t != cty.DynamicPseudoType {
		out, err := convert.Convert(v, t)
		if err != nil {
			return out, fmt.Errorf("%s: %w", name, err)
		}
		return out, nil
	}
	switch t := v.Type(); {
	case v.IsNull(), t.IsTupleType(), t.IsListType(), t.IsSetType():
		return v, nil
	case t.IsMapType(), t.IsObjectType():
		return v, fmt.Errorf("%s: a list is expected; write %s = [{ … }]", name, name)
	}
	return v, fmt.Errorf("%s: a list is expected", name)
}

// setAttribute sets an attribute of a target to a value of its type.
func (t *Target) setAttribute(name string, v cty.Value) error {
	if v.IsNull() {
		return nil
	}
	var err error
	switch name {
	case "description":
		t.Description = v.AsString()
	case "attest", "cache-from", "cache-to", "output", "secret":
		*t.entries(name), err = entriesOf(name, v)
	case "policy":
		var list []Entry
		list, err = entriesOf(name, v)
		t.Policy = policies(list)
	case "ssh":
		t.SSH, err = sshOf(v)
	case "resources":
		t.Resources, err = resourcesOf(v)
	case "pull", "no-cache":
		is := v.True()
		*t.flag(name) = &is
	case "args", "labels", "extra-hosts":
		*t.keys(name) = pointersOf(v)
	case "contexts":
		t.Contexts = map[string]string{}
		for key, value := range pointersOf(v) {
			if value != nil {
				t.Contexts[key] = *value
			}
		}
	case "context", "dockerfile", "dockerfile-inline", "target", "network", "shm-size", "call":
		s := v.AsString()
		*t.text(name) = &s
	default:
		*t.list(name), err = stringsOf(v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// entries returns the field of an attribute with entries.
func (t *Target) entries(name string) *[]Entry {
	switch name {
	case "attest":
		return &t.Attest
	case "cache-from":
		return &t.CacheFrom
	case "cache-to":
		return &t.CacheTo
	case "output":
		return &t.Outputs
	case "secret":
		return &t.Secrets
	}
	panic("unreachable")
}

// policies returns entries as policies.
func policies(list []Entry) []Policy {
	var out []Policy
	for _, e := range list {
		out = append(out, Policy(e))
	}
	return out
}

// text returns the field of an attribute that is a string.
func (t *Target) text(name string) **string {
	switch name {
	case "context":
		return &t.Context
	case "dockerfile":
		return &t.Dockerfile
	case "dockerfile-inline":
		return &t.DockerfileInline
	case "target":
		return &t.Target
	case "network":
		return &t.Network
	case "shm-size":
		return &t.ShmSize
	case "call":
		return &t.Call
	}
	panic("unreachable")
}

// flag returns the field of an attribute that is true or false.
func (t *Target) flag(name string) **bool {
	if name == "pull" {
		return &t.Pull
	}
	return &t.NoCache
}

// keys returns the field of an attribute with keys and values.
func (t *Target) keys(name string) *map[string]*string {
	switch name {
	case "args":
		return &t.Args
	case "labels":
		return &t.Labels
	case "extra-hosts":
		return &t.ExtraHosts
	}
	panic("unreachable")
}

// list returns the field of an attribute that is a list of strings.
func (t *Target) list(name string) *[]string {
	switch name {
	case "annotations":
		return &t.Annotations
	case "entitlements":
		return &t.Entitlements
	case "inherits":
		return &t.Inherits
	case "no-cache-filter":
		return &t.NoCacheFilter
	case "platforms":
		return &t.Platforms
	case "tags":
		return &t.Tags
	case "ulimits":
		return &t.Ulimits
	}
	panic("unreachable")
}

var errNullElement = errors.New("an element is null; a string is expected")

// stringsOf returns the strings of a list.
func stringsOf(v cty.Value) ([]string, error) {
	list := []string{}
	for _, element := range v.Elements() {
		if element.IsNull() {
			return nil, errNullElement
		}
		list = append(list, element.AsString())
	}
	return list, nil
}

// pointersOf returns the keys and values of a map; nil stands for null.
func pointersOf(v cty.Value) map[string]*string {
	out := map[string]*string{}
	for key, value := range v.Elements() {
		if out[key.AsString()] = nil; !value.IsNull() {
			s := value.AsString()
			out[key.AsString()] = &s
		}
	}
	return out
}

// elementsOf calls one with each element of a list, as a text or as keys and values. It leaves out
// empty texts.
func elementsOf(v cty.Value, text func(string) error, keys func(cty.Value) error) error {
	for _, element := range v.Elements() {
		var err error
		switch t := element.Type(); {
		case element.IsNull():
			err = errNullElement
		case t == cty.String && element.AsString() == "":
		case t == cty.String:
			err = text(element.AsString())
		case t.IsObjectType(), t.IsMapType():
			err = keys(element)
		default:
			err = errors.New("an element is neither a string nor an object")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// entriesOf returns the entries of a list.
func entriesOf(name string, v cty.Value) ([]Entry, error) {
	list := []Entry{}
	err := elementsOf(v, func(s string) error {
		parsed, err := parseEntries(name, []string{s})
		list = append(list, parsed...)
		return err
	}, func(object cty.Value) error {
		texts, err := convert.Convert(object, cty.Map(cty.String))
		if err != nil {
			return err
		}
		e := Entry{}
		for key, value := range pointersOf(texts) {
			if value != nil {
				e[key] = *value
			}
		}
		kind := kindOf(name)
		e, err = kind.complete(e)
		list = append(list, e)
		return err
	})
	return list, err
}

// sshOf returns the agents of a list.
func sshOf(v cty.Value) ([]SSH, error) {
	list := []SSH{}
	err := elementsOf(v, func(s string) error {
		list = append(list, parseSSH(s))
		return nil
	}, func(object cty.Value) error {
		s := SSH{}
		for key, value := range object.Elements() {
			if value.IsNull() {
				continue
			}
			switch name := key.AsString(); name {
			case "id":
				id, err := convert.Convert(value, cty.String)
				if err != nil {
					return fmt.Errorf("id: %w", err)
				}
				s.ID = id.AsString()
			case "paths":
				paths, err := convert.Convert(value, cty.List(cty.String))
				if err != nil {
					return fmt.Errorf("paths: %w", err)
				}
				if s.Paths, err = stringsOf(paths); err != nil {
					return err
				}
			default:
				return fmt.Errorf("unknown key %q (known: id, paths)", name)
			}
		}
		list = append(list, s)
		return nil
	})
	return list, err
}

// resourcesOf returns the limits of an object.
func resourcesOf(v cty.Value) (*Resources, error) {
	r := &Resources{}
	for key, value := range pointersOf(v) {
		if value == nil {
			continue
		}
		if err := r.set(key, *value); err != nil {
			return nil, err
		}
	}
	return r, nil
}
