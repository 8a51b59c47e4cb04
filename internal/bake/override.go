package bake

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Override is a value of --set for targets.
type Override struct {
	// Names are the targets.
	Names []string
	// Attribute is the name of the attribute in the files, or push or load.
	Attribute string
	// Key is the key of an attribute with keys and values; "" for other attributes.
	Key string
	// Append adds the value to a list.
	Append bool
	Value  string
}

// overrideAliases maps names of --set to those of the attributes.
var overrideAliases = map[string]string{
	"annotation": "annotations", "arg": "args", "entitlement": "entitlements",
	"extra-host": "extra-hosts", "label": "labels", "platform": "platforms",
	"resource": "resources", "secrets": "secret", "tag": "tags", "ulimit": "ulimits",
}

// overridable are the attributes that --set can change, in messages.
const overridable = "args, annotations, attest, cache-from, cache-to, call, context, contexts, " +
	"dockerfile, entitlements, extra-hosts, labels, load, network, no-cache, no-cache-filter, " +
	"output, platform, policy, pull, push, resources, secrets, shm-size, ssh, tags, target, " +
	"ulimits"

// ParseOverride parses TARGET.ATTRIBUTE[.KEY][+]=VALUE, where TARGET may be a pattern. Without a
// value, an argument takes that of the environment; ok is false if there is none.
func (c *Config) ParseOverride(s string,
	lookup func(string) (string, bool)) (o Override, ok bool, err error) {
	left, value, given := strings.Cut(s, "=")
	left, o.Append = strings.CutSuffix(left, "+")
	names := strings.SplitN(left, ".", 3)
	if len(names) < 2 {
		return o, false, errors.New("TARGET.ATTRIBUTE=VALUE is expected")
	}
	if o.Attribute = names[1]; overrideAliases[o.Attribute] != "" {
		o.Attribute = overrideAliases[o.Attribute]
	}
	if len(names) > 2 {
		o.Key = names[2]
	}
	if err := o.checkKey(names[1]); err != nil {
		return o, false, err
	}
	if o.Value = value; !given {
		if o.Attribute != "args" {
			return o, false, errors.New("the value is missing")
		}
		if o.Value, given = lookup(o.Key); !given {
			return o, false, nil
		}
	}
	o.Names, err = c.matchTargets(names[0])
	return o, true, err
}

// checkKey checks whether the attribute exists and has keys. name is the attribute as given.
func (o *Override) checkKey(name string) error {
	switch o.Attribute {
	case "args", "contexts", "labels", "extra-hosts", "resources":
		if o.Key == "" {
			return fmt.Errorf("%s needs a name: TARGET.%s.NAME=VALUE", name, name)
		}
		return nil
	case "secret":
		if o.Key != "" && o.Append {
			return errors.New("a secret with an ID cannot be appended to")
		}
		return nil
	}
	if !slices.Contains(strings.Split(overridable, ", "), o.Attribute) &&
		o.Attribute != "platforms" {
		return fmt.Errorf("%s cannot be set (known: %s)", name, overridable)
	}
	if o.Key != "" {
		return fmt.Errorf("%s has no names: TARGET.%s=VALUE is expected", name, name)
	}
	return nil
}

// matchTargets returns the targets whose names match a pattern.
func (c *Config) matchTargets(pattern string) ([]string, error) {
	if c.target(pattern) != nil {
		return []string{pattern}, nil
	}
	var names []string
	for _, t := range c.Targets {
		ok, err := path.Match(pattern, t.Name)
		if err != nil {
			return nil, fmt.Errorf("the pattern %q: %w", pattern, err)
		}
		if ok {
			names = append(names, t.Name)
		}
	}
	if len(names) == 0 {
		return nil, c.unknown("target", pattern, false)
	}
	return names, nil
}

// apply changes a target. The overrides are all those of the target, in the order of the command
// line.
func (t *Target) apply(list []Override) error {
	replaced := map[string]bool{} // lists that an earlier override has set
	for _, o := range list {
		if err := t.applyOne(o, replaced); err != nil {
			return fmt.Errorf("--set %s.%s: %w", t.Name, o.Attribute, err)
		}
	}
	return nil
}

func (t *Target) applyOne(o Override, replaced map[string]bool) (err error) {
	value := o.Value
	switch o.Attribute {
	case "context", "dockerfile", "target", "network", "shm-size", "call":
		*t.text(o.Attribute) = &value
	case "args", "labels", "extra-hosts":
		overrideKeys(t.keys(o.Attribute), map[string]*string{o.Key: &value})
	case "contexts":
		if t.Contexts == nil {
			t.Contexts = map[string]string{}
		}
		t.Contexts[o.Key] = value
	case "resources":
		r := t.Resources.merge(&Resources{})
		err = r.set(o.Key, value)
		t.Resources = r
	case "no-cache", "pull", "push", "load":
		is, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%q: true or false is expected", value)
		}
		t.setFlag(o.Attribute, is)
	case "secret":
		if o.Key != "" {
			return t.setSecret(o.Key, value)
		}
		err = t.applyList(o, replaced)
	default:
		err = t.applyList(o, replaced)
	}
	return err
}

// applyList sets or extends a list. An empty value empties it. Several values without + are all
// elements of the new list.
func (t *Target) applyList(o Override, replaced map[string]bool) error {
	keeps := o.Append || replaced[o.Attribute]
	if o.Attribute == "annotations" || o.Attribute == "entitlements" || o.Attribute == "attest" {
		keeps = true // as in buildx
	}
	if o.Value == "" && !o.Append {
		keeps = false
	}
	replaced[o.Attribute] = replaced[o.Attribute] || !o.Append
	var values []string
	if o.Value != "" {
		values = []string{o.Value}
	}
	switch o.Attribute {
	case "ssh":
		setOrAppend(&t.SSH, parseSSHs(values), keeps)
	case "attest", "cache-from", "cache-to", "output", "secret", "policy":
		list, err := parseEntries(o.Attribute, values)
		if err != nil {
			return err
		}
		if o.Attribute == "policy" {
			setOrAppend(&t.Policy, policies(list), keeps)
			return nil
		}
		setOrAppend(t.entries(o.Attribute), list, keeps)
	default:
		setOrAppend(t.list(o.Attribute), values, keeps)
	}
	return nil
}

// setOrAppend sets a list, or appends to it, in memory of its own.
func setOrAppend[T any](list *[]T, values []T, keeps bool) {
	if !keeps {
		*list = nil
	}
	*list = slices.Concat(*list, values)
}

// setSecret sets the source of the secret with an ID: FILE, src=FILE or env=NAME.
func (t *Target) setSecret(id, value string) error {
	e := Entry{"src": value}
	if strings.Contains(value, "=") {
		var err error
		if e, err = parseFields(value); err != nil {
			return err
		}
	}
	if other, ok := e["id"]; ok && other != id {
		return fmt.Errorf("the value has another ID, %s", other)
	}
	declared := func(s Entry) bool { return s["id"] == id }
	if !slices.ContainsFunc(t.Secrets, declared) {
		return fmt.Errorf("the target has no secret %s; add one with %s.secret+=id=%s,…", id,
			t.Name, id)
	}
	e["id"] = id
	e, err := checkSecret(e)
	t.Secrets = uniqueEntries("secret", append(slices.Clone(t.Secrets), e))
	return err
}

// setFlag sets an attribute that is true or false.
func (t *Target) setFlag(name string, is bool) {
	switch name {
	case "push":
		t.setPush(is)
	case "load":
		t.setLoad(is)
	default:
		*t.flag(name) = &is
	}
}

// setPush has the images of outputs pushed or not. As in buildx, an output that pushes is added
// unless there is one of another type than docker.
func (t *Target) setPush(push bool) {
	var list []Entry
	other := false
	for _, e := range t.Outputs {
		other = other || e["type"] != "docker"
		switch {
		case e["type"] == "registry" && !push:
			continue
		case e["type"] == "image":
			e = cloneEntry(e)
			e["push"] = strconv.FormatBool(push)
		}
		list = append(list, e)
	}
	if push && !other {
		list = append(list, Entry{"type": "image", "push": "true"})
	}
	t.Outputs = list
}

// setLoad adds an output that loads the image into docker, unless an output has another use.
func (t *Target) setLoad(load bool) {
	for _, e := range t.Outputs {
		switch e["type"] {
		case "image", "registry", "oci":
		case "docker":
			load = load && e["dest"] != ""
		default:
			load = false
		}
	}
	if load {
		t.Outputs = append(slices.Clone(t.Outputs), Entry{"type": "docker"})
	}
}

func cloneEntry(e Entry) Entry {
	out := Entry{}
	for key, value := range e {
		out[key] = value
	}
	return out
}

// set sets a limit.
func (r *Resources) set(name, value string) error {
	texts := map[string]**string{"memory": &r.Memory, "memory-swap": &r.MemorySwap,
		"cpuset-cpus": &r.CPUSetCPUs, "cpuset-mems": &r.CPUSetMems}
	numbers := map[string]**int64{"cpu-shares": &r.CPUShares, "cpu-period": &r.CPUPeriod,
		"cpu-quota": &r.CPUQuota}
	if field := texts[name]; field != nil {
		*field = &value
		return nil
	}
	field := numbers[name]
	if field == nil {
		return fmt.Errorf("unknown limit %q", name)
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return fmt.Errorf("%s is %q: a whole number is expected", name, value)
	}
	*field = &n
	return nil
}
