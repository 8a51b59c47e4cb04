package parser

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/layerbuild/layerbuild/internal/platform"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/suggest"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	bkparser "github.com/moby/buildkit/frontend/dockerfile/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PlanOptions select the stages of a File that are built, and the values for its variables.
type PlanOptions struct {
	// BuildArgs are the values of --build-arg.
	BuildArgs map[string]string
	// Target is the name or the index of a stage; empty for the last one.
	Target string
	// AllStages keeps stages that the target does not need, for checking them. Finish still
	// applies to the stage of Target.
	AllStages bool
	// Labels are key=value pairs for the target's configuration, added by Plan.Finish. If two have
	// the same key, the last one is used.
	Labels []string
	// BuildPlatform is where commands run; zero for the host.
	BuildPlatform ocispec.Platform
	// Platform is the platform to build for; zero for BuildPlatform.
	Platform ocispec.Platform
	// Contexts are the names of the named build contexts. A context replaces a stage or an image
	// with the same name.
	Contexts []string
	// Empty are those of Contexts that have no files, like scratch: "docker-image://scratch".
	Empty []string
	// Ignore are the patterns of the ignore file of the main context; only the CopyIgnoredFile
	// rule uses them.
	Ignore []string
	// Lint is merged with the file's check directive.
	Lint LintOptions
}

// Plan holds the stages that are built for one target and one platform.
type Plan struct {
	// Stages are the stages that Target needs, each after its dependencies.
	Stages []*Stage
	// Target is the stage to build.
	Target *Stage
	// Epoch is SOURCE_DATE_EPOCH from the build arguments or from a global ARG, in seconds since
	// 1970; nil when it is not set.
	Epoch *int64
	// EpochFrom is set instead of Epoch if the value is the name of a source whose time is meant.
	// The caller makes another plan, with the time in BuildArgs.
	EpochFrom EpochSource

	file     *File
	opts     PlanOptions
	build    ocispec.Platform
	platform ocispec.Platform
	globals  env
	declared []string // names of global arguments, for lint rules
	// globalArgs are the ARGs before the first FROM. Of several of one name the last one counts.
	globalArgs []*globalArg
	all        []*Stage
	byName     map[string]*Stage
	proxy      []string
	result     dockerspec.DockerOCIImage // of the target, from Check
	ignore     *ignoreFile
	lint       *lint
	// badName is the error for the first FROM or --from with an invalid name of an image. As in
	// BuildKit it is reported after other mistakes of this kind, so that the rules on FROM see all
	// stages.
	badName error
	budget  budget
	// epochStage is the name of the stage that SOURCE_DATE_EPOCH names; "" if it names none.
	epochStage string
}

// Stage is a FROM and the instructions after it.
type Stage struct {
	// Index is the number of the stage in the file, from 0.
	Index int
	// Name is the name in lower case; empty for a stage without one.
	Name string
	// Base is the input on which the stage is based.
	Base Input
	// Platform is the platform for which the stage is built.
	Platform ocispec.Platform
	// Needs are the stages whose results this stage uses, including its base, as far as they are
	// known from the file: ONBUILD triggers of an image can name further stages.
	Needs []*Stage
	// Range is the position of the FROM.
	Range Range
	// Total is the number of steps that have an action, without the triggers of a base image.
	Total int

	plan     *Plan
	baseName string
	loc      []bkparser.Range
	comments []string
	fromArgs []string // names of the arguments in FROM
	replaced bool     // a named context replaces the stage, which has no steps
	nodes    []*bkparser.Node
	commands []instructions.Command
	triggers []string // ONBUILD expressions of this stage, for stages based on it
	final    atomic.Pointer[state]
	expanded atomic.Pointer[expansion] // the last expansion that was completed
	texts    atomic.Pointer[[]string]  // the result of Texts, once it was called
}

// Plan chooses the stages that the target needs. The error is an *Error. If there is an error,
// the plan can only be used for its Warnings, which were found before the mistake; it is nil if
// the options of the lint rules are invalid.
func (f *File) Plan(o PlanOptions) (*Plan, error) {
	p := &Plan{file: f, opts: o, byName: map[string]*Stage{}}
	p.build, p.platform = o.BuildPlatform, o.Platform
	if isZeroPlatform(p.build) {
		p.build = HostPlatform()
	}
	if isZeroPlatform(p.platform) {
		p.platform = p.build
	}
	var err error
	if p.lint, err = newLint(f, o); err != nil {
		return nil, err
	}
	p.ignore = newIgnoreFile(o.Ignore)
	p.proxy = proxyEnv(o.BuildArgs)
	return p, p.readStages()
}

// readStages resolves all FROMs and chooses the stages to build. The findings of rules are kept
// even if it returns an error.
func (p *Plan) readStages() error {
	f := p.file
	p.lint.checkContinuations(f)
	stages, meta, err := f.instructions(p.lint.linter)
	if err != nil {
		return err
	}
	p.lint.checkStages(stages)
	if err := p.setGlobals(stages, meta); err != nil {
		return err
	}
	for i := range stages {
		if err := p.addStage(i, &stages[i]); err != nil {
			return f.fail(rangeOf(stages[i].Location), err)
		}
	}
	if p.Target, err = p.findTarget(); err != nil {
		return f.fail(Range{}, err)
	}
	for _, s := range p.all {
		if err := s.findNeeds(); err != nil {
			return err
		}
	}
	if err := p.checkCycles(); err != nil {
		return err
	}
	if p.badName != nil {
		return p.badName
	}
	if err := p.findEpochStage(); err != nil {
		return err
	}
	p.prune()
	return nil
}

// setGlobals sets the automatic platform arguments and the ARGs before the first FROM.
func (p *Plan) setGlobals(stages []instructions.Stage, meta []instructions.ArgCommand) error {
	target := p.opts.Target
	if target == "" {
		target = stages[len(stages)-1].Name
	}
	if target == "" {
		target = "default"
	}
	for _, kv := range [][2]string{
		{"BUILDPLATFORM", platform.Short(p.build)},
		{"BUILDOS", p.build.OS},
		{"BUILDOSVERSION", p.build.OSVersion},
		{"BUILDARCH", p.build.Architecture},
		{"BUILDVARIANT", p.build.Variant},
		{"TARGETPLATFORM", FormatPlatform(p.platform)},
		{"TARGETOS", p.platform.OS},
		{"TARGETOSVERSION", p.platform.OSVersion},
		{"TARGETARCH", p.platform.Architecture},
		{"TARGETVARIANT", p.platform.Variant},
		{"TARGETSTAGE", target},
	} {
		v := kv[1]
		if given, ok := p.opts.BuildArgs[kv[0]]; ok {
			v = given
		}
		p.globals = p.globals.set(kv[0], v)
	}
	x := p.expander(-1)
	if defaults, _, err := globalArgs(p.globals, x, meta, nil); err == nil {
		p.lint.checkDefaultBases(stages, x, defaults)
	}
	p.budget.begin(-1) // the defaults are not kept
	var err error
	p.globals, p.globalArgs, err = globalArgs(p.globals, x, meta, p.opts.BuildArgs)
	if err != nil {
		return p.file.fail(Range{}, err)
	}
	p.declared = p.globals.Keys()
	for _, c := range meta {
		for _, a := range c.Args {
			if !slices.Contains(p.declared, a.Key) {
				p.declared = append(p.declared, a.Key)
			}
		}
	}
	return p.setEpoch(stages)
}

// globalArgs adds global ARGs with the values of --build-arg, or with their defaults, which may
// refer to earlier ARGs.
func globalArgs(e env, x expander, meta []instructions.ArgCommand,
	given map[string]string) (env, []*globalArg, error) {
	var list []*globalArg
	uses := map[string]map[string]struct{}{} // by the name of an argument
	for _, c := range meta {
		if len(e.kv)+len(c.Args) > maxVariables {
			return env{}, nil, bkparser.WithLocation(errManyVariables, c.Location())
		}
		for _, a := range c.Args {
			arg := &globalArg{Parameter: Parameter{Name: a.Key, Description: a.DocComment,
				Range: rangeOf(c.Location())}}
			if v, ok := given[a.Key]; ok {
				arg.Value = v
				e = e.set(a.Key, v)
			} else if a.Value != nil {
				v, err := x.word(*a.Value, e)
				if err != nil {
					return env{}, nil, bkparser.WithLocation(err, c.Location())
				}
				arg.Value, arg.uses = v.Result, v.Matched
				if _, own := v.Matched[a.Key]; own { // ARG A=$A-x: an earlier ARG has the name, too
					delete(arg.uses, a.Key)
					maps.Copy(arg.uses, uses[a.Key])
				}
				e = e.set(a.Key, v.Result)
			}
			uses[a.Key] = arg.uses
			list = append(list, arg)
		}
	}
	return e, list, nil
}

// setArg changes an argument in all sets of arguments that have it; "" removes it. The caller's map
// is not changed.
func (p *Plan) setArg(key, value string) {
	if _, ok := p.opts.BuildArgs[key]; ok {
		p.opts.BuildArgs = maps.Clone(p.opts.BuildArgs)
		p.opts.BuildArgs[key] = value
		if value == "" {
			delete(p.opts.BuildArgs, key)
		}
	}
	if _, ok := p.globals.Get(key); ok {
		p.globals = p.globals.set(key, value)
		if value == "" {
			p.globals = p.globals.del(key)
		}
	}
}

// addStage adds a stage, whose FROM it resolves.
func (p *Plan) addStage(i int, st *instructions.Stage) error {
	s := &Stage{Index: i, Name: st.Name, Range: rangeOf(st.Location), plan: p, loc: st.Location,
		comments: st.Comments, nodes: p.file.blocks[i], commands: st.Commands}
	rules := p.lint.scope(st.Comments)
	x := p.expander(i)
	name, err := x.word(st.BaseName, p.globals)
	rules.fromArgs(p.declared, name.Unmatched, st.Location)
	if err != nil {
		return err
	}
	if name.Result == "" {
		return fmt.Errorf("base name (%s) should not be blank", st.BaseName)
	}
	s.baseName, s.fromArgs = name.Result, sortedKeys(name.Matched)
	s.Platform = p.platform
	if st.Platform != "" {
		if s.Platform, err = s.fromPlatform(st, x, rules); err != nil {
			return err
		}
	}
	if ctx, ok := p.context(st.Name); ok && st.Name != "" {
		s.Base, s.replaced = p.contextInput(ctx, s.Platform), true
		s.nodes, s.commands = nil, nil
	} else if err := s.setBase(); err != nil {
		p.noteBadName(s.Range, err)
	}
	p.all = append(p.all, s)
	if s.Name != "" {
		p.byName[s.Name] = s
	}
	s.countSteps()
	return nil
}

// fromPlatform returns the platform of a FROM.
func (s *Stage) fromPlatform(st *instructions.Stage, x expander,
	rules scope) (ocispec.Platform, error) {
	p := s.plan
	m, err := x.word(st.Platform, p.globals)
	s.fromArgs = append(s.fromArgs, sortedKeys(m.Matched)...)
	rules.fromArgs(p.declared, m.Unmatched, st.Location)
	rules.fromPlatform(st, m, p.globals)
	if err != nil {
		return ocispec.Platform{}, fmt.Errorf("process arguments for platform %s: %w", st.Platform,
			err)
	}
	similar := func(err error) error {
		for _, k := range sortedKeys(m.Unmatched) {
			if c := suggest.Closest(k, p.globals.Keys()); c != "" {
				return didYouMean(err, k, p.globals.Keys())
			}
		}
		return err
	}
	if m.Result == "" {
		return ocispec.Platform{}, similar(fmt.Errorf("empty platform value from expression %s",
			st.Platform))
	}
	platform, err := ParsePlatform(m.Result)
	if err != nil {
		return platform, similar(fmt.Errorf("failed to parse platform %s: %w: invalid argument",
			st.Platform, err))
	}
	return platform, nil
}

// setBase sets the input that FROM names: an earlier stage, a context, scratch, or an image.
func (s *Stage) setBase() error {
	p := s.plan
	// Names of stages are stored in lower case. Unlike in --from and --target, BuildKit does not
	// convert the name in FROM: a name with capital letters is the name of an image, and invalid.
	if base, ok := p.byName[s.baseName]; ok {
		s.Base, s.Platform = StageInput{base}, base.Platform
		return nil
	}
	if s.baseName == "scratch" {
		s.Base, s.Platform = Scratch{}, p.platform
		return nil
	}
	var err error
	s.Base, err = p.imageInput(s.baseName, s.Platform)
	if _, ok := p.byName[strings.ToLower(s.baseName)]; ok && err != nil {
		err = fmt.Errorf("%w (did you mean the stage %s?)", err, strings.ToLower(s.baseName))
	}
	return err
}

// nameError is the error for an invalid name of an image.
type nameError struct {
	name string
	err  error
}

func (e *nameError) Error() string { return fmt.Sprintf("parse image name %q: %v", e.name, e.err) }
func (e *nameError) Unwrap() error { return e.err }

// noteBadName records the first error for an invalid name.
func (p *Plan) noteBadName(at Range, err error) {
	err = p.file.fail(at, err)
	var have, got *Error
	if !errors.As(p.badName, &have) || errors.As(err, &got) && got.Range.Start < have.Range.Start {
		p.badName = err
	}
}

// imageInput returns the input for a name that is not a stage. The error is a *nameError.
func (p *Plan) imageInput(name string, platform ocispec.Platform) (Input, error) {
	if ctx, ok := p.context(name); ok {
		return p.contextInput(ctx, platform), nil
	}
	if _, err := reference.Parse(name); err != nil {
		return nil, &nameError{name, err}
	}
	return ImageInput{Ref: name, Platform: platform}, nil
}

// contextInput returns the input for a named context.
func (p *Plan) contextInput(name string, platform ocispec.Platform) Input {
	if slices.Contains(p.opts.Empty, name) {
		return Scratch{}
	}
	return ContextInput{Name: name, Platform: platform}
}

// context finds the named context that replaces a stage or an image. The name of an image has
// several spellings: alpine, docker.io/library/alpine:latest. scratch and context cannot be
// replaced.
func (p *Plan) context(name string) (string, bool) {
	if name == "" || strings.EqualFold(name, "scratch") || strings.EqualFold(name, "context") {
		return "", false
	}
	if slices.Contains(p.opts.Contexts, name) {
		return name, true
	}
	familiar := familiarName(name)
	for _, c := range p.opts.Contexts {
		if familiarName(c) == familiar {
			return c, true
		}
	}
	return "", false
}

func familiarName(name string) string {
	ref, err := reference.Parse(name)
	if err != nil {
		return strings.ToLower(name)
	}
	return strings.TrimSuffix(ref.Familiar(), ":latest")
}

// Lineage returns the stage, the stage on which it is based, and so on. The lineage of the target
// has the stages whose steps are in the history of the image.
func (s *Stage) Lineage() []*Stage {
	list := []*Stage{s}
	for {
		base, ok := list[len(list)-1].Base.(StageInput)
		if !ok {
			return list
		}
		list = append(list, base.Stage)
	}
}

func (s *Stage) countSteps() {
	for _, c := range s.commands {
		if hasAction(c.Name()) {
			s.Total++
		}
		if trigger, ok := c.(*instructions.OnbuildCommand); ok {
			s.triggers = append(s.triggers, trigger.Expression)
		}
	}
	if in, ok := s.Base.(StageInput); ok {
		s.Total += withAction(in.Stage.triggers)
	}
}

// TotalOn returns the number of steps that have an action, including the triggers of base, the
// configuration of the stage's base image.
func (s *Stage) TotalOn(base dockerspec.DockerOCIImage) int {
	return s.Total + withAction(base.Config.OnBuild)
}

// LastRun returns the number of the last step that runs a command, as TotalOn counts the steps,
// from 1; 0 if there is none.
func (s *Stage) LastRun(base dockerspec.DockerOCIImage) int {
	n, last := 0, 0
	count := func(word string) {
		if hasAction(word) {
			n++
		}
		if strings.EqualFold(word, "run") {
			last = n
		}
	}
	triggers := base.Config.OnBuild
	if in, ok := s.Base.(StageInput); ok {
		triggers = in.Stage.triggers
	}
	for _, t := range triggers {
		count(instructionOf(t))
	}
	for _, c := range s.commands {
		count(c.Name())
	}
	return last
}

// withAction returns the number of triggers whose steps have an action.
func withAction(triggers []string) int {
	n := 0
	for _, t := range triggers {
		if hasAction(instructionOf(t)) {
			n++
		}
	}
	return n
}

// instructionOf returns the name of a trigger's instruction.
func instructionOf(trigger string) string {
	for word := range strings.FieldsSeq(trigger) {
		return word
	}
	return ""
}

// hasAction reports whether the steps of an instruction have an action. The others only change the
// image's configuration.
func hasAction(instruction string) bool {
	switch strings.ToLower(instruction) {
	case "add", "copy", "run", "workdir":
		return true
	}
	return false
}

func (p *Plan) findTarget() (*Stage, error) {
	name := p.opts.Target
	if name == "" {
		return p.all[len(p.all)-1], nil
	}
	if s, ok := p.byName[strings.ToLower(name)]; ok {
		return s, nil
	}
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(p.all) {
		return p.all[i], nil
	}
	err := didYouMean(fmt.Errorf("target stage %q could not be found", name), name, p.stageNames())
	if _, numErr := strconv.Atoi(name); numErr == nil {
		return nil, fmt.Errorf("%w; stages have the numbers 0 to %d", err, len(p.all)-1)
	}
	if names := p.stageNames(); len(names) > 0 {
		err = fmt.Errorf("%w; stages: %s", err, strings.Join(names, ", "))
	}
	return nil, err
}

func (p *Plan) stageNames() []string {
	var names []string
	for _, s := range p.all {
		if s.Name != "" && !slices.Contains(names, s.Name) {
			names = append(names, s.Name)
		}
	}
	return names
}

// Similar returns a name that is similar to the name of an image that does not exist: the name of a
// stage or of a common base image. It returns "" if there is none.
func (p *Plan) Similar(name string) string {
	options := p.stageNames()
	for _, s := range []string{"alpine", "busybox", "centos", "debian", "golang",
		"ubuntu", "fedora"} {
		options = append(options, s, s+":latest")
	}
	return suggest.Closest(name, options)
}

// findNeeds follows --from and --mount of all instructions, and of the triggers of a base in
// this file.
func (s *Stage) findNeeds() error {
	if in, ok := s.Base.(StageInput); ok {
		s.need(in)
		for _, t := range in.Stage.triggers {
			c, err := parseTrigger(t, s.Range)
			if err != nil || s.needSources(c) != nil {
				break // walking the steps reports the mistake, if the stage is built
			}
		}
	}
	for _, c := range s.commands {
		err := s.needSources(c)
		if _, bad := errors.AsType[*nameError](err); bad {
			s.plan.noteBadName(rangeOf(c.Location()), err)
		} else if err != nil {
			return s.plan.file.fail(rangeOf(c.Location()), err)
		}
	}
	return nil
}

func (s *Stage) needSources(c instructions.Command) error {
	switch c := c.(type) {
	case *instructions.CopyCommand:
		if c.From == "" {
			return nil
		}
		in, err := s.plan.copySource(c.From)
		if err != nil {
			return err
		}
		s.need(in)
	case *instructions.RunCommand:
		for _, m := range instructions.GetMounts(c) {
			if m.From == "" {
				continue
			}
			in, err := s.plan.source(m.From)
			if err != nil {
				return err
			}
			s.need(in)
		}
	}
	return nil
}

func (s *Stage) need(in Input) {
	if in, ok := in.(StageInput); ok && !slices.Contains(s.Needs, in.Stage) {
		s.Needs = append(s.Needs, in.Stage)
	}
}

// copySource returns the input that the --from of a COPY names. Unlike in a mount, it can be the
// index of a stage.
func (p *Plan) copySource(from string) (Input, error) {
	word, err := p.expander(-1).word(from, env{})
	if err != nil {
		return nil, err
	}
	if word.Result != from {
		return nil, errors.New("variable expansion is not supported for --from, define a new " +
			"stage with FROM using ARG from global scope as a workaround")
	}
	if i, err := strconv.Atoi(from); err == nil {
		if i < 0 || i >= len(p.all) {
			return nil, fmt.Errorf("invalid stage index %d", i)
		}
		return StageInput{p.all[i]}, nil
	}
	return p.source(from)
}

// source returns the input of a name: a stage, scratch, a context or an image.
func (p *Plan) source(from string) (Input, error) {
	if s, ok := p.byName[strings.ToLower(from)]; ok {
		return StageInput{s}, nil
	}
	if from == "scratch" {
		return Scratch{}, nil
	}
	return p.imageInput(from, p.platform)
}

// checkCycles returns an error for stages that depend on themselves, directly or through others.
// FROM can only name earlier stages, so each cycle has a --from.
func (p *Plan) checkCycles() error {
	const entered, left = 1, 2
	state := map[*Stage]int{}
	var visit func(s *Stage) error
	visit = func(s *Stage) error {
		state[s] = entered
		for _, n := range s.Needs {
			if state[n] == entered {
				return p.file.fail(s.useOf(n),
					fmt.Errorf("circular dependency detected on stage: %s", n.Label()))
			}
			if state[n] == left {
				continue
			}
			if err := visit(n); err != nil {
				return err
			}
		}
		state[s] = left
		return nil
	}
	for _, s := range p.all {
		if state[s] == 0 {
			if err := visit(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// useOf returns the position at which the stage uses another stage.
func (s *Stage) useOf(other *Stage) Range {
	for _, c := range s.commands {
		probe := &Stage{plan: s.plan}
		if err := probe.needSources(c); err == nil && slices.Contains(probe.Needs, other) {
			return rangeOf(c.Location())
		}
	}
	return s.Range
}

// Label returns the stage's name for messages: its name, or "stage-" and its index.
func (s *Stage) Label() string {
	if s.Name != "" {
		return s.Name
	}
	return "stage-" + strconv.Itoa(s.Index)
}

// prune keeps the stages that the target needs, in the order of the file. Each stage comes after
// its dependencies there: no stage may use a later one (mayUse), unless a context replaces the
// later one.
func (p *Plan) prune() {
	keep := map[*Stage]bool{}
	var visit func(s *Stage)
	visit = func(s *Stage) {
		if !keep[s] {
			keep[s] = true
			for _, n := range s.Needs {
				visit(n)
			}
		}
	}
	visit(p.Target)
	for _, replaced := range []bool{true, false} {
		for _, s := range p.all {
			if s.replaced != replaced || !keep[s] && !p.opts.AllStages {
				continue
			}
			p.Stages = append(p.Stages, s)
		}
	}
}

// mayUse returns an error if the stage uses a later stage. It is called when steps are walked, so
// that mistakes in stages that are not built are ignored.
func (s *Stage) mayUse(other *Stage, as string) error {
	if other.replaced || other.Index < s.Index {
		return nil
	}
	return fmt.Errorf("cannot copy from stage %q, it needs to be defined before current stage %q",
		as, s.Label())
}

// Resolved passes the platform of an image from which a step takes files to the rules. It need not
// be called for bases of stages.
func (p *Plan) Resolved(in ImageInput, at Range, got ocispec.Platform) {
	loc := []bkparser.Range{{Start: bkparser.Position{Line: at.Start},
		End: bkparser.Position{Line: at.End}}}
	p.lint.scope(nil).basePlatform(in.Ref, in.Platform, got, loc)
}

// Warnings returns the findings of the lint rules so far, each once, ordered by line. Rules for
// expanded instructions run while steps are walked. Warnings may be called at any time.
func (p *Plan) Warnings() []Warning { return p.lint.warnings() }

// Check walks all stages without running anything, so that mistakes in any instruction and the
// findings of all rules are known before the first command runs. base returns the configuration of
// a stage's base; it is not called for Scratch and StageInput. The error is an *Error for the first
// mistake. The walk of a stage ends at a mistake, and stages based on that stage are not walked.
// The other stages are still walked, for their findings. visit, if it is not nil, is called with
// each step.
func (p *Plan) Check(base func(*Stage) (dockerspec.DockerOCIImage, error),
	visit func(*Stage, Step)) error {
	if visit == nil {
		visit = func(*Stage, Step) {}
	}
	done, err := p.walk(base, visit)
	p.result = done[p.Target]
	return err
}

// Result returns the configuration of the image of the target, without its layers and history.
// Check must have returned nil.
func (p *Plan) Result() dockerspec.DockerOCIImage { return p.Finish(p.result) }

// Violations returns a *LintError if a rule has a finding so far and the file or LintOptions make
// findings an error.
func (p *Plan) Violations() error { return p.lint.err() }

// walk walks all steps in order and returns the configuration of each stage without a mistake.
// The error is the first mistake.
func (p *Plan) walk(base func(*Stage) (dockerspec.DockerOCIImage, error),
	visit func(*Stage, Step)) (map[*Stage]dockerspec.DockerOCIImage, error) {
	done := map[*Stage]dockerspec.DockerOCIImage{}
	var first error
	for _, s := range p.Stages {
		if in, ok := s.Base.(StageInput); ok {
			if _, ok := done[in.Stage]; !ok {
				continue // the base has a mistake
			}
		}
		img, err := p.walkStage(s, done, base, visit)
		if err != nil && first == nil {
			first = err
		}
		if err == nil {
			done[s] = img
		}
	}
	return done, first
}

// walkStage walks the steps of one stage.
func (p *Plan) walkStage(s *Stage, done map[*Stage]dockerspec.DockerOCIImage,
	base func(*Stage) (dockerspec.DockerOCIImage, error),
	visit func(*Stage, Step)) (dockerspec.DockerOCIImage, error) {
	var img dockerspec.DockerOCIImage
	switch in := s.Base.(type) {
	case StageInput:
		img = done[in.Stage]
	case Scratch:
	default:
		var err error
		if img, err = base(s); err != nil {
			return img, p.file.fail(s.Range, err)
		}
	}
	result := s.Start(img)
	for step, err := range s.Steps(img) {
		if err != nil {
			return result, err
		}
		visit(s, step)
		result = step.Image
	}
	return result, nil
}

// Finish completes the target's configuration: it adds the labels of the options and the
// requested platform.
func (p *Plan) Finish(img dockerspec.DockerOCIImage) dockerspec.DockerOCIImage {
	if len(p.opts.Labels) > 0 {
		labels := maps.Clone(img.Config.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		for _, l := range p.opts.Labels {
			k, v, _ := strings.Cut(l, "=")
			labels[k] = v
		}
		img.Config.Labels = labels
	}
	if !isZeroPlatform(p.opts.Platform) {
		t := p.platform
		base := NormalizePlatform(img.Platform)
		same := t.OS == base.OS && t.Architecture == base.Architecture
		img.OS, img.Architecture = t.OS, t.Architecture
		if t.Variant != "" || !same {
			img.Variant = t.Variant
		}
		if t.OSVersion != "" || !same {
			img.OSVersion = t.OSVersion
		}
		if t.OSFeatures != nil {
			img.OSFeatures = slices.Clone(t.OSFeatures)
		}
	}
	img.Platform = NormalizePlatform(img.Platform)
	return img
}

// proxyEnv returns the variables for proxy arguments, in upper and lower case, since programs
// use either.
func proxyEnv(args map[string]string) []string {
	values := map[string]string{}
	for _, k := range sortedKeys(args) {
		values[strings.ToUpper(k)] = args[k]
	}
	var out []string
	for _, k := range []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"} {
		if v := values[k]; v != "" {
			out = append(out, k+"="+v, strings.ToLower(k)+"="+v)
		}
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
