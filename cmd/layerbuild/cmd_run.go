package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cdi"
	"github.com/layerbuild/layerbuild/internal/container"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/runmount"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// runFlags are the flags of the run verb.
type runFlags struct {
	state                            stateFlags
	registry                         registryFlags
	others                           otherValues
	env                              []string
	workdir, user, network, platform string
	entrypoint                       entrypoint
	addHosts                         []string
	hosts                            []executor.Host // parsed from addHosts
	interactive, tty, quiet          bool
	pull                             pullPolicy
	envHost, unsetAll                bool
	unset                            []string

	envFiles, volumes, mounts, tmpfs, publish []string
	devices, gpus, specDirs, groups, ulimits  []string
	name, hostname, shmSize                   string
	readOnly, privileged                      bool

	dns      dnsFlags
	capFlags capFlags
	// parsed has what is parsed from capFlags, volumes, mounts, tmpfs, devices, groups, ulimits
	// and shmSize.
	parsed executor.Process
	// edits are those of the CDI specifications of devices and gpus; nil: no device has any.
	edits *cdi.Edits
}

func runVerb() verb {
	return verb{
		name: "run", args: "IMAGE [COMMAND [ARG…]]", takesPaths: true,
		summary: "run a command of an image in a temporary container",
		common: []string{"help", "root", "driver", "platform", "pull", "env", "env-file", "workdir",
			"user", "entrypoint", "interactive", "tty", "volume", "network", "hostname", "publish",
			"rm"},
		notes: `SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are forwarded to the command. As with 'docker run --init',
the command is not process 1 of its container: a signal for which it has no handler ends it. When the command ends, all
processes that it started are killed.

Flags after IMAGE are passed to the command.

The container is a temporary one on this machine's network: --publish accepts ports that keep their numbers, and --name has no effect.`,
		moreNotes: func() string {
			return notesOn(runOthers[:], "docker run and podman run", "the container")
		},
		examples: []example{
			{"layerbuild run app", "run the command of the image"},
			{"layerbuild run -it app sh", "run a shell in the terminal"},
			{"layerbuild run -e DEBUG=1 --network none app sh -c 'ls -l /'",
				"set a variable, and disable the network"},
			{"layerbuild run -v ./:/src -w /src app make",
				"run a command on files of this machine"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f runFlags
			f.define(fs)
			return f.prepare
		},
		withOthers: func(fs *pflag.FlagSet) prepareFunc {
			fs.SetNormalizeFunc(runName)
			var f runFlags
			f.define(fs)
			f.others.define(fs, runOthers[:])
			return f.prepare
		},
	}
}

func (f *runFlags) define(fs *pflag.FlagSet) {
	f.state.define(fs)
	group(fs, "Image", func(fs *pflag.FlagSet) {
		fs.Var((*given)(&f.platform), "platform", platformUsage)
		fs.Var(&f.pull, "pull", "look up the image in its registry first\n"+
			"The value always does so, and newer is the same; missing looks up an image that the "+
			"store does not have, as without the flag; never makes such an image an error.")
		fs.BoolVarP(&f.quiet, "quiet", "q", false, "print no progress")
	})
	group(fs, "Command", f.defineCommand)
	group(fs, "Container", f.defineContainer)
	group(fs, "Registries", f.registry.define)
}

func (f *runFlags) defineCommand(fs *pflag.FlagSet) {
	fs.VarP((*list)(&f.env), "env", "e", "`NAME=VALUE` environment variable\n"+
		"NAME alone takes its value from the environment.")
	fs.Var((*givenList)(&f.envFiles), "env-file", "`FILE` file with environment variables\n"+
		"Each line is NAME=VALUE, or a NAME whose value is that of the environment. "+
		"--env has precedence.")
	fs.BoolVar(&f.envHost, "env-host", false, "pass the variables of the environment\n"+
		"The variables of the image have precedence.")
	fs.Var((*givenList)(&f.unset), "unsetenv", "`NAME` leave out a variable of the image")
	fs.BoolVar(&f.unsetAll, "unsetenv-all", false, "leave out all variables of the image")
	fs.StringVarP(&f.workdir, "workdir", "w", "", "`PATH` working directory in the container")
	fs.StringVarP(&f.user, "user", "u", "",
		"`USER[:GROUP]` user and group, as names or numbers")
	fs.Var((*givenList)(&f.groups), "group-add", "`GROUP` name or number of a further "+
		"group\nNames are looked up in /etc/group of the image.")
	fs.Var(&f.entrypoint, "entrypoint", "`COMMAND` replace the image's entrypoint and command\n"+
		"The empty value leaves both out. A JSON list has the command with arguments, as in "+
		"podman.")
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "pass standard input to the command")
	fs.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
}

func (f *runFlags) defineContainer(fs *pflag.FlagSet) {
	fs.Var(newNetwork(&f.network), "network", "network of the command\n"+networkUsage)
	fs.Var((*list)(&f.addHosts), "add-host", "`HOST:IP` entry in /etc/hosts")
	f.dns.define(fs)
	fs.VarP((*givenList)(&f.volumes), "volume", "v", "`SOURCE:TARGET[:ro]` mount a path of "+
		"this machine\nThe options are ro, nosuid, noexec and O, with which changes of a "+
		"directory are thrown away when the command ends, as in podman.")
	fs.Var((*givenList)(&f.mounts), "mount", "`SPEC` mount, as of docker run --mount\n"+
		"SPEC is type=bind,source=PATH,target=PATH[,readonly] or "+
		"type=tmpfs,target=PATH[,tmpfs-size=SIZE].")
	fs.Var((*givenList)(&f.tmpfs), "tmpfs", "`PATH[:OPTIONS]` mount an empty tmpfs\n"+
		"The options are some of ro, nosuid, noexec, size=SIZE and mode=MODE, separated by "+
		"commas.")
	fs.Var((*givenList)(&f.devices), "device", "`PATH[:TARGET]` pass a device of this machine\n"+
		"PATH is a device node, or a directory with some, such as /dev/snd. "+
		"VENDOR.com/CLASS=NAME instead of it is a device of a CDI specification, as in RUN "+
		"--device.")
	fs.Var((*givenList)(&f.gpus), "gpus", "`all|N|device=ID,…` pass GPUs of NVIDIA\n"+
		"all is the same as --device nvidia.com/gpu=all. As in docker, N is a number of GPUs; "+
		"they are nvidia.com/gpu=0 and those after it.")
	defineSpecDirs(fs, &f.specDirs)
	f.capFlags.define(fs)
	fs.BoolVar(&f.privileged, "privileged", false, "give the command all rights\n"+
		"It has all capabilities, a writable /sys, the devices of RUN --security=insecure, "+
		"and no filter of system calls.")
	fs.BoolVar(&f.readOnly, "read-only", false, "make the root file system read-only")
	fs.VarP((*given)(&f.hostname), "hostname", "h", "`NAME` host name in the container")
	defineLimits(fs, &f.shmSize, &f.ulimits)
	fs.VarP((*givenList)(&f.publish), "publish", "p", "`PORT:PORT` no effect: the network is "+
		"the host's")
	fs.Var((*given)(&f.name), "name", "`NAME` no effect: nothing refers to the container")
	fs.Bool("init", false, "no effect: the command is never process 1")
	fs.Bool("rm", false, "no effect: containers are always removed")
}

// prepare checks the command line.
func (f *runFlags) prepare(e *env, args []string) (runFunc, error) {
	switch {
	case len(args) == 0 && f.hostname != "":
		return nil, fmt.Errorf("an image is expected after --hostname %q (-h)", f.hostname)
	case len(args) == 0:
		return nil, errors.New("an image is expected")
	}
	if f.tty && !term.IsTerminal(int(e.stdin.Fd())) {
		return nil, errors.New("--tty: standard input is not a terminal")
	}
	for _, v := range f.env {
		if name, _, _ := strings.Cut(v, "="); name == "" {
			return nil, badValue("env", v, errors.New("NAME=VALUE is expected"))
		}
	}
	for _, h := range f.addHosts {
		host, err := parseHost(h)
		if err != nil {
			return nil, err
		}
		f.hosts = append(f.hosts, host)
	}
	if f.workdir != "" && !strings.HasPrefix(f.workdir, "/") {
		return nil, badValue("workdir", f.workdir, errors.New("an absolute path is expected"))
	}
	for _, check := range []func() error{f.prepareMounts, f.prepareDevices, f.prepareLimits} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	fromFiles, err := readVariableFiles("env-file", f.envFiles)
	if err != nil {
		return nil, err
	}
	f.env = slices.Concat(fromFiles, f.env)
	want, err := platform(e, f.platform)
	if err := errors.Join(checkImage(args[0]), err, f.state.resolve(e),
		f.state.access(&f.registry)); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		for _, line := range f.others.notes() {
			fmt.Fprintf(e.stderr, "layerbuild run: warning: %s\n", line)
		}
		return f.run(ctx, e, want, args)
	}, nil
}

// prepareMounts parses the flags for mounts, and checks those for ports.
func (f *runFlags) prepareMounts() error {
	for _, p := range f.publish {
		if err := checkPublish(p, f.network); err != nil {
			return badValue("publish", p, err)
		}
	}
	var err error
	if f.parsed.Mounts, err = f.dns.mounts(); err != nil {
		return err
	}
	one := func(parse func(string) (executor.Mount, error)) func(string) ([]executor.Mount, error) {
		return func(value string) ([]executor.Mount, error) {
			m, err := parse(value)
			return []executor.Mount{m}, err
		}
	}
	for _, flag := range []struct {
		name   string
		values []string
		parse  func(string) ([]executor.Mount, error)
	}{{"volume", f.volumes, one(parseVolume)}, {"mount", f.mounts, one(parseMount)},
		{"tmpfs", f.tmpfs, one(parseTmpfs)}} {
		for _, value := range flag.values {
			mounts, err := flag.parse(value)
			if err != nil {
				return badValue(flag.name, value, err)
			}
			f.parsed.Mounts = append(f.parsed.Mounts, mounts...)
		}
	}
	return nil
}

// prepareLimits parses the flags for the rights and the limits of the command.
func (f *runFlags) prepareLimits() (err error) {
	p := &f.parsed
	if p.Caps, err = f.capFlags.set(); err != nil {
		return err
	}
	if err := imagebuild.CheckHostname(f.hostname); err != nil {
		return badValue("hostname", f.hostname, err)
	}
	for _, g := range f.groups {
		if err := f.addGroup(g); err != nil {
			return badValue("group-add", g, err)
		}
	}
	p.ShmSize, p.Ulimits, err = parseLimits(f.shmSize, f.ulimits)
	return err
}

// addGroup adds a value of --group-add. A name is looked up in the image.
func (f *runFlags) addGroup(value string) error {
	n, err := strconv.ParseUint(value, 10, 31)
	switch {
	case err == nil:
		f.parsed.Groups = append(f.parsed.Groups, uint32(n))
	case value == "keep-groups": // podman's
		return errors.New("the groups of the user who runs layerbuild are not passed on; give " +
			"the name or the number of each group")
	case value == "" || strings.ContainsAny(value, ":, \t\n") ||
		strings.Trim(value, "0123456789-") == "":
		return errors.New("the name of a group of the image, or a number up to 2147483647, is " +
			"expected")
	default:
		f.parsed.GroupNames = append(f.parsed.GroupNames, value)
	}
	return nil
}

func (f *runFlags) run(ctx context.Context, e *env, want wanted, args []string) error {
	return f.state.with(ctx, func(state *state.State, im *images) error {
		ref, err := im.ref(ctx, args[0])
		if err != nil {
			return err
		}
		img, err := im.resolver.Resolve(ctx, ref,
			image.ResolveOptions{Platform: want.platform, Pull: f.pull == "always",
				Local: f.pull == "never"})
		if err != nil {
			return err
		}
		if err := want.isFor(args[0], img); err != nil {
			return err
		}
		if host := parser.HostPlatform(); want.platform.OS == "" &&
			!registry.Matches(host, img.Platform) {
			fmt.Fprintf(e.stderr, "layerbuild run: warning: image %s is for %s and this machine "+
				"is %s; if this is intended, give --platform %[2]s\n",
				args[0], parser.FormatPlatform(img.Platform), parser.FormatPlatform(host))
		}
		process, err := f.process(e, img, args[1:])
		if err != nil {
			return err
		}
		mode := "auto"
		if f.quiet {
			mode = "none"
		}
		display, err := ui.New(mode, e.stderr, ui.Options{Getenv: e.getenv})
		if err != nil {
			return err
		}
		sink := lazySink(display.Sink())
		box, err := container.New(ctx, state, im.resolver, img, sink)
		if err := errors.Join(err, display.Close()); err != nil {
			return err
		}
		signals := make(chan syscall.Signal, 16)
		process.Signals = signals
		forwards := e.interrupts.forward(ctx, func(s syscall.Signal) {
			select {
			case signals <- s:
			default: // the command has not received the earlier signals yet
			}
		})
		err = overlay(ctx, box, process.Mounts)
		switch {
		case err != nil:
		case forwards:
			err = box.Run(ctx, process, e.stdout, e.stderr)
		default:
			err = context.Cause(ctx)
		}
		return e.exitOf(err, box.Close())
	})
}

// lazySink passes on only the events of transfers, so that running an image that is already
// unpacked prints nothing.
func lazySink(to event.Sink) event.Sink {
	return func(ev event.Event) {
		if _, ok := ev.(event.Progress); ok {
			to(ev)
		}
	}
}

// exitOf returns the error that makes the command's exit status layerbuild's own. err is the error
// of the command, and closing the error of removing the container.
func (e *env) exitOf(err, closing error) error {
	var exit *executor.ExitError
	if !errors.As(err, &exit) {
		return errors.Join(err, closing)
	}
	if exit.Reason != "" {
		fmt.Fprintf(e.stderr, "layerbuild run: %s\n", exit.Reason)
	}
	if closing != nil {
		fmt.Fprintf(e.stderr, "layerbuild run: %v\n", closing)
	}
	return exitError{exit.Code}
}

// process returns the process for the image's configuration and the flags.
func (f *runFlags) process(e *env, img *image.Image, args []string) (*executor.Process, error) {
	c := img.Config.Config
	entrypoint, cmd := c.Entrypoint, c.Cmd
	if f.entrypoint.given {
		entrypoint, cmd = f.entrypoint.args, nil
	}
	if len(args) > 0 {
		cmd = args
	}
	p := f.parsed
	p.Args, p.Dir = slices.Concat(entrypoint, cmd), cmp.Or(f.workdir, c.WorkingDir)
	p.User, p.Network, p.TTY = cmp.Or(f.user, c.User), f.network, f.tty
	p.Hostname, p.ExtraHosts = cmp.Or(f.hostname, "layerbuild"), f.hosts
	p.ReadOnlyRoot, p.Insecure = f.readOnly, f.privileged
	if len(p.Args) == 0 {
		return nil, errors.New("the image has no command; give one")
	}
	p.Env = f.environment(e, c.Env)
	if f.edits != nil {
		if err := runmount.AddDevices(&p, f.edits); err != nil {
			return nil, err
		}
	}
	if f.interactive || f.tty {
		p.Stdin = e.stdin
	}
	return &p, nil
}

// environment returns the variables of the command. have are those of the image.
func (f *runFlags) environment(e *env, have []string) []string {
	var list []string
	set := func(v string) {
		name, _, _ := strings.Cut(v, "=")
		list = append(slices.DeleteFunc(list, func(have string) bool {
			return strings.HasPrefix(have, name+"=")
		}), v)
	}
	if f.envHost {
		list = os.Environ()
	}
	for _, v := range have {
		if name, _, _ := strings.Cut(v, "="); !f.unsetAll && !slices.Contains(f.unset, name) {
			set(v)
		}
	}
	if !slices.ContainsFunc(list, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		set("PATH=" + parser.DefaultPath)
	}
	if f.tty {
		set("TERM=" + cmp.Or(e.getenv("TERM"), "xterm"))
	}
	for _, v := range f.env {
		name, _, hasValue := strings.Cut(v, "=")
		if hasValue {
			set(v)
			continue
		}
		value, ok := os.LookupEnv(name)
		if ok {
			set(name + "=" + value)
			continue
		}
		// As in docker, the command does not get the image's value.
		list = slices.DeleteFunc(list, func(have string) bool {
			return strings.HasPrefix(have, name+"=")
		})
	}
	return list
}
