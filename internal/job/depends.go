package job

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/layerbuild/layerbuild/internal/explain"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
)

// Depends adds to s what the job's result depends on besides its parent, for package explain. It
// must be called after Load.
func (j *Job) Depends(s *explain.Step) { j.action.depends(s) }

// dependence collects what a result depends on.
type dependence struct{ *explain.Step }

func (d dependence) add(kind explain.Kind, name, value string) {
	d.Parts = append(d.Parts, explain.Part{Kind: kind, Name: name, Value: value})
}

// instruction adds a checksum of what the instruction is after its variables were expanded.
func (d dependence) instruction(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and booleans
	}
	d.add(explain.Instruction, "", explain.Sum(string(data)))
}

func (d dependence) epoch(epoch *int64) {
	if epoch != nil {
		d.add(explain.Option, parser.EpochArg, fmt.Sprint(*epoch))
	}
}

// files adds the files of a match.
func (d dependence) files(from parser.Input, f *inputs.Files, m *source.Match) {
	list := explain.Files{From: placeOf(from)}
	for _, it := range m.Items {
		for e := range it.Entries.All() {
			list.Add(path.Join(it.Path, e.Path), e.Sum)
		}
	}
	list.Seal()
	d.Files = append(d.Files, list)
	d.add(explain.Content, cmp.Or(list.From, "the context"), m.Digest.String())
	if lines := f.Tree.Ignore(); len(lines) > 0 {
		d.add(explain.Ignore, f.Tree.IgnoreName(), explain.Sum(strings.Join(lines, "\n")))
	}
}

// placeOf names the place of files; "" is the context of the build.
func placeOf(in parser.Input) string {
	switch in := in.(type) {
	case parser.StageInput:
		return "stage " + in.Stage.Label()
	case parser.ImageInput:
		return "image " + in.Ref
	case parser.ContextInput:
		if in.Name != "" {
			return "context " + in.Name
		}
	}
	return ""
}

func (m *mkdirAction) depends(s *explain.Step) {
	d := dependence{s}
	d.instruction(m.mkdir.Path)
	d.add(explain.Setting, "USER", explain.Sum(m.mkdir.User))
	d.epoch(m.w.Epoch)
}

func (c *copyAction) depends(s *explain.Step) {
	d := dependence{s}
	d.instruction(c.copy)
	d.epoch(c.w.Epoch)
	if c.match != nil {
		d.files(c.copy.From, c.from, c.match)
	}
	for _, r := range c.remotes {
		d.add(explain.Source, r.Material().URL, r.Key().String())
	}
}

func (r *runAction) depends(s *explain.Step) {
	d := dependence{s}
	a := r.instr
	shell, command := []string(nil), a.Args
	if n := len(a.Args); n > 1 {
		shell, command = a.Args[:n-1], a.Args[n-1:]
	}
	d.instruction([]any{command, a.Files, a.Mounts, a.Security})
	for _, set := range [][2]string{
		{"SHELL", strings.Join(shell, "\x00")}, {"WORKDIR", a.Dir}, {"USER", a.User},
	} {
		d.add(explain.Setting, set[0], explain.Sum(set[1]))
	}
	for _, kv := range a.Env {
		name, value, _ := strings.Cut(kv, "=")
		d.add(explain.Arg, name, explain.Sum(value)) // Solver knows which are of the image
	}
	o := r.opts
	d.add(explain.Option, "--network", r.network())
	for _, option := range []struct {
		name string
		set  bool
		v    any
	}{
		{"--add-host", len(o.Hosts) > 0, o.Hosts}, {"--shm-size", o.ShmSize != 0, o.ShmSize},
		{"--ulimit", len(o.Ulimits) > 0, o.Ulimits}, {"--hostname", o.Hostname != "", o.Hostname},
		{"--volume", len(o.Volumes) > 0, o.Volumes}, {"--device", r.deviceKey != "", r.deviceKey},
	} {
		if option.set {
			d.add(explain.Option, option.name, fmt.Sprint(option.v))
		}
	}
	if o.Caps != nil {
		d.add(explain.Option, "--cap-add and --cap-drop", fmt.Sprintf("%x", *o.Caps))
	}
	if len(r.content) > 0 {
		d.epoch(r.w.Epoch)
	}
	for i, m := range a.Mounts {
		if r.from[i] != nil && r.digested[i] != nil {
			d.files(m.From, r.from[i], r.digested[i])
		}
	}
}
