package cdi

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Edits are the changes of a command's container that its devices need, in their order.
type Edits struct {
	// Env has variables, which replace those of the image.
	Env    []string `json:",omitempty"`
	Nodes  []Node   `json:",omitempty"`
	Mounts []Mount  `json:",omitempty"`
	// Hooks are executed in their order, before the command is.
	Hooks []Hook `json:",omitempty"`
	// Groups has further groups of the command's user.
	Groups []uint32 `json:",omitempty"`
}

// edit sets the edits of the resolved devices: for each specification its own, once, and then those
// of the device. It returns an error for a device that needs what a build cannot do.
func (d *Devices) edit(r *Resolved) error {
	seen := map[*spec]bool{}
	for _, name := range r.Names {
		f := d.found[name]
		list := []*edits{&f.spec.Edits, &f.Edits}
		if seen[f.spec] {
			list = list[1:]
		}
		seen[f.spec] = true
		for _, e := range list {
			if err := e.supported(); err != nil {
				return fmt.Errorf("device %s cannot be used: %s has %w", name, f.spec.file, err)
			}
			r.Edits.Env = append(r.Edits.Env, e.Env...)
			r.Edits.Nodes = append(r.Edits.Nodes, e.DeviceNodes...)
			r.Edits.Mounts = append(r.Edits.Mounts, e.Mounts...)
			r.Edits.Hooks = append(r.Edits.Hooks, e.Hooks...)
			for _, g := range e.Groups {
				// as in BuildKit, 0 is left out
				if g != 0 && !slices.Contains(r.Edits.Groups, g) {
					r.Edits.Groups = append(r.Edits.Groups, g)
				}
			}
		}
	}
	// An OCI runtime executes all hooks of a kind before those of the next kind.
	hooks := r.Edits.Hooks
	r.Edits.Hooks = nil
	for _, kind := range preparing {
		for _, h := range hooks {
			if h.Name == kind {
				r.Edits.Hooks = append(r.Edits.Hooks, h)
			}
		}
	}
	return nil
}

// supported returns an error that names what a build cannot do. The text continues a sentence.
func (e *edits) supported() error {
	switch {
	case e.IntelRdt != nil:
		return fmt.Errorf("intelRdt, and layerbuild does not limit caches and memory bandwidth")
	case len(e.NetDevices) > 0:
		return fmt.Errorf("the net device %s, and layerbuild does not move network interfaces",
			e.NetDevices[0].HostInterfaceName)
	}
	for _, n := range e.DeviceNodes {
		if err := n.supported(); err != nil {
			return err
		}
	}
	for _, h := range e.Hooks {
		if err := h.supported(); err != nil {
			return err
		}
	}
	for _, m := range e.Mounts {
		if _, err := m.Flags(); err != nil {
			return err
		}
	}
	return nil
}

// preparing are the hooks that an OCI runtime executes before it enters the root of the container.
var preparing = hookNames[:3]

func (h *Hook) supported() error {
	switch {
	case !slices.Contains(preparing, h.Name):
		return fmt.Errorf("the hook %s (%s), and layerbuild runs only %s hooks", h.Name, h.Path,
			strings.Join(preparing, ", "))
	case !path.IsAbs(h.Path):
		return fmt.Errorf("the hook %s (%s), and its path is not absolute", h.Name, h.Path)
	}
	return nil
}

func (n *Node) supported() error {
	switch {
	case !path.IsAbs(n.Path) || n.HostPath != "" && !path.IsAbs(n.HostPath):
		return fmt.Errorf("the device node %s, and its paths are not absolute", n.Path)
	case !n.Closed() && n.Permissions != "" && !(strings.Contains(n.Permissions, "r") &&
		strings.Contains(n.Permissions, "w")):
		// A kernel restricts this by a program attached to a cgroup, as containers have it. The
		// permission m is not needed: nodes that a command makes cannot be opened.
		return fmt.Errorf("the device node %s with the permissions %s, and layerbuild cannot "+
			"permit only reading or only writing", n.Path, n.Permissions)
	}
	return nil
}

// Closed reports whether the node is there, but cannot be opened.
func (n *Node) Closed() bool {
	return n.Permissions != "" && !strings.ContainsAny(n.Permissions, "rw") // such as none
}

// Flags are the options of a mount.
type Flags struct {
	ReadOnly, NoSuid, NoExec bool
	// Recursive is set if the mounts below a directory are mounted too.
	Recursive bool
}

// Flags returns the options of a mount. It returns an error for a mount that a build cannot make;
// the text continues a sentence.
func (m *Mount) Flags() (f Flags, err error) {
	if !path.IsAbs(m.HostPath) || !path.IsAbs(m.ContainerPath) {
		return f, fmt.Errorf("a mount of %s at %s, and these paths are not absolute", m.HostPath,
			m.ContainerPath)
	}
	if path.Clean(m.ContainerPath) == "/" {
		return f, fmt.Errorf("a mount at /, and layerbuild mounts nothing there")
	}
	if !slices.Contains([]string{"", "bind", "none"}, m.Type) {
		return f, fmt.Errorf("a mount of the type %s at %s, and layerbuild makes only bind mounts",
			m.Type, m.ContainerPath)
	}
	for _, o := range m.Options {
		switch o {
		case "bind", "nodev", "private", "rprivate", "defaults":
			// a bind mount always is private and without device nodes
		case "rbind":
			f.Recursive = true
		case "ro":
			f.ReadOnly = true
		case "rw":
			f.ReadOnly = false
		case "nosuid":
			f.NoSuid = true
		case "suid":
			f.NoSuid = false
		case "noexec":
			f.NoExec = true
		case "exec":
			f.NoExec = false
		default:
			return f, fmt.Errorf("a mount at %s with the option %s, and layerbuild does not have "+
				"this option", m.ContainerPath, o)
		}
	}
	return f, nil
}
