package parser

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/sorting"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	bkparser "github.com/moby/buildkit/frontend/dockerfile/parser"
)

// scriptDir is the directory that contains a heredoc starting with #! while the command runs. It is
// visible in the history, so it must be BuildKit's.
const scriptDir = "/dev/pipes"

// devices returns the devices of a RUN.
func devices(c *instructions.RunCommand) (list []RunDevice, err error) {
	for _, d := range instructions.GetDevices(c) {
		if d.Name == "" {
			return nil, errors.New(
				"RUN --device: a name is expected, such as vendor.com/class=name")
		}
		list = append(list, RunDevice{Name: d.Name, Required: d.Required})
	}
	return list, nil
}

func (w *walker) run(c *instructions.RunCommand, step *Step) error {
	run := &Run{Env: w.state.env.kv, Proxy: w.plan.proxy, Dir: path.Clean(w.state.dir),
		User: w.state.img.Config.User}
	var err error
	if run.Devices, err = devices(c); err != nil {
		return err
	}
	args, display, err := w.runArgs(c, run)
	if err != nil {
		return err
	}
	if c.PrependShell {
		args = w.withShell(args)
	}
	run.Args = args
	if err := w.mounts(c, run); err != nil {
		return err
	}
	if n := instructions.GetNetwork(c); n != instructions.NetworkDefault {
		run.Network = n
	}
	if s := instructions.GetSecurity(c); s != instructions.SecuritySandbox {
		run.Security = s
	}
	step.Action = run
	step.Name = w.runName(c, display)
	step.History = "RUN " + w.runHistory(args) + " # buildkit"
	w.checkRunSize(c, run)
	return nil
}

// runArgs returns the command without the shell, and the text for the display. If the command is a
// single heredoc, it is a script that its interpreter runs. If there is other text on the line, the
// shell reads all of it.
func (w *walker) runArgs(c *instructions.RunCommand,
	run *Run) (args []string, display string, err error) {
	display = c.String()
	if len(c.Files) == 0 {
		return c.CmdLine, display, nil
	}
	if len(c.CmdLine) != 1 || !c.PrependShell {
		return nil, "", fmt.Errorf("parsing produced an invalid run command: %v", c.CmdLine)
	}
	line := c.CmdLine[0]
	if bkparser.MustParseHeredoc(line) == nil {
		var b strings.Builder
		b.WriteString(line)
		for _, f := range c.Files {
			b.WriteString("\n" + f.Data + f.Name)
		}
		return []string{b.String()}, display, nil
	}
	f := c.Files[0]
	data := f.Data
	if f.Chomp {
		data = bkparser.ChompHeredocContent(data)
	}
	display += " (" + firstLine(f.Data) + ")"
	if w.state.img.OS != "windows" && strings.HasPrefix(data, "#!") {
		script := path.Join(scriptDir, f.Name)
		run.Files = []RunFile{{Path: script, Data: []byte(data), Mode: 0o755}}
		return []string{script}, display, nil
	}
	return []string{data}, display, nil
}

func firstLine(doc string) string {
	first, _, more := strings.Cut(strings.TrimSpace(doc), "\n")
	if more {
		return strings.TrimSuffix(first, "\r") + "..."
	}
	return first
}

// runName returns the expanded text. It keeps quotes and escapes, since a shell reads the text.
func (w *walker) runName(c *instructions.RunCommand, display string) string {
	x, lex := w.lex, *w.lex.lex
	lex.RawQuotes, lex.RawEscapes, lex.SkipUnsetEnv = true, true, true
	x.lex = &lex
	masked := maskedEnv{env: w.state.env}
	for _, m := range instructions.GetMounts(c) {
		if m.Type == instructions.MountTypeSecret && m.Env != nil {
			masked.secrets = append(masked.secrets, *m.Env)
		}
	}
	return upperFirst(x.display(display, masked))
}

// runHistory returns the command preceded by the declared arguments with their values: |2 a=1 b=2
// /bin/sh -c ...
func (w *walker) runHistory(args []string) string {
	var declared []string
	index := map[string]int{}
	for _, a := range w.state.args {
		v, ok := w.state.env.Get(a.Name)
		if !ok {
			v = a.Value
		}
		if i, ok := index[a.Name]; ok {
			declared[i] = a.Name + "=" + v
			continue
		}
		index[a.Name] = len(declared)
		declared = append(declared, a.Name+"="+v)
	}
	if len(declared) > 0 {
		declared = slices.Insert(declared, 0, "|"+strconv.Itoa(len(declared)))
	}
	return strings.Join(append(declared, args...), " ")
}

// mounts parses the --mount flags. Mounts of files come first, in the order of targets, so that a
// mount does not hide another mount below it. Then come secrets and sockets.
func (w *walker) mounts(c *instructions.RunCommand, run *Run) error {
	var secrets, sockets []RunMount
	for _, m := range instructions.GetMounts(c) {
		rm := RunMount{Type: MountType(m.Type), ReadOnly: m.ReadOnly, Required: m.Required,
			Mode: narrow(m.Mode), UID: narrow(m.UID), GID: narrow(m.GID)}
		var err error
		switch m.Type {
		case instructions.MountTypeSecret:
			err = w.secretMount(m, &rm)
			secrets = append(secrets, rm)
		case instructions.MountTypeSSH:
			err = w.sshMount(m, &rm, len(sockets))
			sockets = append(sockets, rm)
		default:
			err = w.fileMount(m, &rm)
			run.Mounts = append(run.Mounts, rm)
		}
		if err != nil {
			return err
		}
		w.state.own.mount(&rm, c.Location())
	}
	sorting.StableFunc(run.Mounts, func(a, b RunMount) int {
		return strings.Compare(a.Target, b.Target)
	})
	run.Mounts = slices.Concat(run.Mounts, secrets, sockets)
	if _, ok := w.state.env.Get("SSH_AUTH_SOCK"); !ok && len(sockets) > 0 {
		run.Env = w.state.env.set("SSH_AUTH_SOCK", sockets[0].Target).kv
	}
	return nil
}

func narrow(n *uint64) *uint32 {
	if n == nil {
		return nil
	}
	u := uint32(*n)
	return &u
}

// mountTarget returns an absolute target.
func (w *walker) mountTarget(target string) string {
	target = toSlash(target, w.os())
	if !path.IsAbs(target) {
		target = path.Join(w.state.dir, target)
	}
	return path.Clean(target)
}

func (w *walker) fileMount(m *instructions.Mount, rm *RunMount) error {
	rm.Target = w.mountTarget(m.Target)
	if rm.Target == "/" {
		return fmt.Errorf("invalid mount target %q", rm.Target)
	}
	rm.Source = path.Join("/", m.Source)
	switch m.Type {
	case instructions.MountTypeTmpfs:
		rm.Source, rm.Size = "", m.SizeLimit
		return nil
	case instructions.MountTypeCache:
		rm.ID = m.CacheID
		if rm.ID == "" {
			rm.ID = path.Clean(m.Target)
		}
		rm.Sharing = SharingShared
		if m.CacheSharing != "" {
			rm.Sharing = Sharing(m.CacheSharing)
		}
		rm.From = Scratch{}
		if rm.Source != "/" {
			// Owner and mode apply to a new directory, but this one must exist.
			rm.Mode, rm.UID, rm.GID = nil, nil, nil
		}
	default:
		rm.From = ContextInput{}
	}
	if m.From == "" {
		return nil
	}
	var err error
	if rm.From, err = w.plan.source(m.From); err != nil {
		return err
	}
	if w.mayUse(rm.From, m.From) != nil {
		return fmt.Errorf(
			"cannot mount from stage %q to %q, stage needs to be defined before current command",
			m.From, m.Target)
	}
	return nil
}

// secretMount parses a mount of a secret. The secret's name is id or source, or otherwise the last
// part of the target. Without env and target, the secret is a file in /run/secrets.
func (w *walker) secretMount(m *instructions.Mount, rm *RunMount) error {
	rm.ReadOnly = true
	rm.ID = m.CacheID
	if m.Source != "" {
		rm.ID = m.Source
	}
	if rm.ID == "" {
		if m.Target == "" {
			return errors.New("one of source, target required")
		}
		rm.ID = path.Base(m.Target)
	}
	if m.Env != nil {
		rm.Env = *m.Env
	}
	switch {
	case m.Target != "":
		rm.Target = w.mountTarget(m.Target)
	case m.Env == nil:
		rm.Target = "/run/secrets/" + path.Base(rm.ID)
	}
	return nil
}

func (w *walker) sshMount(m *instructions.Mount, rm *RunMount, n int) error {
	if m.Source != "" {
		return errors.New("ssh does not support source")
	}
	rm.ReadOnly = true
	rm.ID = m.CacheID
	if rm.ID == "" {
		rm.ID = "default"
	}
	rm.Target = "/run/buildkit/ssh_agent." + strconv.Itoa(n)
	if m.Target != "" {
		rm.Target = w.mountTarget(m.Target)
	}
	return nil
}
