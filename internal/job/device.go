package job

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cdi"
	"github.com/layerbuild/layerbuild/internal/runmount"
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
	return runmount.AddDevices(p, &r.devices.Edits)
}
