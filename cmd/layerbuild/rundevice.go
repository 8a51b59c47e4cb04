package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cdi"
)

// prepareDevices parses --device and --gpus, and finds the devices of CDI specifications.
func (f *runFlags) prepareDevices() error {
	if err := checkSpecDirs(f.specDirs); err != nil {
		return err
	}
	var named requestedDevices
	for _, value := range f.devices {
		if value == "" || path.IsAbs(value) {
			mounts, err := parseDevice(value)
			if err != nil {
				return badValue("device", value, err)
			}
			f.parsed.Mounts = append(f.parsed.Mounts, mounts...)
			continue
		}
		err := named.add(f.specDirs, value)
		if err != nil && !strings.Contains(value, "/") {
			err = fmt.Errorf("%w; the path of a device is absolute, such as /dev/fuse", err)
		}
		if err != nil {
			return badValue("device", value, err)
		}
	}
	for _, value := range f.gpus {
		names, err := parseGPUs(value)
		if err == nil {
			if err = named.add(f.specDirs, names...); err != nil {
				err = fmt.Errorf("%w; 'nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml' "+
					"writes one", err)
			}
		}
		if err != nil {
			return badValue("gpus", value, err)
		}
	}
	if named.requests == nil {
		return nil
	}
	found, err := named.resolve(named.requests)
	if err == nil {
		f.edits = &found.Edits
	}
	return err
}

// requestedDevices are devices of CDI specifications that the command line names.
type requestedDevices struct {
	machine  *cdi.Devices // nil: the specifications have not been read yet
	requests []cdi.Request
}

// add adds devices with the names that RUN --device of a build takes. It returns an error if the
// machine does not have one.
func (r *requestedDevices) add(dirs []string, names ...string) error {
	if r.machine == nil {
		if dirs == nil {
			dirs = cdi.DefaultDirs()
		}
		r.machine = cdi.Read(dirs)
	}
	for _, name := range names {
		request := cdi.Request{Name: name, Required: true}
		if _, err := r.resolve([]cdi.Request{request}); err != nil {
			return err
		}
		r.requests = append(r.requests, request)
	}
	return nil
}

// resolve finds the devices. The command line that names a device permits it.
func (r *requestedDevices) resolve(list []cdi.Request) (*cdi.Resolved, error) {
	return r.machine.Resolve(list, cdi.Permission{All: true})
}

// maxGPUs limits the number of GPUs that are requested.
const maxGPUs = 1000

// parseGPUs parses the value of --gpus of docker run: all, a number of GPUs, or KEY=VALUE, with the
// keys count, device, driver and capabilities. A list of names is that of podman. It returns the
// names of the devices in CDI specifications.
func parseGPUs(value string) ([]string, error) {
	const kind = "nvidia.com/gpu="
	r := csv.NewReader(strings.NewReader(value))
	fields, err := r.Read()
	if err != nil {
		return nil, errors.New("all, a number of GPUs or device=ID,… is expected")
	}
	count, words, names := "", 0, []string(nil)
	for _, field := range fields {
		if !strings.Contains(field, "=") {
			words++
		}
	}
	for _, field := range fields {
		key, v, isPair := strings.Cut(field, "=")
		_, err := strconv.Atoi(field)
		switch {
		case !isPair && words == 1 && names == nil && (field == "all" || err == nil):
			count = field
		case !isPair:
			names = append(names, kind+field)
		case key == "count":
			count = v
		case key == "device":
			for id := range strings.SplitSeq(v, ",") {
				names = append(names, kind+id)
			}
		case key == "driver" && v != "nvidia" && v != "cdi":
			return nil, errors.New("only GPUs of NVIDIA are known; give --device " +
				"VENDOR.com/CLASS=NAME for another one")
		case key == "driver", key == "capabilities": // a specification gives all of them
		default:
			return nil, fmt.Errorf("%s: the key count, device, driver or capabilities is expected",
				key)
		}
	}
	if len(names) > 0 && count != "" {
		return nil, errors.New("a number of GPUs and device=ID: give one of them")
	}
	if len(names) > 0 {
		return names, nil
	}
	if count == "" || count == "all" || count == "-1" {
		return []string{kind + "all"}, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > maxGPUs {
		return nil, fmt.Errorf("all or a number of GPUs up to %d is expected", maxGPUs)
	}
	for i := range n {
		names = append(names, kind+strconv.Itoa(i))
	}
	return names, nil
}

// parseDevice parses the value of --device: PATH[:TARGET][:rwm]. A directory stands for the devices
// in it.
func parseDevice(value string) ([]executor.Mount, error) {
	parts := strings.Split(value, ":")
	source, target := parts[0], parts[0]
	if n := len(parts) - 1; n > 0 && !strings.HasPrefix(parts[n], "/") {
		if parts[n] != "rwm" {
			return nil, errors.New("the rights for a device are those of its file; rwm is " +
				"expected")
		}
		parts = parts[:n]
	}
	switch {
	case !path.IsAbs(source):
		return nil, errors.New("the path of a device, such as /dev/fuse, or the name of one in " +
			"a CDI specification is expected")
	case len(parts) == 2:
		target = parts[1]
	case len(parts) > 2:
		return nil, errors.New("PATH[:TARGET][:rwm] is expected")
	}
	if err := checkTarget(target); err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(source)
	if err != nil {
		return nil, plainError(err)
	}
	var list []executor.Mount
	err = filepath.WalkDir(real, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type()&fs.ModeDevice == 0 {
			return err
		}
		device, err := hostDevice(name, entry)
		rest := strings.TrimPrefix(name, real)
		list = append(list, executor.Mount{Target: target + rest, Source: device})
		return err
	})
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s is no device, and no directory with devices", source)
	}
	return list, err
}

// hostDevice returns the device of a node, with its owner, as in docker.
func hostDevice(name string, entry fs.DirEntry) (executor.Device, error) {
	info, err := entry.Info()
	if err != nil {
		return executor.Device{}, err
	}
	d := executor.Device{Host: name}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		d.UID, d.GID = &st.Uid, &st.Gid
	}
	return d, nil
}
