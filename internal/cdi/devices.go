package cdi

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/suggest"
)

// DefaultDirs returns the directories in which CDI keeps specifications: those that an
// administrator has written, and those that programs generate.
func DefaultDirs() []string { return []string{"/etc/cdi", "/var/run/cdi"} }

// BuildKit's annotations of a specification or a device.
const (
	classAnnotation     = "org.mobyproject.buildkit.device.class"
	autoAllowAnnotation = "org.mobyproject.buildkit.device.autoallow"
)

// Devices are the devices of the specifications in some directories.
type Devices struct {
	dirs   []string
	found  map[string]found // by name
	names  []string         // in their order
	faults []error          // of the files that have no device in found, or not all
}

// found is a device and its specification.
type found struct {
	*device
	spec     *spec
	priority int // the index of its directory
}

// annotation returns the value of an annotation: that of the device or of its specification.
func (f found) annotation(key string) (string, bool) {
	if v, ok := f.Annotations[key]; ok {
		return v, true
	}
	v, ok := f.spec.Annotations[key]
	return v, ok
}

// autoAllowed reports whether a command may use the device without permission.
func (f found) autoAllowed() bool {
	v, _ := f.annotation(autoAllowAnnotation)
	is, err := strconv.ParseBool(v)
	return err == nil && is
}

// Read reads the specifications in directories. A device in a later directory replaces one of the
// same name in an earlier one. Of two in one directory, neither is used. A missing directory has no
// specifications, and a file that is not valid is left out; Resolve names it if a device is
// missing.
func Read(dirs []string) *Devices {
	d := &Devices{dirs: dirs, found: map[string]found{}}
	conflicts := map[string]int{} // the priority, by name
	for priority, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.faults = append(d.faults, err)
		}
		for _, e := range entries {
			s, err := readFile(filepath.Join(dir, e.Name()))
			if err != nil {
				d.faults = append(d.faults, err)
			}
			if s != nil {
				d.add(s, priority, conflicts)
			}
		}
	}
	for name, priority := range conflicts {
		if d.found[name].priority == priority {
			delete(d.found, name)
		}
	}
	d.names = slices.Sorted(maps.Keys(d.found))
	return d
}

// add adds the devices of a specification.
func (d *Devices) add(s *spec, priority int, conflicts map[string]int) {
	for i := range s.Devices {
		name := s.Kind + "=" + s.Devices[i].Name
		if other, ok := d.found[name]; ok && other.priority == priority {
			conflicts[name] = priority
			d.faults = append(d.faults, fmt.Errorf("device %s is both in %s and in %s", name,
				other.spec.file, s.file))
		}
		d.found[name] = found{&s.Devices[i], s, priority}
	}
}

// maxSize is the largest size of a specification. Those of machines with many devices have tens of
// kilobytes.
const maxSize = 4 << 20

// readFile reads a specification. It returns nil for a file that is not one.
func readFile(name string) (*spec, error) {
	ext := filepath.Ext(name)
	if ext != ".json" && ext != ".yaml" && ext != ".yml" {
		return nil, nil
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, nil
	case ext == ".yml":
		return nil, fmt.Errorf("%s is not read: a specification is named *.json or *.yaml", name)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("%s: larger than 4 MiB", name)
	}
	s, err := parse(name, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// find returns the names of the devices that a request names: one device (vendor.com/class=name),
// all of a kind (vendor.com/class=*), the first of a kind (vendor.com/class) or, if there are none,
// all of a class that specifications give with an annotation.
func (d *Devices) find(request string) []string {
	kind, name, _ := strings.Cut(request, "=")
	var list []string
	if vendor, class, _ := strings.Cut(kind, "/"); vendor != "" && class != "" {
		for _, n := range d.names {
			switch own, ok := strings.CutPrefix(n, kind+"="); {
			case ok && (name == "*" || name == own):
				list = append(list, n)
			case ok && name == "" && list == nil:
				list = append(list, n)
			}
		}
	}
	if list != nil {
		return list
	}
	for _, n := range d.names {
		if class, ok := d.found[n].annotation(classAnnotation); ok && class == request {
			list = append(list, n)
		}
	}
	return list
}

// Request is a device that a command requests.
type Request struct {
	Name     string
	Required bool
}

// Permission lists the devices that commands may use, besides those whose specifications permit it.
type Permission struct {
	All bool
	// Names has names in the forms of requests.
	Names []string
	// Aliases has, for a name that requests use, the name of the device to use.
	Aliases map[string]string
}

// Resolved has the devices that a command gets for its requests.
type Resolved struct {
	// Names lists the devices.
	Names []string
	Edits Edits
	// Missing lists the requests without a device that are not required, each with the reason.
	Missing []string
}

// Resolve returns what a command gets for its requests. It returns an error if a required device is
// missing, or if a device is not permitted or cannot be used.
func (d *Devices) Resolve(requests []Request, p Permission) (*Resolved, error) {
	allowed := map[string]bool{}
	for _, name := range p.Names {
		for _, n := range d.find(name) {
			allowed[n] = true
		}
	}
	r := &Resolved{}
	var forbidden []string
	for _, req := range requests {
		alias, isAlias := p.Aliases[req.Name]
		names := d.find(cmp.Or(alias, req.Name))
		if len(names) == 0 {
			missing := fmt.Sprintf("%q is not registered: %s", req.Name, d.missing(req.Name, alias))
			if req.Required {
				return nil, errors.New("required device " + missing)
			}
			r.Missing = append(r.Missing, "device "+missing)
		}
		for _, n := range names {
			if slices.Contains(r.Names, n) {
				continue
			}
			r.Names = append(r.Names, n)
			if !p.All && !isAlias && !allowed[n] && !d.found[n].autoAllowed() {
				forbidden = append(forbidden, n)
			}
		}
	}
	if len(forbidden) > 0 {
		return nil, notAllowed(forbidden)
	}
	return r, d.edit(r)
}

// notAllowed returns the error for devices without permission. BuildKit's error begins with the
// same words.
func notAllowed(names []string) error {
	subject := "device " + names[0] + " is"
	if len(names) > 1 {
		subject = "devices " + strings.Join(names, ", ") + " are"
	}
	return fmt.Errorf("%s requested by the build but not allowed; add --allow device=%s", subject,
		strings.Join(names, " --allow device="))
}

// maxFaults is the number of faults in the reason for a missing device.
const maxFaults = 3

// missing returns the reason why a device is missing: the directories, and their files that are not
// valid.
func (d *Devices) missing(name, alias string) string {
	text := "no specification in " + strings.Join(d.dirs, " or ") + " has it"
	if alias != "" {
		text = "it is an alias of " + alias + ", and " + text
	}
	if near := suggest.Near(cmp.Or(alias, name), d.names); near != "" {
		text += " (did you mean " + near + "?)"
	}
	for i, fault := range d.faults {
		if i == maxFaults {
			return text + fmt.Sprintf("; and %d more faults", len(d.faults)-i)
		}
		text += "; " + fault.Error()
	}
	return text
}
