package parser

import (
	"errors"
	"fmt"
	"iter"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/suggest"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	bkparser "github.com/moby/buildkit/frontend/dockerfile/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// state is the state between two instructions of a stage. Its slices and maps are never changed
// in place, so that steps and stages can share them.
type state struct {
	img  dockerspec.DockerOCIImage
	env  env
	args []Argument
	// dir is the working directory with slashes, always absolute.
	dir string
	// workdirSet is set after a WORKDIR in this stage or in a stage on which it is based.
	workdirSet bool
	// The positions of the last instructions of kinds of which only the last one has an effect.
	cmd, entrypoint, healthcheck []bkparser.Range
	sizes                        sizeRules
	own                          parameters // of the stage's own instructions, for Outline
}

// Start returns the stage's initial configuration: base, with the default PATH if it has none. For
// Scratch and for a context without a configuration pass the zero value.
func (s *Stage) Start(base dockerspec.DockerOCIImage) dockerspec.DockerOCIImage {
	st, err := s.begin(base)
	if err != nil {
		return base
	}
	return st.img
}

// Steps yields the steps of the stage in order. base is the configuration of the base. For a
// StageInput it is the configuration after the last step of that stage, whose steps must have been
// walked to the end before, since its arguments are also declared in this stage. For Scratch and
// for a context without a configuration it is the zero value. The triggers of base come first.
// After an error, which is an *Error, no more steps are yielded.
//
// Steps may be called several times, and concurrently. With the same base it expands the
// instructions once: a build walks a stage to check it, to predict its keys and to run it.
func (s *Stage) Steps(base dockerspec.DockerOCIImage) iter.Seq2[Step, error] {
	return func(yield func(Step, error) bool) {
		below := s.below()
		if e := s.expanded.Load(); e != nil && e.below == below && sameConfig(e.base, base) {
			for _, step := range e.steps {
				if !yield(step.on(base), nil) {
					return
				}
			}
			return
		}
		e := &expansion{base: base, below: below}
		for step, err := range s.expand(base) {
			if s.plan.budget.spent(s.Index, valueBytes) > maxKept {
				e.steps, e.large = nil, true
			}
			if !e.large {
				e.steps = append(e.steps, step)
			}
			if !yield(step, err) || err != nil {
				return
			}
		}
		if !e.large {
			s.expanded.Store(e)
		}
	}
}

// Texts returns the instructions of the stage, without those of its base, as Step.Text has them.
// The first call parses the instructions once more, and the result is kept.
func (s *Stage) Texts() []string {
	if list := s.texts.Load(); list != nil {
		return *list
	}
	var list []string
	for _, n := range s.nodes {
		if c, err := parseCommand(n); err == nil {
			if t, ok := c.(fmt.Stringer); ok {
				list = append(list, t.String())
			}
		}
	}
	s.texts.Store(&list)
	return list
}

// expansion holds the expanded steps of a stage for one base.
type expansion struct {
	base  dockerspec.DockerOCIImage
	below *state // final state of the stage on which the stage is based
	steps []Step
	large bool // the steps have more than maxKept bytes, and are not kept
}

// maxKept limits the size of the expanded values of steps that are kept for a further walk. A
// hostile Dockerfile can reach the limit of valueBytes.
const maxKept = 1 << 20

// below returns the final state of the stage on which s is based, or nil if it is based on no
// stage.
func (s *Stage) below() *state {
	if in, ok := s.Base.(StageInput); ok {
		return in.Stage.final.Load()
	}
	return nil
}

// sameConfig reports whether a stage has the same steps on two bases: the bases may differ in
// history, layers and time of creation, which no instruction reads.
func sameConfig(a, b dockerspec.DockerOCIImage) bool {
	for _, img := range []*dockerspec.DockerOCIImage{&a, &b} {
		img.History, img.RootFS, img.Created = nil, ocispec.RootFS{}, nil
	}
	return reflect.DeepEqual(a, b)
}

// on returns the step with base's history and layers.
func (s Step) on(base dockerspec.DockerOCIImage) Step {
	s.Image.History = base.History
	s.Image.RootFS.DiffIDs = base.RootFS.DiffIDs
	if base.RootFS.Type != "" {
		s.Image.RootFS.Type = base.RootFS.Type
	}
	return s
}

// expand yields the steps for Steps.
func (s *Stage) expand(base dockerspec.DockerOCIImage) iter.Seq2[Step, error] {
	return func(yield func(Step, error) bool) {
		st, err := s.begin(base)
		if err != nil {
			yield(Step{Range: s.Range}, s.plan.file.fail(s.Range, err))
			return
		}
		s.plan.budget.begin(s.Index)
		w := &walker{stage: s, plan: s.plan, state: st, lex: s.plan.expander(s.Index)}
		triggers := base.Config.OnBuild
		switch in := s.Base.(type) {
		case StageInput:
			triggers = in.Stage.triggers
		case ImageInput:
			s.plan.lint.scope(nil).basePlatform(in.Ref, in.Platform, base.Platform, s.loc)
		}
		if s.replaced {
			triggers = nil
		}
		for _, t := range triggers {
			c, err := parseTrigger(t, s.Range)
			step := Step{Range: s.Range, OnBuild: true}
			if err == nil {
				err = w.step(c, &step)
			}
			if !yield(step, s.plan.file.fail(s.Range, err)) || err != nil {
				return
			}
		}
		for _, n := range s.nodes {
			c, err := parseCommand(n)
			r := rangeOf(n.Location())
			step := Step{Range: r}
			if err == nil {
				err = w.step(c, &step)
			}
			if !yield(step, s.plan.file.fail(r, err)) || err != nil {
				return
			}
		}
		final := w.state
		s.final.Store(&final)
	}
}

// begin returns the state before the first instruction.
func (s *Stage) begin(base dockerspec.DockerOCIImage) (state, error) {
	var st state
	if in, ok := s.Base.(StageInput); ok {
		parent := in.Stage.final.Load()
		if parent == nil {
			return st, fmt.Errorf("stage %q has to be walked before stage %q",
				in.Stage.Label(), s.Label())
		}
		st.env, st.args, st.workdirSet = parent.env, parent.args, parent.workdirSet
		st.sizes = parent.sizes
	}
	st.img = base
	st.img.Created = nil
	st.img.Config.OnBuild = nil
	if base.OS == "" {
		st.img.Platform = s.Platform
		if base.Config.WorkingDir == "" {
			st.img.Config.WorkingDir = "/"
		}
		if st.img.RootFS.Type == "" {
			st.img.RootFS.Type = "layers"
		}
	}
	if _, ok := newEnv(base.Config.Env).Get("PATH"); !ok && s.Platform.OS != "windows" {
		st.img.Config.Env = replaceEnv(base.Config.Env, "PATH", "PATH="+DefaultPath)
	}
	for _, kv := range st.img.Config.Env {
		k, v, _ := strings.Cut(kv, "=")
		st.env = st.env.set(k, v)
	}
	st.dir = "/"
	if wd := st.img.Config.WorkingDir; wd != "" {
		if err := st.chdir(wd, s.Platform.OS); err != nil {
			return st, err
		}
	}
	return st, nil
}

// chdir changes the working directory of the configuration and of the state.
func (st *state) chdir(wd, os string) error {
	dir, err := resolvePath(st.img.Config.WorkingDir, wd, os, false)
	if err != nil {
		return fmt.Errorf("normalize workdir: %w", err)
	}
	st.dir = dir
	if os == "windows" {
		dir = strings.ReplaceAll(dir, "/", `\`)
	}
	st.img.Config.WorkingDir = dir
	return nil
}

// walker expands the instructions of one stage, one after the other.
type walker struct {
	stage *Stage
	plan  *Plan
	state state
	lex   expander
	rules scope
}

func (w *walker) os() string { return w.stage.Platform.OS }

// parseTrigger parses an ONBUILD expression. It is not part of the file, so the file's escape
// directive does not apply to it. Its position is that of the FROM that triggers it.
func parseTrigger(expr string, at Range) (instructions.Command, error) {
	res, err := bkparser.Parse(strings.NewReader(expr))
	if err != nil {
		return nil, fmt.Errorf("parse ONBUILD trigger %q: %w", expr, unlocated(err))
	}
	repairFlags(res.AST)
	if len(res.AST.Children) != 1 {
		return nil, errors.New("onbuild trigger should be a single expression")
	}
	n := res.AST.Children[0]
	n.StartLine, n.EndLine = at.Start, at.End
	c, err := parseCommand(n)
	if err != nil {
		return nil, fmt.Errorf("parse ONBUILD trigger %q: %w", expr, unlocated(err))
	}
	return c, nil
}

// unlocated removes a position inside the trigger, which is not a position in the file.
func unlocated(err error) error {
	return errors.New(err.Error())
}

// step expands one instruction, updates the state and sets the fields of step.
func (w *walker) step(c instructions.Command, step *Step) error {
	w.rules = w.plan.lint.scope(c.Comments())
	if t, ok := c.(fmt.Stringer); ok {
		step.Text = t.String()
	}
	if err := w.expand(c); err != nil {
		return err
	}
	if err := w.dispatch(c, step); err != nil {
		return err
	}
	if step.Name == "" {
		step.Name = step.History
		if step.Name == "" {
			step.Name = upperFirst(step.Text)
		}
	}
	if step.OnBuild {
		step.Name = "ONBUILD " + step.Name
	}
	step.Image, step.Args = w.state.img, w.state.args
	return nil
}

// expand expands the variables of an instruction that supports them. ARG expands its default later,
// and only if the default is used.
func (w *walker) expand(c instructions.Command) error {
	word := func(x expander) instructions.SingleWordExpander {
		return func(s string) (string, error) {
			if !strings.ContainsAny(s, "$\"'\\`<") {
				return s, nil // nothing to expand, to unquote or to escape
			}
			out, err := x.word(s, w.state.env)
			w.reportUnmatched(c, out.Unmatched)
			return out.Result, err
		}
	}
	_, isArg := c.(*instructions.ArgCommand)
	if x, ok := c.(instructions.SupportsSingleWordExpansion); ok && !isArg {
		if err := x.Expand(word(w.lex)); err != nil {
			return err
		}
	}
	if x, ok := c.(instructions.SupportsSingleWordExpansionRaw); ok {
		return x.ExpandRaw(word(w.lex.raw()))
	}
	return nil
}

func (w *walker) reportUnmatched(c instructions.Command, unmatched map[string]struct{}) {
	for _, k := range sortedKeys(unmatched) {
		declared := slices.ContainsFunc(w.state.args, func(a Argument) bool { return a.Name == k })
		if declared || isScannerArg(k) {
			continue
		}
		msg := linter.RuleUndefinedVar.Format(k, suggest.Closest(k, w.state.env.Keys()))
		w.rules.run(&linter.RuleUndefinedVar, c.Location(), msg)
	}
}

func (w *walker) dispatch(c instructions.Command, step *Step) error {
	switch c := c.(type) {
	case *instructions.RunCommand:
		return w.run(c, step)
	case *instructions.CopyCommand:
		return w.copy(c, step)
	case *instructions.AddCommand:
		return w.add(c, step)
	case *instructions.WorkdirCommand:
		return w.workdir(c, step)
	case *instructions.ArgCommand:
		return w.arg(c, step)
	case *instructions.ExposeCommand:
		return w.expose(c, step)
	default:
		return w.metadata(c, step)
	}
}

func (w *walker) workdir(c *instructions.WorkdirCommand, step *Step) error {
	st := &w.state
	if !st.workdirSet && !isAbs(c.Path, w.os()) {
		w.rules.run(&linter.RuleWorkdirRelativePath, c.Location(),
			linter.RuleWorkdirRelativePath.Format(c.Path))
	}
	st.workdirSet = true
	if err := st.chdir(c.Path, w.os()); err != nil {
		return err
	}
	step.Name = upperFirst(w.lex.display(step.Text, st.env))
	step.History = "WORKDIR " + st.dir
	if st.dir != "/" {
		step.Action = &Mkdir{Path: path.Clean(st.dir), User: st.img.Config.User}
	}
	return nil
}

func (w *walker) arg(c *instructions.ArgCommand, step *Step) error {
	st := &w.state
	if len(st.args)+len(st.env.kv)+len(c.Args) > 2*maxVariables {
		return errManyVariables
	}
	var text []string
	for _, a := range c.Args {
		w.rules.secretKey("ARG", a.Key, c.Location())
		value, inherited := a.Value, false
		if v, ok := w.plan.opts.BuildArgs[a.Key]; ok {
			value = &v
		} else if value == nil {
			if v, ok := w.plan.globals.Get(a.Key); ok {
				value, inherited = &v, true
			}
		} else {
			v, err := w.lex.word(*value, st.env)
			w.reportUnmatched(c, v.Unmatched)
			if err != nil {
				return err
			}
			value = &v.Result
		}
		decl := Argument{Name: a.Key}
		if value != nil {
			decl.Value = *value
			if !isScannerArg(a.Key) {
				st.env = st.env.set(a.Key, *value)
			}
			text = append(text, a.Key+"="+*value)
		} else {
			text = append(text, a.Key)
		}
		st.args = append(slices.Clip(st.args), decl)
		if inherited {
			st.own.inherited = append(st.own.inherited, a.Key)
			continue
		}
		st.own.args = append(st.own.args, Parameter{Name: a.Key, Description: a.DocComment,
			Value: decl.Value, Range: rangeOf(c.Location())})
	}
	step.History = "ARG " + strings.Join(text, " ")
	return nil
}

// once reports an instruction of a kind of which only the last one has an effect. The finding is at
// the earlier one.
func (w *walker) once(last *[]bkparser.Range, c instructions.Command) {
	if *last != nil {
		w.rules.run(&linter.RuleMultipleInstructionsDisallowed, *last,
			linter.RuleMultipleInstructionsDisallowed.Format(c.Name()))
	}
	*last = c.Location()
}

// withShell returns a command in shell form, with the shell prepended.
func (w *walker) withShell(args []string) []string {
	shell := w.state.img.Config.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
		if w.state.img.OS == "windows" {
			shell = []string{"cmd", "/S", "/C"}
		}
	}
	return append(slices.Clip(slices.Clone(shell)), strings.Join(args, " "))
}

// commandLine returns the command of CMD or ENTRYPOINT.
func (w *walker) commandLine(c instructions.Command,
	line instructions.ShellDependantCmdLine) []string {
	if !line.PrependShell {
		return line.CmdLine
	}
	if len(w.state.img.Config.Shell) == 0 {
		w.rules.run(&linter.RuleJSONArgsRecommended, c.Location(),
			linter.RuleJSONArgsRecommended.Format(c.Name()))
	}
	return w.withShell(line.CmdLine)
}

func upperFirst(s string) string {
	word, rest, ok := strings.Cut(s, " ")
	if !ok {
		return strings.ToUpper(word)
	}
	return strings.ToUpper(word) + " " + rest
}

// mayUse is like Plan.mayUse. It is also called for triggers of an image, which Plan cannot check.
func (w *walker) mayUse(in Input, as string) error {
	if in, ok := in.(StageInput); ok {
		return w.stage.mayUse(in.Stage, as)
	}
	return nil
}
