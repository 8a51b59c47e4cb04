package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/container"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// runFlags are the flags of the run verb.
type runFlags struct {
	state                                        stateFlags
	env                                          []string
	workdir, user, entrypoint, network, platform string
	addHosts                                     []string
	hosts                                        []executor.Host // parsed from addHosts
	interactive, tty                             bool
	pull                                         pullPolicy

	envFiles, volumes, mounts, tmpfs, publish []string
	name, hostname                            string
	readOnly, privileged                      bool

	capFlags capFlags
	caps     *executor.CapabilitySet // parsed from capFlags
	made     []executor.Mount        // parsed from volumes, mounts, tmpfs
}

func runVerb() verb {
	return verb{
		name: "run", args: "IMAGE [COMMAND [ARG…]]", takesPaths: true,
		summary: "run a command of an image in a temporary container",
		common: []string{"help", "root", "driver", "platform", "pull", "env", "env-file", "workdir",
			"user", "entrypoint", "interactive", "tty", "volume", "network", "publish", "rm"},
		notes: `SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are forwarded to the command. As with 'docker run --init',
the command is not process 1 of its container: a signal for which it has no handler ends it. When the command ends, all
processes that it started are killed.

Flags after IMAGE are passed to the command.

The container is a temporary one on this machine's network: --publish accepts ports that keep their numbers, and --name has no effect.
--detach is refused.`,
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
	}
}

func (f *runFlags) define(fs *pflag.FlagSet) {
	f.state.define(fs)
	group(fs, "Image", func(fs *pflag.FlagSet) {
		fs.Var((*given)(&f.platform), "platform", platformUsage)
		fs.Var(&f.pull, "pull", "look up the image in its registry first\n"+
			"The value always does so, and newer is the same; missing looks up an image that the "+
			"store does not have, as without the flag; never makes such an image an error.")
	})
	group(fs, "Command", func(fs *pflag.FlagSet) {
		fs.VarP((*list)(&f.env), "env", "e", "`NAME=VALUE` environment variable\n"+
			"NAME alone takes its value from the environment.")
		fs.Var((*givenList)(&f.envFiles), "env-file", "`FILE` file with environment variables\n"+
			"Each line is NAME=VALUE, or a NAME whose value is that of the environment. "+
			"--env has precedence.")
		fs.StringVarP(&f.workdir, "workdir", "w", "", "`PATH` working directory in the container")
		fs.StringVarP(&f.user, "user", "u", "",
			"`USER[:GROUP]` user and group, as names or numbers")
		fs.StringVar(&f.entrypoint, "entrypoint", "", "`COMMAND` replace the image's entrypoint")
		fs.BoolVarP(&f.interactive, "interactive", "i", false, "pass standard input to the command")
		fs.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
	})
	group(fs, "Container", func(fs *pflag.FlagSet) {
		fs.Var(newChoice(&f.network, "host", "host", "none"), "network", "network of the command")
		fs.Var((*list)(&f.addHosts), "add-host", "`HOST:IP` entry in /etc/hosts")
		fs.VarP((*givenList)(&f.volumes), "volume", "v", "`SOURCE:TARGET[:ro]` mount a path of "+
			"this machine")
		fs.Var((*givenList)(&f.mounts), "mount", "`SPEC` mount, as of docker run --mount\n"+
			"SPEC is type=bind,source=PATH,target=PATH[,readonly] or "+
			"type=tmpfs,target=PATH[,tmpfs-size=SIZE].")
		fs.Var((*givenList)(&f.tmpfs), "tmpfs", "`PATH` mount an empty tmpfs")
		f.capFlags.define(fs)
		fs.BoolVar(&f.privileged, "privileged", false, "give the command all rights\n"+
			"It has all capabilities, a writable /sys, the devices of RUN --security=insecure, "+
			"and no filter of system calls.")
		fs.BoolVar(&f.readOnly, "read-only", false, "make the root file system read-only")
		fs.Var((*given)(&f.hostname), "hostname", "`NAME` host name in the container")
		fs.VarP((*givenList)(&f.publish), "publish", "p", "`PORT:PORT` no effect: the network is "+
			"the host's")
		fs.Var((*given)(&f.name), "name", "`NAME` no effect: nothing refers to the container")
		detach := fs.VarPF(refusedFlag(noDetach), "detach", "d", "")
		detach.NoOptDefVal, detach.Hidden = "true", true
		fs.Bool("init", false, "no effect: the command is never process 1")
		fs.Bool("rm", false, "no effect: containers are always removed")
	})
}

// prepare checks the command line.
func (f *runFlags) prepare(e *env, args []string) (runFunc, error) {
	if len(args) == 0 {
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
	if err := f.prepareMounts(); err != nil {
		return nil, err
	}
	var err error
	if f.caps, err = f.capFlags.set(); err != nil {
		return nil, err
	}
	fromFiles, err := readVariableFiles("env-file", f.envFiles)
	if err != nil {
		return nil, err
	}
	f.env = slices.Concat(fromFiles, f.env)
	want, err := platform(e, f.platform)
	if err := errors.Join(checkImage(args[0]), err, f.state.resolve(e)); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return f.run(ctx, e, want, args) }, nil
}

// prepareMounts parses the flags for mounts, and checks those for ports.
func (f *runFlags) prepareMounts() error {
	add := func(flag string, values []string, parse func(string) (executor.Mount, error)) error {
		for _, value := range values {
			m, err := parse(value)
			if err != nil {
				return badValue(flag, value, err)
			}
			f.made = append(f.made, m)
		}
		return nil
	}
	for _, p := range f.publish {
		if err := checkPublish(p, f.network); err != nil {
			return badValue("publish", p, err)
		}
	}
	return errors.Join(add("volume", f.volumes, parseVolume), add("mount", f.mounts, parseMount),
		add("tmpfs", f.tmpfs, func(value string) (executor.Mount, error) {
			return executor.Mount{Target: value, Source: executor.Tmpfs{}}, checkTarget(value)
		}))
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
		display, err := ui.New("auto", e.stderr, ui.Options{Getenv: e.getenv})
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
		if forwards {
			err = box.Run(ctx, process, e.stdout, e.stderr)
		} else {
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
	if f.entrypoint != "" {
		entrypoint, cmd = []string{f.entrypoint}, nil
	}
	if len(args) > 0 {
		cmd = args
	}
	p := &executor.Process{
		Args: slices.Concat(entrypoint, cmd), Dir: cmp.Or(f.workdir, c.WorkingDir),
		User: cmp.Or(f.user, c.User), Network: f.network,
		Hostname: cmp.Or(f.hostname, "layerbuild"), TTY: f.tty,
		Mounts: f.made, ReadOnlyRoot: f.readOnly, Caps: f.caps, Insecure: f.privileged,
	}
	if len(p.Args) == 0 {
		return nil, errors.New("the image has no command; give one")
	}
	p.Env = slices.Clone(c.Env)
	if !slices.ContainsFunc(p.Env, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		p.Env = append(p.Env, "PATH="+parser.DefaultPath)
	}
	if f.tty {
		p.Env = append(p.Env, "TERM="+cmp.Or(e.getenv("TERM"), "xterm"))
	}
	for _, v := range f.env {
		name, _, hasValue := strings.Cut(v, "=")
		p.Env = slices.DeleteFunc(p.Env, func(have string) bool {
			return strings.HasPrefix(have, name+"=")
		})
		if !hasValue {
			value, ok := os.LookupEnv(name)
			if !ok {
				continue // as in docker, the command does not get the image's value
			}
			v = name + "=" + value
		}
		p.Env = append(p.Env, v)
	}
	p.ExtraHosts = f.hosts
	if f.interactive || f.tty {
		p.Stdin = e.stdin
	}
	return p, nil
}
