package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/units"
	"github.com/spf13/pflag"
)

// runOptions parses the options for RUN.
func (f *buildFlags) runOptions(o *imagebuild.Options, _ *env) error {
	for _, h := range f.addHosts {
		host, err := parseHost(h)
		if err != nil {
			return err
		}
		o.Run.Hosts = append(o.Run.Hosts, host)
	}
	var err error
	if o.Run.ShmSize, o.Run.Ulimits, err = parseLimits(f.shmSize, f.ulimits); err != nil {
		return err
	}
	if o.Run.Caps, err = f.caps.set(); err != nil {
		return err
	}
	if o.Run.ResolvConf, err = f.dns.file(); err != nil {
		return err
	}
	for _, v := range f.volumes {
		volume, err := parseBuildVolume(v)
		if err != nil {
			return badValue("volume", v, err)
		}
		o.Run.Volumes = append(o.Run.Volumes, volume)
	}
	if err := checkSpecDirs(f.specDirs); err != nil {
		return err
	}
	o.Run.Devices.Dirs = f.specDirs
	return f.permissions(o)
}

// networkValue is the value of --network. The values of other programs are refused with the reason.
type networkValue struct{ choice }

// networkUsage is the end of the usage of --network.
const networkUsage = "host is the network of this machine, and default means the same. none is a " +
	"network with the loopback device only. The other networks of docker and podman are refused."

// newNetwork returns the value of --network of build or run.
func newNetwork(value *string) networkValue {
	return networkValue{newChoice(value, "host", "host", "none", "default")}
}

// Set sets the network. The network that docker calls default is that of this machine here.
func (v networkValue) Set(s string) error {
	if s == "" || slices.Contains(v.allowed, s) {
		err := v.choice.Set(s)
		if s == "default" {
			*v.value = "host"
		}
		return err
	}
	why := "layerbuild makes no networks"
	switch kind, place, _ := strings.Cut(s, ":"); kind {
	case "container":
		why = "there are no other containers"
	case "ns":
		why = "to use that network, give host, and start layerbuild in it: nsenter --net=" +
			place + " layerbuild"
		return errors.New(why)
	case "private", "pasta", "slirp4netns":
		why = "commands get no network of their own that reaches other machines"
	}
	return fmt.Errorf("%s; give host, which is the network of this machine, or none", why)
}

// defineLimits defines --shm-size and --ulimit.
func defineLimits(fs *pflag.FlagSet, shmSize *string, ulimits *[]string) {
	fs.StringVar(shmSize, "shm-size", "", "`SIZE` size of /dev/shm, such as 64m (MiB)")
	fs.Var((*list)(ulimits), "ulimit", "`NAME=SOFT[:HARD]` resource limit\n"+
		"For example, --ulimit nofile=1024:2048 limits the number of open files. The value -1 "+
		"means no limit.")
}

// parseLimits parses the values of --shm-size and --ulimit.
func parseLimits(shmSize string, ulimits []string) (int64, []executor.Ulimit, error) {
	size := int64(0)
	if shmSize != "" {
		var err error
		if size, err = units.ParseDocker(shmSize); err != nil {
			return 0, nil, badValue("shm-size", shmSize, err)
		}
	}
	var list []executor.Ulimit
	for _, u := range ulimits {
		limit, err := parseUlimit(u)
		if err != nil {
			return 0, nil, err
		}
		list = setLast(list, limit, func(l executor.Ulimit) bool { return l.Name == limit.Name })
	}
	return size, list, nil
}

// parseBuildVolume parses the value of --volume of build.
func parseBuildVolume(value string) (imagebuild.Volume, error) {
	m, err := parseVolume(value)
	if err != nil {
		return imagebuild.Volume{}, err
	}
	v := imagebuild.Volume{Target: m.Target, ReadOnly: m.ReadOnly, NoSuid: m.NoSuid,
		NoExec: m.NoExec}
	switch source := m.Source.(type) {
	case executor.Bind:
		v.Source = source.Source
	case overlaid:
		v.Source, v.Overlay = source.Source, true
	default:
		return v, errors.New("SOURCE:TARGET[:ro] is expected")
	}
	return v, nil
}

// permission is a value of --allow of buildx build or buildx bake.
type permission struct {
	name string
	// why is the reason why the permission has no effect; "": it has one.
	why string
}

// Reasons that several permissions have.
const (
	noPermission = "layerbuild does what the command line names without a permission"
)

var permissions = [...]permission{
	{name: "network.host"}, {name: "security.insecure"}, {name: "device"},
	{"fs", noPermission}, {"fs.read", noPermission}, {"fs.write", noPermission},
	{"image", noPermission}, {"image.load", noPermission}, {"image.push", noPermission},
	{"ssh", noPermission},
	{"buildx.local.delete", "it permits mode=delete of -o type=local, which is refused"},
}

// otherPermissions lists the permissions without effect.
func otherPermissions() string {
	var names []string
	for _, p := range permissions {
		if p.why != "" {
			names = append(names, p.name)
		}
	}
	return joinWords(names, "and") + "."
}

// permissions sets the permissions that --allow gives.
func (f *buildFlags) permissions(o *imagebuild.Options) error {
	devices := &o.Run.Devices.Allowed
	device := "" // the name, after device=NAME
	for _, a := range f.allow {
		name, value, _ := strings.Cut(a, "=")
		i := slices.IndexFunc(permissions[:], func(p permission) bool { return p.name == name })
		switch {
		case name == "network.host":
			o.Run.HostNetwork = true
		case name == "security.insecure":
			o.Run.Insecure = true
		case name == "device" && value == "":
			devices.All = true
		case name == "device":
			devices.Names = append(devices.Names, value)
		case name == "alias" && device != "" && value != "": // device=NAME,alias=ALIAS has a comma
			devices.Names = devices.Names[:len(devices.Names)-1]
			if devices.Aliases == nil {
				devices.Aliases = map[string]string{}
			}
			devices.Aliases[value] = device
		case i < 0:
			return badValue("allow", a,
				errors.New("network.host, security.insecure or device[=NAME] is expected"))
		}
		if device = ""; name == "device" {
			device = value
		}
	}
	return nil
}

// checkSpecDirs returns an error if a value of --cdi-spec-dir is not a directory.
func checkSpecDirs(dirs []string) error {
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			err = errors.New("a directory is expected")
		}
		if err != nil {
			return badValue("cdi-spec-dir", dir, plainError(err))
		}
	}
	return nil
}

// setLast adds a value of a repeated flag to the list. It replaces an earlier value for the same
// name, as docker does.
func setLast[T any](list []T, v T, same func(T) bool) []T {
	return append(slices.DeleteFunc(list, same), v)
}

// parseHost parses HOST:IP or HOST=IP; IPv6 addresses may be in brackets.
func parseHost(s string) (executor.Host, error) {
	name, ip, ok := strings.Cut(s, "=")
	if !ok {
		name, ip, ok = strings.Cut(s, ":")
	}
	if inner, bracket := strings.CutPrefix(ip, "["); bracket {
		inner, ok = strings.CutSuffix(inner, "]")
		ip = inner
	}
	if ip == "host-gateway" {
		ip = "127.0.0.1" // commands share the host's network
	}
	if _, err := netip.ParseAddr(ip); err != nil || !ok || name == "" ||
		strings.ContainsAny(name, " \t\n#") {
		return executor.Host{}, badValue("add-host", s,
			errors.New("HOST:IP is expected, with an address or host-gateway for IP"))
	}
	return executor.Host{Name: name, IP: ip}, nil
}

func parseUlimit(s string) (executor.Ulimit, error) {
	name, value, ok := strings.Cut(s, "=")
	name = strings.ToLower(name)
	soft, hard, two := strings.Cut(value, ":")
	if !two {
		hard = soft
	}
	a, err1 := strconv.ParseInt(soft, 10, 64)
	b, err2 := strconv.ParseInt(hard, 10, 64)
	if !ok || name == "" || err1 != nil || err2 != nil || a < -1 || b < -1 {
		return executor.Ulimit{}, badValue("ulimit", s,
			errors.New("NAME=SOFT[:HARD] is expected, two numbers, -1 for no limit"))
	}
	if err := executor.CheckUlimit(name); err != nil {
		return executor.Ulimit{}, badValue("ulimit", s, err)
	}
	if b != -1 && (a == -1 || a > b) {
		return executor.Ulimit{}, badValue("ulimit", s,
			errors.New("the soft limit is above the hard one"))
	}
	return executor.Ulimit{Name: name, Soft: a, Hard: b}, nil
}
