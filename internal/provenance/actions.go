package provenance

import (
	"path"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/attest"
	"github.com/layerbuild/layerbuild/parser"
)

// exec records a RUN.
func (r *recorder) exec(op *attest.Op, used *uses, st *parser.Stage, step parser.Step,
	a *parser.Run) {
	x := &attest.Exec{Meta: attest.Meta{Args: r.hideAll(a.Args), Env: r.environment(a.Env),
		Cwd: r.hide(a.Dir), User: r.hide(a.User)}}
	network := a.Network
	if network == "" || network == "default" {
		network = r.build.Network
	}
	switch network {
	case "none":
		x.Network = attest.NetworkNone
	case "host":
		x.Network = attest.NetworkHost
	}
	r.network = r.network || x.Network != attest.NetworkNone
	if a.Security == "insecure" {
		x.Security = attest.SecurityInsecure
	}
	for _, d := range a.Devices {
		x.Devices = append(x.Devices, attest.CDIDevice{Name: r.hide(d.Name), Optional: !d.Required})
	}
	x.Mounts = []attest.OpMount{{Input: used.add(r.ends[st]), Dest: "/"}}
	for _, m := range a.Mounts {
		r.mount(x, used, st, step, m)
	}
	if len(a.Files) > 0 {
		x.Mounts = append(x.Mounts, attest.OpMount{Input: used.add(r.scripts(a.Files, step)),
			Dest: path.Dir(a.Files[0].Path), Output: attest.NoIndex, ReadOnly: true})
	}
	op.Do.Exec = x
}

// scripts records the files of heredocs, which a command runs.
func (r *recorder) scripts(files []parser.RunFile, step parser.Step) result {
	op := &attest.Op{}
	op.Do.File = &attest.FileOp{}
	for i, f := range files {
		act := attest.FileAction{Input: i - 1, Secondary: attest.NoIndex, Output: attest.NoIndex}
		if i == len(files)-1 {
			act.Output = 0
		}
		act.Action.MkFile = &attest.MkFile{Path: "/" + path.Base(f.Path), Mode: int(f.Mode),
			Data: []byte(r.hide(string(f.Data)))}
		op.Do.File.Actions = append(op.Do.File.Actions, act)
	}
	return r.steps.add(op, nil, step.Range)
}

// environment returns the variables of a command, without the values of secrets.
func (r *recorder) environment(env []string) []string {
	out := make([]string, len(env))
	for i, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if _, given := r.build.Request.Args[name]; given && parser.IsSecretName(name) {
			value = mask
		}
		out[i] = name + "=" + r.hide(value)
	}
	return out
}

var mountTypes = map[parser.MountType]int{parser.MountCache: attest.MountCache,
	parser.MountTmpfs: attest.MountTmpfs, parser.MountSecret: attest.MountSecret,
	parser.MountSSH: attest.MountSSH}

var sharings = map[parser.Sharing]int{parser.SharingPrivate: attest.SharePrivate,
	parser.SharingLocked: attest.ShareLocked}

// mount records a mount of a RUN.
func (r *recorder) mount(x *attest.Exec, used *uses, st *parser.Stage, step parser.Step,
	m parser.RunMount) {
	out := attest.OpMount{Input: attest.NoIndex, Output: attest.NoIndex, Dest: r.hide(m.Target),
		ReadOnly: m.ReadOnly, MountType: mountTypes[m.Type]}
	switch m.Type {
	case parser.MountBind, parser.MountCache:
		out.Input = used.add(r.input(m.From, st.Platform, step.Range))
		if m.Source != "/" {
			out.Selector = r.hide(m.Source)
		}
		if m.Type == parser.MountCache {
			out.Cache = &attest.CacheOpt{ID: r.hide(m.ID), Sharing: sharings[m.Sharing]}
		}
	case parser.MountTmpfs:
		if m.Size > 0 {
			out.Tmpfs = &attest.TmpfsOpt{Size: m.Size}
		}
	case parser.MountSecret:
		r.secrets.add(m.ID, !m.Required)
		if m.Env != "" {
			x.SecretEnv = append(x.SecretEnv, attest.SecretEnv{ID: m.ID, Name: m.Env,
				Optional: !m.Required})
		}
		if m.Target == "" {
			return // only a variable
		}
		out.Secret = owned(m)
	case parser.MountSSH:
		r.agents.add(m.ID, !m.Required)
		out.SSH = owned(m)
	}
	x.Mounts = append(x.Mounts, out)
}

// owned returns the options of a secret or an agent.
func owned(m parser.RunMount) *attest.OwnedOpt {
	o := &attest.OwnedOpt{ID: m.ID, Optional: !m.Required}
	if m.UID != nil {
		o.UID = *m.UID
	}
	if m.GID != nil {
		o.GID = *m.GID
	}
	if m.Mode != nil {
		o.Mode = *m.Mode
	}
	return o
}

// copy records a COPY or an ADD: one action for each source.
func (r *recorder) copy(op *attest.Op, used *uses, st *parser.Stage, step parser.Step,
	a *parser.Copy) {
	base := used.add(r.ends[st])
	var list []attest.FileAction
	local, remote := a.SplitSources()
	files := attest.CopyFiles{Dest: r.hide(a.Dest), Owner: owner(a.Chown, base),
		Mode: attest.NoIndex, Follow: true, Content: true, Create: true,
		Exclude: r.hideAll(a.Exclude)}
	if mode, err := strconv.ParseUint(a.Chmod, 8, 32); err == nil {
		files.Mode = int(mode)
	} else {
		files.ModeStr = a.Chmod
	}
	for _, src := range local {
		c := files
		c.Src, c.Wild = r.hide(path.Clean("/"+src)), true
		c.Unpack = a.Add && (a.Unpack == nil || *a.Unpack)
		act := attest.FileAction{Secondary: used.add(r.input(a.From, st.Platform, step.Range))}
		act.Action.Copy = &c
		list = append(list, act)
	}
	for _, src := range remote {
		m, err := r.build.Inputs.Material(r.ctx, a, src)
		if err != nil {
			r.fail(err)
			return
		}
		c := files
		c.Src, c.Unpack = "/", a.Unpack != nil && *a.Unpack
		act := attest.FileAction{Secondary: used.add(r.remoteStep(m, a.Checksum, st.Platform,
			step.Range))}
		act.Action.Copy = &c
		list = append(list, act)
	}
	for _, f := range a.Inline {
		act := attest.FileAction{Secondary: attest.NoIndex}
		dest := a.Dest
		if strings.HasSuffix(dest, "/") {
			dest += f.Name
		}
		act.Action.MkFile = &attest.MkFile{Path: r.hide(dest), Mode: 0o644,
			Data: []byte(r.hide(string(f.Data)))}
		list = append(list, act)
	}
	for i := range list { // each works on the result of the one before it
		list[i].Input = base
		if i > 0 {
			list[i].Input = len(*used) + i - 1
		}
		list[i].Output = attest.NoIndex
		if i == len(list)-1 {
			list[i].Output = 0
		}
	}
	op.Do.File = &attest.FileOp{Actions: list}
}

// owner returns the owner that a text such as user:group or 1:2 names; nil for "". Names are those
// of the input with the given index.
func owner(text string, input int) *attest.Chown {
	if text == "" {
		return nil
	}
	user, group, _ := strings.Cut(text, ":")
	return &attest.Chown{User: principal(user, input), Group: principal(group, input)}
}

func principal(name string, input int) *attest.Principal {
	if name == "" {
		return nil
	}
	p := &attest.Principal{}
	if id, err := strconv.ParseUint(name, 10, 32); err == nil {
		p.User.ByID = uint32(id)
		return p
	}
	p.User.ByName = &attest.NamedUser{Name: name, Input: input}
	return p
}
