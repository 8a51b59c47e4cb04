package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/bake"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
)

// grants are the permissions of --allow.
type grants struct {
	network, insecure, ssh bool
	allDevices             bool
	devices                []string // names
	read, write            []string // directories and files; "*" is all
}

// parseGrants parses the values of --allow.
func parseGrants(values []string) (g grants, err error) {
	for _, s := range values {
		key, value, _ := strings.Cut(s, "=")
		switch key {
		case "network.host":
			g.network = true
		case "security.insecure":
			g.insecure = true
		case "ssh":
			g.ssh = true
		case "fs.read":
			g.read = append(g.read, value)
		case "fs.write":
			g.write = append(g.write, value)
		case "fs":
			g.read, g.write = append(g.read, value), append(g.write, value)
		case "device":
			name, _, _ := strings.Cut(value, ",") // an alias follows
			g.allDevices = g.allDevices || name == ""
			g.devices = append(g.devices, name)
		case "image", "image.push", "image.load", "buildx.local.delete":
			// nothing asks for them
		default:
			return g, badValue("allow", s, errors.New("network.host, security.insecure, "+
				"device[=NAME], ssh, fs=PATH, fs.read=PATH or fs.write=PATH is expected"))
		}
	}
	return g, nil
}

// noFileChecks is the variable with which buildx turns the permissions for files off, if it is
// false.
const noFileChecks = "BUILDX_BAKE_ENTITLEMENTS_FS"

// checkAccess returns an error if targets ask for what the command line does not permit: the
// network of the host, commands without confinement, and files outside the working directory. The
// files may come from elsewhere, and must not send the user's files away.
func (f *bakeFlags) checkAccess(e *env, list []*bakeTarget) error {
	g, err := parseGrants(f.allow)
	if err != nil {
		return err
	}
	g.read, g.write = append(g.read, "."), append(g.write, ".")
	needed := map[string]bool{}
	for _, t := range list {
		for _, name := range g.lacks(&t.flags) {
			needed[name] = true
		}
		if on, err := strconv.ParseBool(e.getenv(noFileChecks)); err == nil && !on {
			continue
		}
		read, write, agent := filesOf(t.Target)
		if agent && !g.ssh && !f.isSet("default") {
			needed["ssh"] = true
		}
		for _, name := range read {
			if !g.permits(g.read, name) && !f.isSet(name) {
				needed["fs.read="+name] = true
			}
		}
		for _, name := range write {
			if !g.permits(g.write, name) && !f.isSet(name) {
				needed["fs.write="+name] = true
			}
		}
	}
	if len(needed) == 0 {
		return nil
	}
	var flags []string
	for name := range needed {
		flags = append(flags, "--allow="+name)
	}
	slices.Sort(flags)
	return fmt.Errorf("the targets ask for more than the command line permits; add %s",
		strings.Join(flags, " "))
}

// lacks returns the permissions that a build gets from its entitlements and the command line does
// not give. They are read from the flags of the build: an entitlement can have several, separated
// by commas.
func (g *grants) lacks(flags *buildFlags) (list []string) {
	var o imagebuild.Options
	if err := flags.permissions(&o); err != nil {
		return nil // target returns the error
	}
	if o.Run.HostNetwork && !g.network {
		list = append(list, "network.host")
	}
	if o.Run.Insecure && !g.insecure {
		list = append(list, "security.insecure")
	}
	allowed := &o.Run.Devices.Allowed
	if allowed.All && !g.allDevices {
		list = append(list, "device")
	}
	for _, name := range allowed.Names {
		if !g.device(name) {
			list = append(list, "device="+name)
		}
	}
	for alias, name := range allowed.Aliases {
		if !g.device(name) {
			list = append(list, "device="+name+",alias="+alias)
		}
	}
	return list
}

// device reports whether a device is permitted.
func (g *grants) device(name string) bool {
	return g.allDevices || slices.Contains(g.devices, name)
}

// isSet reports whether a value of --set has a path: the user has given it.
func (f *bakeFlags) isSet(path string) bool {
	return slices.ContainsFunc(f.sets, func(s string) bool {
		_, value, _ := strings.Cut(s, "=")
		return slices.Contains(strings.FieldsFunc(value, func(r rune) bool {
			return r == '=' || r == ','
		}), path)
	})
}

// filesOf returns the files and directories of this machine that a target reads and writes. agent
// is set if it uses the SSH agent.
func filesOf(t *bake.Target) (read, write []string, agent bool) {
	local := func(where string) {
		where = strings.TrimPrefix(where, "cwd://")
		if _, linked := bake.LinkedTarget(where); !linked && !isAddress(where) {
			read = append(read, where)
		}
	}
	local(*t.Context)
	if file := dockerfileOf(t); file != "" && file != "-" {
		local(file)
	}
	for _, where := range t.Contexts {
		local(strings.TrimPrefix(where, "oci-layout://"))
	}
	for _, e := range t.CacheFrom {
		if e["type"] == "local" {
			read = append(read, e["src"])
		}
	}
	for _, e := range t.CacheTo {
		if e["type"] == "local" {
			write = append(write, e["dest"])
		}
	}
	for _, e := range t.Secrets {
		name := e["src"]
		if _, set := os.LookupEnv(e["id"]); name == "" && e["env"] == "" && !set {
			name = e["id"]
		}
		if name != "" {
			read = append(read, name)
		}
	}
	for _, s := range t.SSH {
		read = append(read, s.Paths...)
		agent = agent || len(s.Paths) == 0
	}
	for _, e := range t.Outputs {
		if dest := e["dest"]; dest != "" && dest != "-" {
			write = append(write, dest)
		}
	}
	return read, write, agent
}

// permits reports whether a file is in one of the permitted directories, or is one of the files.
func (g *grants) permits(permitted []string, name string) bool {
	real := resolved(name)
	return slices.ContainsFunc(permitted, func(dir string) bool {
		if dir == "*" || dir == "" {
			return true
		}
		top := resolved(dir)
		return real == top || strings.HasPrefix(real, strings.TrimSuffix(top, "/")+"/")
	})
}

// resolved returns the absolute path of a file, with links resolved as far as it exists.
func resolved(name string) string {
	abs, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	for dir, rest := abs, ""; ; {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		}
		if dir == filepath.Dir(dir) {
			return abs
		}
		dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest)
	}
}
