package runmount

import (
	"path"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cdi"
)

// AddDevices adds the edits of CDI specifications for a command's devices to its process. A
// variable or a mount replaces an earlier one.
func AddDevices(p *executor.Process, e *cdi.Edits) error {
	for _, kv := range e.Env {
		p.Env = setVariable(p.Env, kv)
	}
	p.Groups = append(p.Groups, e.Groups...)
	for _, n := range e.Nodes {
		p.Mounts = setMount(p.Mounts, executor.Mount{Target: n.Path, Source: deviceOf(n)})
	}
	for _, m := range e.Mounts {
		f, err := m.Flags()
		if err != nil {
			return err
		}
		p.Mounts = setMount(p.Mounts, executor.Mount{Target: m.ContainerPath,
			Source:   executor.Bind{Source: m.HostPath, Single: !f.Recursive},
			ReadOnly: f.ReadOnly, NoSuid: f.NoSuid, NoExec: f.NoExec})
	}
	for _, h := range e.Hooks {
		hook := executor.Hook{Path: h.Path, Args: h.Args, Env: h.Env}
		if h.Timeout != nil {
			hook.Timeout = time.Duration(*h.Timeout) * time.Second
		}
		p.Hooks = append(p.Hooks, hook)
	}
	return nil
}

func deviceOf(n cdi.Node) executor.Device {
	d := executor.Device{Host: n.HostPath, Type: n.Type, Major: uint32(n.Major),
		Minor: uint32(n.Minor), Mode: n.FileMode, UID: n.UID, GID: n.GID, Closed: n.Closed()}
	if d.Host == "" {
		d.Host = n.Path
	}
	if d.Type == "u" {
		d.Type = "c"
	}
	return d
}

// setVariable sets a variable. It replaces an earlier value in its place.
func setVariable(env []string, kv string) []string {
	name, _, _ := strings.Cut(kv, "=")
	i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	if i < 0 {
		return append(env, kv)
	}
	env[i] = kv
	return env
}

// setMount adds a mount. It replaces an earlier one at the same path, as in BuildKit.
func setMount(list []executor.Mount, m executor.Mount) []executor.Mount {
	list = slices.DeleteFunc(list, func(e executor.Mount) bool {
		return path.IsAbs(e.Target) && path.Clean(e.Target) == path.Clean(m.Target)
	})
	return append(list, m)
}
