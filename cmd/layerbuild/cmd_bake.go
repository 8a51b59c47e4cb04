package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/bake"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/spf13/pflag"
)

// bakeFlags are the flags of the bake verb, as given.
type bakeFlags struct {
	state    stateFlags
	registry registryFlags
	others   bakeOthers
	set      *pflag.FlagSet // the flags of the command line

	files, sets, vars, allow, specDirs         []string
	list, metadataFile, jobs, sbom, provenance given
	noCache, pull                              givenBool
	print, push, load, check                   bool
	progress                                   string
	call                                       call

	policy state.Policy
	remote bakeRemote
}

func bakeVerb() verb {
	return verb{
		name: "bake", args: "[URL] [TARGET…]",
		summary: "build several images from a file that describes them",
		notes: `The files are those of docker buildx bake: docker-bake.hcl, docker-bake.json and compose files. TARGET is a target or
a group of them; without one it is the group or target default. All targets are one build: steps that they have in
common run once. With a URL the files and their contexts are those of a git repository or an archive, or the URL is that
of a file. docs/BAKE.md describes the files. The flags --builder and --debug of buildx have no effect, and --policy
is refused.`,
		examples: []example{
			{"layerbuild bake", "build the target or group default"},
			{"layerbuild bake app test", "build two targets"},
			{"layerbuild bake --set '*.platform=linux/arm64' --push",
				"build all for a platform, and push"},
			{"layerbuild bake --print", "print the targets as JSON and build nothing"},
			{"layerbuild bake -f compose.yaml -f docker-bake.hcl web", "read two files"},
			{"layerbuild bake --var TAG=v2 app", "set a variable of the files"},
			{"layerbuild bake https://github.com/user/repo.git#v1 app",
				"build a target of a repository"},
		},
		common: []string{"file", "set", "var", "no-cache", "pull", "allow", "push", "load", "print",
			"list", "check", "metadata-file", "progress"},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			f := bakeFlags{set: fs}
			f.define(fs)
			return f.prepare
		},
		withOthers: func(fs *pflag.FlagSet) prepareFunc {
			f := bakeFlags{set: fs}
			f.define(fs)
			f.others.define(fs)
			for _, kind := range []string{"targets", "variables"} {
				alias := fs.VarPF(&listAlias{&f.list, kind}, "list-"+kind, "",
					"the same as --list "+kind)
				alias.Hidden, alias.NoOptDefVal = true, "true"
			}
			return f.prepare
		},
	}
}

// listAlias is a flag that earlier versions of buildx had in place of --list KIND, and that it
// still takes.
type listAlias struct {
	list *given
	kind string
}

func (a *listAlias) Set(s string) error {
	is, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("true or false is expected")
	}
	if is {
		*a.list = given(a.kind)
	}
	return nil
}

func (a *listAlias) String() string { return "" }
func (a *listAlias) Type() string   { return "bool" }

func (f *bakeFlags) define(fs *pflag.FlagSet) {
	f.state.define(fs)
	group(fs, "Inputs", f.defineInputs)
	group(fs, "Outputs", f.defineOutputs)
	group(fs, "Registries", f.registry.define)
	group(fs, "Display", f.defineDisplay)
}

func (f *bakeFlags) defineInputs(fs *pflag.FlagSet) {
	fs.VarP((*list)(&f.files), "file", "f", "`FILE` file with targets\n"+
		"- is standard input. Without the flag it is $BUILDX_BAKE_FILE, or else all that exist of "+
		strings.Join(bake.DefaultFiles[:], " ")+".")
	fs.Var((*list)(&f.sets), "set", "`TARGET.KEY[+]=VALUE` change targets\n"+
		"TARGET may be a pattern. KEY is the name of an attribute, and args.NAME, labels.NAME, "+
		"contexts.NAME and the like for one value of it. With += the value is added to a list.")
	fs.Var((*list)(&f.vars), "var", "`NAME=VALUE` value of a variable\n"+
		"It has precedence over that of the environment.")
	fs.Var(&f.noCache, "no-cache", "run every step again")
	fs.Lookup("no-cache").NoOptDefVal = "true"
	fs.Var(&f.pull, "pull", "look up base images in registries first")
	fs.Lookup("pull").NoOptDefVal = "true"
	fs.Var((*list)(&f.allow), "allow", "`PERMISSION` permit what targets ask for\n"+
		"The permissions are network.host, security.insecure, device[=NAME], ssh, fs.read=PATH, "+
		"fs.write=PATH and fs=PATH. Files outside the working directory are only read and "+
		"written if one of the last three permits it.")
	defineSpecDirs(fs, &f.specDirs)
	fs.VarP(&f.jobs, "jobs", "j", "`N` RUN commands at the same time\n"+
		"Without the flag, and with 0, all that do not depend on others run at the same time.")
}

func (f *bakeFlags) defineOutputs(fs *pflag.FlagSet) {
	fs.BoolVar(&f.push, "push", false, "push the images, as --set '*.push=true' does")
	fs.BoolVar(&f.load, "load", false, "load the images into docker or podman")
	fs.Var(&f.sbom, "sbom", "`SPEC` the same as --set '*.attest=type=sbom,SPEC'")
	fs.Var(&f.provenance, "provenance",
		"`SPEC` the same as --set '*.attest=type=provenance,SPEC'")
	fs.Var(&f.metadataFile, "metadata-file",
		"`FILE` write digests and names to a file, as JSON\n"+
			"It has an object with one object for each target.")
	fs.BoolVar(&f.print, "print", false, "print the targets as JSON and build nothing")
	fs.Var(&f.list, "list", "`targets|variables` list what the files define, and build nothing\n"+
		"With the suffix ,format=json they are printed as JSON.")
	fs.BoolVar(&f.check, "check", false, "check the Dockerfiles and build nothing")
	f.call.action = "build"
	fs.Var(&f.call, "call", "`build|check|outline|targets` what to do with the targets\n"+
		"The values are those of build.")
}

func (f *bakeFlags) defineDisplay(fs *pflag.FlagSet) {
	fs.Var(newProgress(&f.progress), "progress", progressUsage)
}

// bakeOthers are flags of buildx that have no effect, or are refused.
type bakeOthers struct{ values []otherValue }

// bakeOtherFlags are the rows of otherFlags that buildx bake has, too.
var bakeOtherFlags = [...]string{"builder", "debug", "policy"}

func (o *bakeOthers) define(fs *pflag.FlagSet) {
	o.values = make([]otherValue, len(bakeOtherFlags))
	for i, name := range bakeOtherFlags {
		n := slices.IndexFunc(otherFlags[:], func(row otherFlag) bool { return row.name == name })
		row := &otherFlags[n]
		o.values[i].row = row
		f := fs.VarPF(&o.values[i], row.name, row.short, row.why)
		if f.Hidden = true; row.value == "" {
			f.NoOptDefVal = "true"
		}
	}
}

// prepare checks the command line.
func (f *bakeFlags) prepare(e *env, args []string) (runFunc, error) {
	args, err := f.remote.parse(args)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.state.resolve(e), resolveProgress(e, &f.progress),
		f.state.access(&f.registry), checkFile("metadata-file", string(f.metadataFile)),
		f.checkValues()); err != nil {
		return nil, err
	}
	kind, asJSON, err := parseList(string(f.list))
	switch {
	case err != nil:
		return nil, badValue("list", string(f.list), err)
	case f.call.format == "sarif":
		return nil, badValue("call", f.call.action+",format=sarif", errors.New("bake does not "+
			"have this format; check each Dockerfile with layerbuild --check --format sarif"))
	case f.call.action == describeCall:
		return nil, badValue("call", describeCall, errNoDescribe)
	case f.print && kind != "":
		return nil, errors.New("--print and --list: give one of them")
	case kind != "":
		e.noState = true
		return func(ctx context.Context) error {
			warnNoEffect(e, f.progress, f.withoutEffect())
			return f.with(ctx, e, func() error { return f.printList(ctx, e, kind, asJSON) })
		}, nil
	case f.print:
		e.noState = true
		return func(ctx context.Context) error {
			warnNoEffect(e, f.progress, f.withoutEffect())
			return f.with(ctx, e, func() error { return f.printTargets(ctx, e, args) })
		}, nil
	}
	if f.policy, err = storagePolicy(e, ""); err != nil {
		return nil, err
	}
	if f.check && f.call.action == "build" {
		f.call.action = "check"
	}
	return func(ctx context.Context) error {
		warnNoEffect(e, f.progress, f.withoutEffect())
		return f.with(ctx, e, func() error { return f.run(ctx, e, args) })
	}, nil
}

// with calls do while the files of the remote place are there.
func (f *bakeFlags) with(ctx context.Context, e *env, do func() error) error {
	err := f.remote.open(ctx, e)
	if err == nil {
		err = do()
	}
	return errors.Join(err, f.remote.close())
}

// checkValues checks the values of flags that are only used later.
func (f *bakeFlags) checkValues() error {
	for _, name := range f.files {
		if f.remote.address != "" && name != "" {
			continue // a file of the remote place, or not known yet
		}
		if err := checkBakeFile(name); err != nil {
			return badValue("file", name, err)
		}
	}
	for _, s := range f.sets {
		name, _, _ := strings.Cut(s, "=")
		if target, key, _ := strings.Cut(name, "."); target == "" || key == "" {
			return badValue("set", s, errors.New("TARGET.ATTRIBUTE=VALUE is expected"))
		}
	}
	for _, v := range f.vars {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return badValue("var", v, errors.New("NAME=VALUE is expected"))
		}
	}
	if _, err := parseGrants(f.allow); err != nil {
		return err
	}
	if err := checkSpecDirs(f.specDirs); err != nil {
		return err
	}
	switch f.jobs {
	case "", "fail-fast":
		f.jobs = "0"
	case "defer-output", "defer-error":
		return badValue("jobs", string(f.jobs),
			errors.New("the first error ends all targets; N or fail-fast is expected"))
	}
	f.jobs = given(strings.TrimPrefix(strings.TrimPrefix(string(f.jobs), "fail-fast,"),
		"parallel="))
	if n, err := strconv.Atoi(string(f.jobs)); err != nil || n < 0 {
		return badValue("jobs", string(f.jobs), errors.New("a number is expected, 0 or more"))
	}
	return nil
}

// checkBakeFile returns an error if a file of --file cannot be read.
func checkBakeFile(name string) error {
	if name == "" {
		return errEmptyValue
	}
	if name == "-" || isAddress(name) {
		return nil
	}
	info, err := os.Stat(name)
	if err == nil && info.IsDir() {
		err = errors.New("a file is expected, not a directory")
	}
	return plainError(err)
}

// isAddress reports whether an argument is the address of a repository or a file, which a target's
// name cannot be.
func isAddress(s string) bool {
	return strings.Contains(s, "://") || strings.HasPrefix(s, "git@") ||
		strings.HasPrefix(s, "github.com/")
}

// run builds the targets.
func (f *bakeFlags) run(ctx context.Context, e *env, args []string) error {
	def, err := f.resolve(ctx, e, args)
	if err != nil {
		return err
	}
	targets, err := f.targets(e, def)
	if err != nil {
		return err
	}
	mode := f.progress
	if f.call.action != "build" {
		mode = "quiet"
	}
	runner, err := resolveGitHub(e, githubList{})
	if err != nil {
		return err
	}
	display, err := ui.New(mode, e.stderr, ui.Options{Getenv: e.getenv,
		GitHub: toRunner(e, e.stderr), Groups: runner.groups && toRunner(e, e.stderr)})
	if err != nil {
		return err
	}
	state, images, err := f.state.open(ctx)
	if err != nil {
		return errors.Join(err, display.Close())
	}
	defer state.Close()
	defer (&buildFlags{policy: f.policy}).collect(ctx, e, state, time.Now())
	b := &baked{display: display, mode: mode, state: state, images: images}
	list := make([]imagebuild.Options, len(targets))
	for i, t := range targets {
		t.flags.runner = runner
		t.options.Sink = t.warnings.keep(display.Sink())
		t.options.Export = f.state.exportEnv(e, state, images)
		t.options.Upload = uploader{images, state.Store}
		images.openCaches(&t.options, state)
		for _, message := range t.flags.withoutEffect(&t.options) {
			t.options.Sink(event.Warning{Message: "target " + t.Name + ": " + message,
				Time: time.Now()})
		}
		list[i] = t.options
	}
	var results []*imagebuild.Result
	images.warnings.sendTo(display.Sink(), func() {
		results, err = imagebuild.BuildAll(ctx, state, images.resolver, list)
	})
	if cerr := display.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("show the progress: %w", cerr)
	}
	for i, t := range targets {
		t.result = results[i]
	}
	return f.finish(ctx, e, b, def, targets, err)
}

// baked is a build of targets that has ended.
type baked struct {
	display *ui.UI
	mode    string
	state   *state.State
	images  *images
}

// targetWarnings are the warnings of the build of a target.
type targetWarnings struct {
	mu   sync.Mutex
	list []event.Warning
}

// keep returns a sink that keeps the warnings and passes all events on.
func (w *targetWarnings) keep(to event.Sink) event.Sink {
	return func(e event.Event) {
		if warning, ok := e.(event.Warning); ok {
			w.mu.Lock()
			w.list = append(w.list, warning)
			w.mu.Unlock()
		}
		to(e)
	}
}

// finish prints what the build has found, and writes the additional files.
func (f *bakeFlags) finish(ctx context.Context, e *env, b *baked, def *bake.Definition,
	targets []*bakeTarget, err error) error {
	display, mode := b.display, b.mode
	print := ui.PrintOptions{Color: ui.Color(e.stderr, e.getenv),
		Colors: e.getenv("BUILDKIT_COLORS")}
	if !ui.Silent(mode) && !ui.ForPrograms(mode) {
		// an error means that standard error is closed
		_ = ui.PrintWarnings(e.text(e.stderr), display.Warnings(), print)
	}
	f.annotate(e, b, targets)
	f.summarize(ctx, e, b, targets, err)
	if err != nil {
		return f.explain(e, b, targets, err, print)
	}
	if err := f.write(e, display, targets); err != nil {
		return err
	}
	return f.report(e, b, def, targets, print)
}

// annotate writes an annotation for each warning about a line of a Dockerfile, once for all targets
// that have the Dockerfile.
func (f *bakeFlags) annotate(e *env, b *baked, targets []*bakeTarget) {
	if ui.Silent(b.mode) && f.call.action == "build" || ui.ForPrograms(b.mode) {
		return
	}
	type key struct {
		file, rule, message string
		line                int
	}
	seen := map[key]bool{}
	for _, t := range targets {
		if t.result == nil {
			continue
		}
		file := t.flags.dockerfilePath(e, &t.options, t.result)
		var list []event.Warning
		for _, w := range t.warnings.list {
			k := key{file, w.Rule, w.Message, w.Line}
			if w.File == "" {
				k.file = ""
			}
			if !seen[k] {
				seen[k] = true
				list = append(list, w)
			}
		}
		t.flags.runner.warnings(e, list, file)
	}
}

// summarize appends a summary of the build of all targets to that of the workflow's step.
func (f *bakeFlags) summarize(ctx context.Context, e *env, b *baked, targets []*bakeTarget,
	err error) {
	if len(targets) == 0 { // of an empty group
		return
	}
	runner := targets[0].flags.runner
	if !runner.summary || f.call.action != "build" {
		return
	}
	var names []string
	var waste strings.Builder
	for _, t := range targets {
		names = append(names, t.Name)
		if err == nil && t.result != nil && t.builds() {
			t.flags.analyze.dockerfile = t.flags.dockerfilePath(e, &t.options, t.result)
			_, text, _ := t.flags.analyses(ctx, e, t.finished(b)) // the text has the error
			waste.WriteString(text)
		}
	}
	runner.writeSummary(e, b.display, strings.Join(names, " "), err, waste.String())
}

// explain prints the error that ended the build, with the lines of the target's Dockerfile.
func (f *bakeFlags) explain(e *env, b *baked, targets []*bakeTarget, err error,
	print ui.PrintOptions) error {
	if len(targets) == 0 {
		return err
	}
	target := targets[0]
	if failed, ok := errors.AsType[*imagebuild.TargetError](err); ok {
		for _, t := range targets {
			if t.Name == failed.Name {
				target = t
			}
		}
	}
	return target.flags.explain(e, target.finished(b), err, print)
}

// finished returns the target after the build.
func (t *bakeTarget) finished(b *baked) *finished {
	return &finished{o: t.options, mode: b.mode, display: b.display, state: b.state,
		images: b.images, res: t.result}
}

// write writes the file of --metadata-file: an object with one object for each target, and the
// warnings of all, as in buildx.
func (f *bakeFlags) write(e *env, display *ui.UI, targets []*bakeTarget) error {
	if f.metadataFile == "" {
		return nil
	}
	all := map[string]any{}
	for _, t := range targets {
		m := t.result.Metadata
		m.Ref = newBuildRef()
		all[t.Name] = m
	}
	if warnings, err := warningsForMetadata(e, display); err != nil {
		return err
	} else if warnings != nil {
		all["buildx.build.warnings"] = warnings
	}
	data, err := indentJSON(all)
	if err == nil {
		err = atomicfile.WriteFile(string(f.metadataFile), data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("--metadata-file: %w", err)
	}
	return nil
}

// report prints the results of --check and --call, for each target whose attribute or the flag
// requests it.
func (f *bakeFlags) report(e *env, b *baked, def *bake.Definition, targets []*bakeTarget,
	print ui.PrintOptions) error {
	if f.call.format == "json" {
		return reportBakeJSON(e, def, targets, f.call)
	}
	code, first, out := exitOK, true, e.text(e.stdout)
	for _, t := range targets {
		if t.builds() || t.silent {
			continue
		}
		if !first {
			fmt.Fprintln(out)
		}
		first = false
		fmt.Fprintf(out, "%s\n", t.Name)
		if t.Description != "" {
			fmt.Fprintf(out, "%s\n", ui.Visible(t.Description))
		}
		fmt.Fprintln(out)
		err := t.report(e, b, print)
		if exit, ok := errors.AsType[exitError](err); ok {
			code = exit.code
		} else if err != nil {
			return err
		}
	}
	if code != exitOK {
		return exitError{code}
	}
	return nil
}

// report prints the result of --check or --call of a target.
func (t *bakeTarget) report(e *env, b *baked, print ui.PrintOptions) error {
	switch {
	case t.options.ListTargets:
		return t.flags.reportTargets(e, t.result)
	case t.options.Outline:
		return t.flags.reportOutline(e, t.result)
	}
	quiet := t.finished(b)
	quiet.mode = "quiet"
	return t.flags.reportCheck(e, quiet, nil, print)
}

// reportBakeJSON prints the results of --call …,format=json in the form of buildx: for each target
// its definition and the result.
func reportBakeJSON(e *env, def *bake.Definition, targets []*bakeTarget, c call) error {
	out := struct {
		Group  map[string]*bake.Group    `json:"group,omitempty"`
		Target map[string]map[string]any `json:"target"`
	}{def.Groups, map[string]map[string]any{}}
	findings := false
	for _, t := range targets {
		entry := map[string]any{"build": t.Target}
		switch {
		case t.options.ListTargets:
			entry["targets"] = newTargetList(t.result)
		case t.options.Outline:
			entry["outline"] = newOutline(t.result)
		case t.options.Check && !t.silent:
			entry["check"] = newCheckResult(t.result, nil)
			findings = findings || len(t.result.Warnings) > 0
		}
		out.Target[t.Name] = entry
	}
	if err := printJSON(e.json(e.stdout), out); err != nil {
		return err
	}
	if findings && !c.ignoreStatus {
		return exitError{exitFailed}
	}
	return nil
}

// targetNames returns the names of the targets in their order.
func targetNames(def *bake.Definition) []string {
	return slices.Sorted(maps.Keys(def.Targets))
}
