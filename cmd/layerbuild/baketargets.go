package main

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/bake"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
)

// bakeTarget is a target with the flags of a build that has the same result.
type bakeTarget struct {
	*bake.Target
	flags    buildFlags
	args     []string // the arguments of the build: its context
	options  imagebuild.Options
	result   *imagebuild.Result
	warnings targetWarnings
	// silent is set if the target is checked for others, and no result is printed.
	silent bool
}

// targets returns the builds of all targets, in the order of their names.
func (f *bakeFlags) targets(e *env, def *bake.Definition) ([]*bakeTarget, error) {
	for name, t := range def.Targets {
		if err := f.remote.place(t); err != nil {
			return nil, fmt.Errorf("target %s: %w", name, err)
		}
	}
	var list []*bakeTarget
	for _, name := range targetNames(def) {
		t, err := f.target(e, def.Targets[name])
		if err != nil {
			return nil, fmt.Errorf("target %s: %w", name, err)
		}
		list = append(list, t)
	}
	if err := f.checkAccess(e, list); err != nil {
		return nil, err
	}
	for _, t := range list {
		if err := f.complete(e, t); err != nil {
			return nil, fmt.Errorf("target %s: %w", t.Name, err)
		}
	}
	skipUnneeded(list)
	return list, checkTargetsApart(list)
}

// builds reports whether the target is built, and not only checked.
func (t *bakeTarget) builds() bool {
	return !t.options.Check && !t.options.Outline && !t.options.ListTargets
}

// skipUnneeded has the targets checked that are only contexts of targets that are checked, too.
func skipUnneeded(list []*bakeTarget) {
	needed := map[string]bool{}
	var need func(t *bakeTarget)
	need = func(t *bakeTarget) {
		if needed[t.Name] {
			return
		}
		needed[t.Name] = true
		for _, where := range t.Contexts {
			name, _ := bake.LinkedTarget(where)
			for _, other := range list {
				if other.Name == name {
					need(other)
				}
			}
		}
	}
	for _, t := range list {
		if t.builds() && !t.Linked {
			need(t)
		}
	}
	for _, t := range list {
		if t.Linked && t.builds() && !needed[t.Name] {
			t.options.Check, t.silent = true, true
		}
	}
}

// target returns the build of a target with its flags: its attributes are parsed as the flags of
// build. complete sets the options.
func (f *bakeFlags) target(e *env, from *bake.Target) (*bakeTarget, error) {
	t := &bakeTarget{Target: from}
	args, err := f.commandLine(e, from)
	if err != nil {
		return nil, err
	}
	fs := newFlagSet(buildVerb())
	t.flags.define(fs)
	t.flags.others.define(fs, otherFlags[:])
	if err := fs.Parse(args); err != nil {
		return nil, flagError(fs, err)
	}
	t.args = fs.Args()
	return t, nil
}

// complete sets the options of a target.
func (f *bakeFlags) complete(e *env, t *bakeTarget) (err error) {
	if t.flags.call.action == describeCall {
		return badValue("call", describeCall, errNoDescribe)
	}
	t.flags.state = f.state
	if t.flags.call.format == "" {
		t.flags.call.format = f.call.format
	}
	t.flags.call.ignoreStatus = t.flags.call.ignoreStatus || f.call.ignoreStatus
	if t.options, err = t.flags.options(e, t.args); err != nil {
		return err
	}
	f.state.registry = t.flags.state.registry // with the insecure hosts of caches
	t.options.Name = t.Name
	if f.metadataFile != "" {
		if t.options.Attest.Metadata, err = metadataDetail(e); err != nil {
			return err
		}
	}
	for name, where := range t.Contexts {
		if _, ok := bake.LinkedTarget(where); ok {
			t.options.Source.Contexts[name] = where
		}
	}
	if t.DockerfileInline != nil {
		t.options.Source.Inline = *t.DockerfileInline
	}
	return t.options.CheckOutputs()
}

// commandLine returns the flags and the argument of a build that has the result of a target.
func (f *bakeFlags) commandLine(e *env, t *bake.Target) ([]string, error) {
	if *t.Context == "-" || *t.Dockerfile == "-" {
		return nil, fmt.Errorf("the context and the Dockerfile cannot be standard input")
	}
	var args []string
	add := func(flag string, values ...string) {
		for _, v := range values {
			args = append(args, "--"+flag+"="+v)
		}
	}
	add("build-arg", pairs(t.Args, "=")...)
	add("label", pairs(t.Labels, "=")...)
	for _, host := range pairs(t.ExtraHosts, ":") {
		name, addresses, _ := strings.Cut(host, ":")
		for address := range strings.SplitSeq(addresses, ",") {
			add("add-host", name+":"+address)
		}
	}
	add("annotation", t.Annotations...)
	add("tag", t.Tags...)
	add("cache-from", texts(t.CacheFrom)...)
	add("cache-to", texts(t.CacheTo)...)
	add("output", texts(t.Outputs)...)
	add("attest", texts(t.Attest)...)
	add("secret", append(texts(t.Secrets), f.remote.secrets(e, t)...)...)
	add("policy", texts(t.Policy)...)
	add("ssh", texts(t.SSH)...)
	add("platform", t.Platforms...)
	add("no-cache-filter", t.NoCacheFilter...)
	add("ulimit", t.Ulimits...)
	add("resource", t.Resources.List()...)
	add("allow", t.Entitlements...)
	for flag, value := range map[string]*string{"target": t.Target, "network": t.Network,
		"shm-size": t.ShmSize, "call": t.Call} {
		if value != nil && *value != "" {
			add(flag, *value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Contexts)) {
		where := t.Contexts[name]
		if _, ok := bake.LinkedTarget(where); !ok {
			add("build-context", name+"="+strings.TrimPrefix(where, "cwd://"))
		}
	}
	if t.Pull != nil && *t.Pull {
		add("pull", "always")
	}
	if t.NoCache != nil && *t.NoCache {
		add("no-cache", "true")
	}
	if file := dockerfileOf(t); file != "" {
		add("file", file)
	}
	add("cdi-spec-dir", f.specDirs...)
	add("jobs", string(f.jobs))
	return append(args, "--", *t.Context), nil
}

// pairs returns the keys and values of a map in the order of the keys.
func pairs(m map[string]*string, separator string) []string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if m[key] != nil {
			list = append(list, key+separator+*m[key])
		}
	}
	return list
}

// texts returns values in the form of flags.
func texts[T fmt.Stringer](list []T) []string {
	var out []string
	for _, v := range list {
		out = append(out, v.String())
	}
	return out
}

// dockerfileOf returns the value of --file for a target: "" for the file Dockerfile of the context.
// Other than that of build, the path is always relative to the context.
func dockerfileOf(t *bake.Target) string {
	name := *t.Dockerfile
	local, inCwd := strings.CutPrefix(name, "cwd://")
	info, err := os.Stat(*t.Context)
	switch {
	case t.DockerfileInline != nil:
		return "-"
	case inCwd:
		return path.Clean(local)
	case name == "Dockerfile", strings.Contains(name, "://"), filepath.IsAbs(name),
		err != nil || !info.IsDir():
		if name == "Dockerfile" {
			return ""
		}
		return name
	}
	return filepath.Join(*t.Context, name)
}

// checkTargetsApart returns an error if two targets write to the same file.
func checkTargetsApart(list []*bakeTarget) error {
	files := map[string]string{}
	for _, t := range list {
		for _, spec := range t.options.Outputs {
			place := realPlace(spec.Dest)
			if spec.Dest == "-" {
				place = spec.Dest
			}
			if place == "" || spec.Dir {
				continue
			}
			if other, ok := files[place]; ok {
				return fmt.Errorf("targets %s and %s both write to %s", other, t.Name, spec.Dest)
			}
			files[place] = t.Name
		}
	}
	return nil
}
