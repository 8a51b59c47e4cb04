package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/giturl"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/source"
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
		if value == "" && (key == "fs" || key == "fs.read" || key == "fs.write") {
			return g, badValue("allow", s, errors.New("a path is missing; * is any path"))
		}
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
	needed := map[string]bool{}
	for _, t := range list {
		for _, name := range g.lacks(&t.flags) {
			needed[name] = true
		}
	}
	if checksFiles(e) {
		f.checkPlaces(e, g, list, needed)
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

// noVariables is the variable with which the variables of HCL files do not take their values from
// the environment, if it is true.
const noVariables = "BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP"

// boolOf reports whether the value of a variable of the environment is true.
func boolOf(value string) bool {
	on, err := strconv.ParseBool(value)
	return err == nil && on
}

// checksFiles reports whether files need permissions.
func checksFiles(e *env) bool {
	on, err := strconv.ParseBool(e.getenv(noFileChecks))
	return err != nil || on
}

// checkRead returns an error for a file that a compose file names, if the command line does not
// permit to read it. Variables of the file can be a part of what a target sends away.
func (f *bakeFlags) checkRead(e *env, name string) error {
	g, err := parseGrants(f.allow)
	if err != nil || !checksFiles(e) || g.permits(append(g.read, "."), name) {
		return err
	}
	if _, err := os.Stat(name); err != nil {
		return plainError(err)
	}
	return fmt.Errorf("%s is outside of the working directory; add --allow=fs.read=%[1]s", name)
}

// checkPlaces adds the permissions for places that targets need and the command line does not give.
// A place in the working directory needs none, unless it is below a directory to which a target
// writes files: one of them could be a link that leads out, when the place is used.
func (f *bakeFlags) checkPlaces(e *env, g grants, list []*bakeTarget, needed map[string]bool) {
	all := make([]places, len(list))
	var trees []string
	for i, t := range list {
		all[i] = placesOf(e, t)
		trees = append(trees, all[i].trees...)
	}
	ask := func(names []string, later bool, kind string, permitted, attributes []string) {
		for _, name := range names {
			allowed := slices.Clone(permitted)
			if !later || !below(name, trees) && !below(filepath.Clean(name), trees) {
				allowed = append(allowed, ".")
			}
			if !g.permits(allowed, name) && !f.isSet(name, attributes) {
				needed[kind+name] = true
			}
		}
	}
	for _, p := range all {
		if !g.ssh && (p.agent && !f.isSet("default", readAttributes) ||
			slices.ContainsFunc(p.ssh, func(address string) bool {
				return !f.isSet(address, readAttributes) && !f.remote.names(address)
			})) {
			needed["ssh"] = true
		}
		ask(p.first, false, "fs.read=", g.read, readAttributes)
		ask(p.read, true, "fs.read=", g.read, readAttributes)
		ask(p.write, true, "fs.write=", g.write, writeAttributes)
	}
}

// below reports whether a place is in one of some directories, and is none of them.
func below(name string, trees []string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool {
		return within(name, tree) && !within(tree, name)
	})
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

// isSet reports whether a value of --set for some attributes has a path: the user has given it.
func (f *bakeFlags) isSet(path string, attributes []string) bool {
	return slices.ContainsFunc(f.sets, func(s string) bool {
		key, value, _ := strings.Cut(s, "=")
		names := strings.SplitN(strings.TrimSuffix(key, "+"), ".", 3)
		if len(names) < 2 || !slices.Contains(attributes, names[1]) {
			return false
		}
		return slices.ContainsFunc(strings.FieldsFunc(value, func(r rune) bool {
			return r == '=' || r == ','
		}), func(field string) bool {
			return strings.TrimPrefix(field, "cwd://") == path
		})
	})
}

// Attributes with places of this machine, as --set has them.
var (
	readAttributes = []string{"cache-from", "context", "contexts", "dockerfile", "secret",
		"secrets", "ssh"}
	writeAttributes = []string{"cache-to", "output"}
)

// places are the files and directories of this machine that a build uses.
type places struct {
	// first are those that are read before any target is built, and read those that are read later.
	first, read []string
	write       []string
	trees       []string // directories of write to which the files of the target are written
	agent       bool     // it uses the SSH agent
	ssh         []string // contexts that are fetched with the user's SSH keys
}

// placesOf returns the places of a target. They are read from the flags of its build, with the
// parsers of the flags: a bake file can give a value in forms of which the build makes another
// path. A value that is not valid has no places, since the build returns the error.
func placesOf(e *env, t *bakeTarget) (p places) {
	p.addContexts(t)
	for _, s := range cachePlaces(t.flags.cacheFrom) {
		if place, err := remotecache.ParseFrom(s); err == nil && place.Dir != "" {
			p.read = append(p.read, place.Dir)
		}
	}
	for _, s := range t.flags.cacheTo {
		if place, err := remotecache.ParseTo(s); err == nil && place.Dir != "" {
			p.write = append(p.write, place.Dir)
		}
	}
	for _, s := range t.flags.secrets {
		if given, _ := parseSecret(s, e.getenv); given.File != "" { // also of a missing file
			p.read = append(p.read, given.File)
		}
	}
	for _, s := range t.flags.ssh {
		_, files, _ := strings.Cut(s, "=")
		if files == "" {
			p.agent = true
			continue
		}
		p.first = append(p.first, strings.Split(files, ",")...)
	}
	for _, s := range t.flags.outputs {
		if spec, err := export.Parse(s); err == nil && spec.Dest != "" && spec.Dest != "-" {
			p.write = append(p.write, spec.Dest)
			if spec.Type == export.TypeLocal {
				p.trees = append(p.trees, spec.Dest)
			}
		}
	}
	return p
}

// addContexts adds the contexts of a target and its Dockerfile.
func (p *places) addContexts(t *bakeTarget) {
	main := t.args[0]
	if isPlace(main) {
		p.first = append(p.first, main)
	} else if giturl.IsSSH(main) {
		p.ssh = append(p.ssh, main)
	}
	if info, err := os.Stat(main); err == nil && info.IsDir() && t.DockerfileInline == nil &&
		!isHTTP(string(t.flags.file)) {
		file := source.DockerfilePath(main, source.Options{Dockerfile: string(t.flags.file)})
		if !within(file, main) {
			p.first = append(p.first, file)
		}
	}
	for _, s := range t.flags.contexts {
		_, where, _ := strings.Cut(s, "=")
		switch {
		case strings.HasPrefix(where, image.SchemeName):
		case strings.HasPrefix(where, image.SchemeLayout):
			ref, err := imageref.Parse(where, imageref.Options{Exists: image.Exists})
			if err == nil {
				p.read = append(p.read, ref.Path)
			}
		case isPlace(where):
			p.read = append(p.read, where)
		case giturl.IsSSH(where):
			p.ssh = append(p.ssh, where)
		}
	}
}

// isPlace reports whether a context is a place on this machine. An address is one if it is also the
// path of a file, as for build.
func isPlace(where string) bool { return image.Exists(where) || !isAddress(where) }

func isHTTP(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

// permits reports whether a file is in one of the permitted directories, or is one of the files.
// The paths of outputs are shortened before they are used, and those of other places are not: after
// a link, the two may be different files.
func (g *grants) permits(permitted []string, name string) bool {
	in := func(name string) bool {
		return slices.ContainsFunc(permitted, func(dir string) bool {
			return dir == "*" || within(name, dir)
		})
	}
	return in(name) && in(filepath.Clean(name))
}

// within reports whether a file is in a directory, or is the directory, after links are resolved.
func within(name, dir string) bool {
	real, top := resolved(name), resolved(dir)
	return real == top || strings.HasPrefix(real, strings.TrimSuffix(top, "/")+"/")
}

// resolved returns the absolute path of a file, with links resolved as far as it exists.
func resolved(name string) string {
	if !filepath.IsAbs(name) {
		dir, err := os.Getwd()
		if err != nil {
			return name
		}
		name = dir + "/" + name
	}
	// A ".." after a link leads to the parent of the directory to which the link leads.
	real, rest := "/", strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		next := rest[0]
		rest = rest[1:]
		if next == "" {
			continue
		}
		real = filepath.Join(real, next)
		if to, err := os.Readlink(real); err == nil && links < maxLinks {
			links++
			if real = filepath.Dir(real); filepath.IsAbs(to) {
				real = "/"
			}
			rest = append(strings.Split(to, "/"), rest...)
		}
	}
	return real
}

// maxLinks is the number of links that the kernel follows in a path.
const maxLinks = 40
