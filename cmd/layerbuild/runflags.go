package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/container"
	"github.com/layerbuild/layerbuild/internal/hostfile"
	"github.com/layerbuild/layerbuild/internal/units"
	"github.com/spf13/pflag"
)

// maxEnvFile limits a file of variables.
const maxEnvFile = 1 << 20

// readVariableFiles returns the variables of the files of a flag, such as --env-file of docker run:
// a NAME=VALUE or a NAME on each line, which is taken as it is. Lines that begin with # are
// comments.
func readVariableFiles(flag string, files []string) ([]string, error) {
	var list []string
	for _, name := range files {
		if err := readableFile(name); err != nil {
			return nil, badValue(flag, name, err)
		}
		f, err := hostfile.Open(name, os.O_RDONLY)
		if err != nil {
			return nil, badValue(flag, name, plainError(err))
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, maxEnvFile)
		for n := 1; lines.Scan() && err == nil; n++ {
			line := strings.TrimLeft(lines.Text(), " \t")
			if n == 1 {
				line = strings.TrimPrefix(line, "\ufeff")
			}
			if line == "" || line[0] == '#' {
				continue
			}
			key, _, _ := strings.Cut(line, "=")
			if key == "" || strings.ContainsAny(key, " \t") {
				err = fmt.Errorf("line %d: NAME=VALUE is expected", n)
			}
			list = append(list, line)
		}
		err = errors.Join(err, lines.Err(), f.Close())
		if err != nil {
			return nil, badValue(flag, name, err)
		}
	}
	return list, nil
}

// parseVolume parses the value of --volume: SOURCE:TARGET[:OPTIONS]. A TARGET alone is an empty
// volume, which is a tmpfs here, since it is removed with the container.
func parseVolume(value string) (executor.Mount, error) {
	parts := strings.Split(value, ":")
	m, overlay := executor.Mount{}, false
	switch len(parts) {
	case 1:
		m.Target = parts[0]
		m.Source = executor.Tmpfs{Mode: 0o755}
		return m, checkTarget(m.Target)
	case 2, 3:
		m.Target = parts[1]
	default:
		return m, errors.New("SOURCE:TARGET[:ro] is expected")
	}
	if len(parts) == 3 {
		for option := range strings.SplitSeq(parts[2], ",") {
			switch option {
			case "ro":
				m.ReadOnly = true
			case "nosuid":
				m.NoSuid = true
			case "noexec":
				m.NoExec = true
			case "O":
				overlay = true
			case "U":
				return m, errors.New("the option U changes the owners of files of this machine, " +
					"which layerbuild does not do; run chown before it, or give the command's " +
					"user the numbers of their owner")
			case "rw", "z", "Z", "rprivate", "private", "cached", "delegated", "consistent",
				"bind", "rbind", "nodev":
			default:
				return m, fmt.Errorf("the option %q is not available; some of ro, rw, nosuid, "+
					"noexec and O are expected", option)
			}
		}
	}
	source, err := bindSource(parts[0])
	bind := executor.Bind{Source: source}
	m.Source = bind
	if overlay && err == nil {
		m.Source = overlaid{bind}
		if info, serr := os.Stat(source); serr == nil && !info.IsDir() {
			err = errors.New("the option O is for a directory")
		}
	}
	return m, errors.Join(err, checkTarget(m.Target))
}

// overlaid is a directory of this machine that a command may change, without effect on the
// directory. It takes the place of the source of a mount until the container is there.
type overlaid struct{ executor.Bind }

// overlay replaces each source of a mount that is overlaid.
func overlay(ctx context.Context, box *container.Container, mounts []executor.Mount) error {
	for i := range mounts {
		if o, ok := mounts[i].Source.(overlaid); ok {
			tree, err := box.Overlay(ctx, o.Source)
			if err != nil {
				return err
			}
			mounts[i].Source = tree
		}
	}
	return nil
}

// bindSource returns the absolute path of a file or a directory to mount.
func bindSource(source string) (string, error) {
	if source == "" {
		return "", errors.New("the path of this machine is missing")
	}
	if !strings.HasPrefix(source, "/") && !strings.HasPrefix(source, ".") {
		return "", fmt.Errorf("there are no volumes with names, such as %q; give a path: ./%[1]s",
			source)
	}
	abs, err := filepath.Abs(source)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(abs); err != nil {
		return "", fmt.Errorf("%s: %w", source, plainError(err))
	}
	return abs, nil
}

func checkTarget(target string) error {
	if !path.IsAbs(target) || path.Clean(target) == "/" {
		return fmt.Errorf("%q: an absolute path in the container is expected", target)
	}
	return nil
}

// parseMount parses the value of --mount: type=bind|tmpfs with its attributes, as of docker run.
func parseMount(value string) (executor.Mount, error) {
	var m executor.Mount
	kind, source := "volume", ""
	tmpfs := executor.Tmpfs{}
	for field := range strings.SplitSeq(value, ",") {
		key, v, has := strings.Cut(field, "=")
		var err error
		switch key {
		case "type":
			kind = v
		case "source", "src":
			source = v
		case "target", "dst", "destination":
			m.Target = v
		case "readonly", "ro":
			m.ReadOnly = !has || v == "true" || v == "1"
		case "tmpfs-size":
			tmpfs.Size, err = units.ParseDocker(v)
		case "bind-propagation", "consistency":
			if v != "rprivate" && v != "private" && key == "bind-propagation" {
				err = errors.New("mounts are private")
			}
		default:
			err = errors.New("the attribute is not known")
		}
		if err != nil {
			return m, fmt.Errorf("%s: %w", key, err)
		}
	}
	switch kind {
	case "bind":
		abs, err := bindSource(source)
		m.Source = executor.Bind{Source: abs}
		if err != nil {
			return m, err
		}
	case "tmpfs":
		m.Source = tmpfs
	case "volume":
		return m, errors.New("there are no volumes; type=bind,source=DIR,target=DIR is expected")
	default:
		return m, fmt.Errorf("type=%s is not available; bind or tmpfs is expected", kind)
	}
	return m, checkTarget(m.Target)
}

// parseTmpfs parses the value of --tmpfs: TARGET[:OPTIONS].
func parseTmpfs(value string) (executor.Mount, error) {
	target, options, has := strings.Cut(value, ":")
	m, fs := executor.Mount{Target: target}, executor.Tmpfs{}
	for option := range strings.SplitSeq(options, ",") {
		if !has {
			break
		}
		key, v, _ := strings.Cut(option, "=")
		var err error
		switch key {
		case "ro":
			m.ReadOnly = true
		case "nosuid":
			m.NoSuid = true
		case "noexec":
			m.NoExec = true
		case "size":
			fs.Size, err = units.ParseDocker(v)
		case "mode":
			var mode uint64
			if mode, err = strconv.ParseUint(v, 8, 12); err != nil || mode == 0 {
				err = errors.New("an octal mode such as 1777 is expected")
			}
			fs.Mode = uint32(mode)
		case "rw", "suid", "exec", "nodev", "dev", "sync", "async", "noatime", "notmpcopyup":
		default:
			err = errors.New("some of ro, rw, nosuid, noexec, size=SIZE and mode=MODE are expected")
		}
		if err != nil {
			return m, fmt.Errorf("option %q: %w", option, err)
		}
	}
	m.Source = fs
	return m, checkTarget(target)
}

// checkPublish checks the value of --publish. The command is in the network of this machine, so
// that its ports are there already, under the same numbers.
func checkPublish(value, network string) error {
	if network == "none" {
		return errors.New("--network none has no ports")
	}
	value, _, _ = strings.Cut(value, "/")
	parts := strings.Split(value, ":")
	n := len(parts)
	if parts[n-1] == "" {
		return errors.New("PORT:PORT is expected")
	}
	if n > 1 && parts[n-2] != parts[n-1] && parts[n-2] != "" {
		return fmt.Errorf("the command uses the network of this machine, where its port is %s, "+
			"and not %s", parts[n-1], parts[n-2])
	}
	return nil
}

// entrypoint is the value of --entrypoint: a command, a JSON list of one with its arguments, or "".
type entrypoint struct {
	args  []string
	given bool
}

func (p *entrypoint) Set(s string) error {
	p.args, p.given = nil, true
	if strings.HasPrefix(s, "[") && json.Unmarshal([]byte(s), &p.args) == nil {
		return nil
	}
	if p.args = nil; s != "" {
		p.args = []string{s}
	}
	return nil
}

func (p *entrypoint) Type() string   { return "string" }
func (p *entrypoint) String() string { return strings.Join(p.args, " ") }

// capFlags are the values of --cap-add and --cap-drop.
type capFlags struct{ add, drop []string }

func (f *capFlags) define(fs *pflag.FlagSet) {
	fs.Var((*givenList)(&f.add), "cap-add", "`CAPABILITY` give commands a capability, or ALL\n"+
		"A value may name several, separated by commas. "+
		"Docker's default capabilities are those of a command without the flag. System calls that "+
		"a capability needs are allowed with it. As root, NET_ADMIN lets commands configure the "+
		"network of this machine, unless they have --network none.")
	fs.Var((*givenList)(&f.drop), "cap-drop", "`CAPABILITY` take away a capability, or ALL")
}

// set returns the capabilities of commands; nil if no flag is given.
func (f *capFlags) set() (*executor.CapabilitySet, error) {
	if len(f.add)+len(f.drop) == 0 {
		return nil, nil
	}
	for _, flag := range [...]struct {
		name string
		list []string
	}{{"cap-add", f.add}, {"cap-drop", f.drop}} {
		for _, names := range flag.list {
			if _, err := executor.Capabilities(strings.Split(names, ","), nil); err != nil {
				return nil, badValue(flag.name, names, err)
			}
		}
	}
	split := func(list []string) []string { return strings.Split(strings.Join(list, ","), ",") }
	var add, drop []string
	if len(f.add) > 0 {
		add = split(f.add)
	}
	if len(f.drop) > 0 {
		drop = split(f.drop)
	}
	set, err := executor.Capabilities(add, drop)
	return &set, err
}
