package job

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cdi"
	"github.com/layerbuild/layerbuild/parser"
)

// DeviceOptions holds the options for RUN --device.
type DeviceOptions struct {
	// Dirs lists the directories of specifications; nil: those of cdi.DefaultDirs.
	Dirs    []string
	Allowed cdi.Permission
}

// machine has the devices of the machine. They are read when a command first requests one, and only
// once, so that all commands of a build see the same specifications.
type machine struct {
	once    sync.Once
	devices *cdi.Devices
}

// resolve returns what a command gets for the devices that it requests; nil if it requests none.
func (m *machine) resolve(list []parser.RunDevice, o DeviceOptions) (*cdi.Resolved, error) {
	if len(list) == 0 {
		return nil, nil
	}
	m.once.Do(func() {
		dirs := o.Dirs
		if dirs == nil {
			dirs = cdi.DefaultDirs()
		}
		m.devices = cdi.Read(dirs)
	})
	requests := make([]cdi.Request, len(list))
	for i, d := range list {
		requests[i] = cdi.Request(d)
	}
	return m.devices.Resolve(requests, o.Allowed)
}

// resolveDevices sets the devices of the command and their part of the key.
func (r *runAction) resolveDevices(m *machine) (err error) {
	if r.devices, err = m.resolve(r.instr.Devices, r.opts.Devices); err == nil {
		r.deviceKey, err = deviceKey(r.devices)
	}
	return err
}

// deviceKey returns the part of a key for the devices of a command: their names and all that the
// command gets for them, but not the content of mounted files of the host. It is "" without
// devices.
func deviceKey(r *cdi.Resolved) (string, error) {
	if r == nil || len(r.Names) == 0 {
		return "", nil
	}
	edits, err := json.Marshal(r.Edits)
	if err != nil {
		return "", fmt.Errorf("make the key of a step: %w", err)
	}
	return "devices " + strings.Join(r.Names, " ") + " " + string(edits), nil
}

// addDevices adds the edits of the command's devices to its process.
func (r *runAction) addDevices(p *executor.Process, out Output) error {
	if r.devices == nil {
		return nil
	}
	for _, missing := range r.devices.Missing {
		out.Warn(missing + "; the command runs without it")
	}
	e := &r.devices.Edits
	for _, kv := range e.Env {
		p.Env = setVariable(p.Env, kv)
	}
	p.Groups = e.Groups
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
