package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/hostfile"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/internal/units"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/spf13/pflag"
)

// buildFlags are the flags of the build verb, as given.
type buildFlags struct {
	state stateFlags

	file, target, network, shmSize, progress, format      string
	iidFile, metadataFile, cgroupParent, provenance, sbom string
	tags, buildArgs, labels, annotations, contexts        []string
	outputs, platforms, secrets, ssh, addHosts, ulimits   []string
	allow, noCacheFilter, attests, cacheFrom, cacheTo     []string
	noCache, sync, pull, push, load, quiet, check, debug  bool
	lintExperimental                                      []string
	call                                                  call

	analyze analyzeFlags
	keep    string // --keep-storage
	policy  state.Policy
}

func buildVerb() verb {
	return verb{
		name: "build", args: "CONTEXT",
		summary: "build an image from a Dockerfile",
		notes: `CONTEXT is a directory, an archive, the URL of an archive or of a git repository, or - for an archive on standard
input.

The flags --attest, --provenance, --sbom, --cgroup-parent and --debug of docker and buildx are accepted and have no effect.`,
		examples: []example{
			{"layerbuild -t app .", "build ./Dockerfile and name the image app"},
			{"layerbuild build --target test --build-arg VERSION=3 .",
				"build a stage, with an argument"},
			{"layerbuild build -t app -o type=oci,dest=app.tar .",
				"write the image as an OCI archive too"},
			{"layerbuild build -o out .", "write the files of the image to a directory"},
			{"layerbuild build -t registry.example.com/app:v1 --push .", "build and push"},
			{"layerbuild build --platform linux/amd64,linux/arm64 -t app .",
				"build an image for two platforms"},
			{"layerbuild build --secret id=token,src=token.txt .",
				"give a secret to RUN --mount=type=secret,id=token"},
			{"layerbuild build --check .", "check the Dockerfile and build nothing"},
		},
		common: []string{"file", "target", "build-arg", "platform", "secret", "tag", "output",
			"push", "load", "no-cache", "cache-from", "cache-to", "check", "analyze", "progress"},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f buildFlags
			f.define(fs)
			return f.prepare
		},
	}
}

func (f *buildFlags) define(fs *pflag.FlagSet) {
	f.state.define(fs)
	group(fs, "Inputs", f.defineInputs)
	group(fs, "Outputs", f.defineOutputs)
	group(fs, "Cache", f.defineCache)
	group(fs, "Isolation of RUN", f.defineIsolation)
	group(fs, "Checks", f.defineChecks)
	group(fs, "Display", f.defineDisplay)
	f.defineWithoutEffect(fs)
}

func (f *buildFlags) defineInputs(fs *pflag.FlagSet) {
	fs.StringVarP(&f.file, "file", "f", "", "`FILE` Dockerfile; - reads standard input\n"+
		"Without the flag it is the file Dockerfile of the context.")
	fs.StringVar(&f.target, "target", "", "`STAGE` stage to build (default: the last)")
	fs.Var((*list)(&f.buildArgs), "build-arg", "`NAME=VALUE` value of an ARG\n"+
		"NAME alone takes its value from the environment.")
	fs.Var((*list)(&f.contexts), "build-context", "`NAME=WHERE` additional build context\n"+
		"WHERE is a directory, an archive, a URL, docker-image://NAME or oci-layout://DIR[:TAG].")
	fs.StringSliceVar(&f.platforms, "platform", nil, "`OS/ARCH` platforms to build for\n"+
		"For several platforms, the build makes an image index. Without the flag it is "+
		"$DOCKER_DEFAULT_PLATFORM, or else the platform of this machine.")
	fs.BoolVar(&f.pull, "pull", false, "look up base images in registries first")
	fs.Var((*list)(&f.secrets), "secret",
		"`id=ID[,src=FILE|,env=VAR]` secret for RUN --mount=type=secret\n"+
			"Without src and env, ID names an environment variable, or else a file.")
	fs.Var((*list)(&f.ssh), "ssh", "`default|ID[=SOCKET]` SSH agent for RUN --mount=type=ssh\n"+
		"Without SOCKET it is the agent of $SSH_AUTH_SOCK.")
}

func (f *buildFlags) defineOutputs(fs *pflag.FlagSet) {
	fs.VarP((*list)(&f.tags), "tag", "t", "`NAME[:TAG]` name of the image")
	fs.VarP((*list)(&f.outputs), "output", "o", "`SPEC` where the image goes\n"+
		"SPEC is type=TYPE,dest=PATH,… with the type oci, docker, local, tar, image or registry. "+
		"It may also be a directory for the files of the image, or - for a tar archive of them "+
		"on standard output.")
	fs.BoolVar(&f.push, "push", false, "push the image, as --output type=registry does")
	fs.BoolVar(&f.load, "load", false, "load the image into docker or podman\n"+
		"--output type=docker does the same.")
	fs.Var((*list)(&f.labels), "label", "`KEY=VALUE` label of the image")
	fs.Var((*list)(&f.annotations), "annotation", "`KEY=VALUE` annotation of the manifest\n"+
		"KEY may begin with index:, manifest-descriptor: or index-descriptor: to annotate that "+
		"object instead.")
	fs.StringVar(&f.iidFile, "iidfile", "", "`FILE` write the image ID to a file")
	fs.StringVar(&f.metadataFile, "metadata-file", "",
		"`FILE` write digests and names to a file, as JSON")
}

func (f *buildFlags) defineCache(fs *pflag.FlagSet) {
	fs.BoolVar(&f.noCache, "no-cache", false, "run every step again")
	fs.StringSliceVar(&f.noCacheFilter, "no-cache-filter", nil,
		"`STAGE` run the steps of these stages again")
	fs.Var((*list)(&f.cacheFrom), "cache-from", "`PLACE` read results of steps from PLACE\n"+
		"PLACE is an image name, type=registry,ref=NAME or type=local,src=DIR.")
	fs.Var((*list)(&f.cacheTo), "cache-to", "`PLACE` write results of steps to PLACE\n"+
		"PLACE is type=inline, type=registry,ref=NAME or type=local,dest=DIR.")
	fs.BoolVar(&f.sync, "sync", false, "write the cache to disk before the build ends\n"+
		"With this flag the cache survives a crash, and can be moved to another machine.")
	fs.StringVar(&f.keep, "keep-storage", "",
		"`SIZE` limit of the build cache, such as 10g (GiB) or off\n"+
			"A build that has run a step ends by removing the least recently used part of the "+
			"build cache until the rest fits SIZE. Without the flag SIZE is that of "+
			"$LAYERBUILD_KEEP_STORAGE, of the line keep-storage = SIZE in "+
			"$XDG_CONFIG_HOME/layerbuild/config (~/.config/layerbuild/config) or "+
			"/etc/layerbuild/config, or else the smaller of 20 GB and a tenth of the file "+
			"system. Images with a name, and what running processes use, are never removed.")
}

func (f *buildFlags) defineIsolation(fs *pflag.FlagSet) {
	fs.Var(newChoice(&f.network, "host", "host", "none", "default"), "network", "network of RUN\n"+
		"The value default means the same as host.")
	fs.Var((*list)(&f.addHosts), "add-host", "`HOST:IP` entry in /etc/hosts")
	fs.StringVar(&f.shmSize, "shm-size", "", "`SIZE` size of /dev/shm, such as 64m (MiB)")
	fs.Var((*list)(&f.ulimits), "ulimit", "`NAME=SOFT[:HARD]` resource limit\n"+
		"For example, --ulimit nofile=1024:2048 limits the number of open files. The value -1 "+
		"means no limit.")
	fs.StringSliceVar(&f.allow, "allow", nil,
		"`network.host|security.insecure` permit RUN --network=host or --security=insecure")
}

func (f *buildFlags) defineChecks(fs *pflag.FlagSet) {
	fs.BoolVar(&f.check, "check", false, "check the Dockerfile and build nothing\n"+
		"All stages are checked, or those that --target needs. The exit status is 1 if there are "+
		"findings.")
	f.call.action = "build"
	fs.Var(&f.call, "call", "`build|check|targets` build, check, or list the stages\n"+
		"check is the same as --check; targets lists the stages. With the suffix ,format=json "+
		"they print JSON.")
	fs.StringSliceVar(&f.lintExperimental, "lint", nil,
		"`RULE` also run these experimental lint rules, or all")
	fs.Var(newChoice(&f.analyze.format, "", reportFormats...), "analyze",
		"report wasted bytes after the build\n"+
			"The report lists how many bytes each instruction wastes. Without a value it is text.")
	fs.Lookup("analyze").NoOptDefVal = "text"
	f.analyze.defineGate(fs)
}

func (f *buildFlags) defineDisplay(fs *pflag.FlagSet) {
	fs.Var(newProgress(&f.progress), "progress", progressUsage)
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print only the image ID")
	fs.Var(newChoice(&f.format, "text", "text", "json"), "format", "format of --check and --call")
}

// defineWithoutEffect defines flags of docker and buildx that scripts use and that have no effect.
func (f *buildFlags) defineWithoutEffect(fs *pflag.FlagSet) {
	fs.Var((*list)(&f.attests), "attest", "")
	fs.StringVar(&f.provenance, "provenance", "", "")
	fs.StringVar(&f.sbom, "sbom", "", "")
	fs.StringVar(&f.cgroupParent, "cgroup-parent", "", "")
	fs.BoolVarP(&f.debug, "debug", "D", false, "")
	for _, name := range []string{"attest", "provenance", "sbom", "cgroup-parent", "debug"} {
		_ = fs.MarkHidden(name) // it was defined above
	}
}

// prepare checks the command line.
func (f *buildFlags) prepare(e *env, args []string) (runFunc, error) {
	if err := f.state.resolve(e); err != nil {
		return nil, err
	}
	o, err := f.options(e, args)
	if err != nil {
		return nil, err
	}
	if err := o.CheckOutputs(); err != nil {
		return nil, err
	}
	rules, err := f.analyze.forBuild(e, &o)
	if err != nil {
		return nil, err
	}
	if f.policy, err = storagePolicy(e, f.keep); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return f.run(ctx, e, o, rules) }, nil
}

// run runs the build.
func (f *buildFlags) run(ctx context.Context, e *env, o imagebuild.Options, rules gateRules) error {
	mode := f.progress
	if f.quiet {
		mode = "quiet"
	}
	if o.ListTargets {
		mode = "quiet"
	}
	display, err := ui.New(mode, e.stderr, ui.Options{Getenv: e.getenv})
	if err != nil {
		return err
	}
	o.Sink = display.Sink()
	state, images, err := f.state.open(ctx)
	if err != nil {
		return errors.Join(err, display.Close())
	}
	defer state.Close()
	defer f.collect(ctx, e, state, time.Now())
	o.Export = f.state.exportEnv(e, state, images)
	for _, message := range f.withoutEffect(&o) {
		o.Sink(event.Warning{Message: message, Time: time.Now()})
	}
	o.Upload = uploader{images, state.Store}
	var res *imagebuild.Result
	images.warnings.during(o.Sink, func() {
		res, err = imagebuild.Build(ctx, state, images.resolver, o)
	})
	if cerr := display.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("show the progress: %w", cerr)
	}
	print := ui.PrintOptions{Color: ui.Color(e.stderr, e.getenv)}
	if o.ListTargets && err == nil {
		return f.reportTargets(e, res)
	}
	if o.Check {
		return f.reportCheck(e, display, res, err, print)
	}
	if mode != "quiet" && mode != "rawjson" {
		// an error means that standard error is closed
		_ = ui.PrintWarnings(e.stderr, display.Warnings(), print)
	}
	if err != nil {
		return explain(e, display, mode, res, err, print)
	}
	if err := f.write(e, mode, res, o); err != nil || !o.Analyze {
		return err
	}
	return store.Retry(func() error {
		return f.analyze.result(ctx, e, state, images, res, o, rules)
	})
}

// collect removes old and unused parts of the build cache. An error does not fail the build.
func (f *buildFlags) collect(ctx context.Context, e *env, state *state.State, began time.Time) {
	if ctx.Err() != nil {
		return
	}
	if err := state.Collect(ctx, f.policy, began); err != nil {
		fmt.Fprintln(e.stderr, "layerbuild: warning:", err)
	}
}

// explain prints the error that ended a build.
func explain(e *env, display *ui.UI, mode string, res *imagebuild.Result, err error,
	print ui.PrintOptions) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	fail := ui.Failure{Err: err}
	var step *build.StepError
	var parse *parser.Error
	switch {
	case errors.As(err, &step):
		fail = ui.Failure{Step: step.Step, File: step.File, Source: res.Text,
			Start: step.Range.Start, End: step.Range.End, Err: step.Err}
		if id, ok := display.Failed(); ok {
			_, fail.Output = display.Output(id)
		}
	case errors.As(err, &parse):
		fail = ui.Failure{File: parse.File, Source: res.Text, Start: parse.Range.Start,
			End: parse.Range.End, Err: parse.Err}
	}
	_ = fail.Print(e.stderr, print)
	return exitError{exitFailed}
}

// write writes the additional files of a successful build, such as the metadata.
func (f *buildFlags) write(e *env, mode string, res *imagebuild.Result,
	o imagebuild.Options) error {
	id := res.Metadata.ID().String()
	if f.iidFile != "" {
		if err := atomicfile.WriteFile(f.iidFile, []byte(id), 0o644); err != nil {
			return fmt.Errorf("--iidfile: %w", err)
		}
	}
	if f.metadataFile != "" {
		data, err := res.Metadata.JSON()
		if err != nil {
			return err
		}
		if err := atomicfile.WriteFile(f.metadataFile, append(data, '\n'), 0o644); err != nil {
			return fmt.Errorf("--metadata-file: %w", err)
		}
	}
	toStdout := slices.ContainsFunc(o.Outputs, func(s export.Spec) bool { return s.Dest == "-" })
	if mode == "quiet" && id != "" && !toStdout {
		_, err := fmt.Fprintln(e.stdout, id)
		return err
	}
	return nil
}

// checkResult is the output of --check --format json. It has the fields of BuildKit's lint request,
// and fields for file and lines, which are easier to use than ranges.
type checkResult struct {
	Warnings []finding   `json:"warnings"`
	Error    *checkError `json:"buildError,omitempty"`
}

// finding is one warning of a check.
type finding struct {
	Rule        string   `json:"ruleName"`
	Description string   `json:"description"`
	URL         string   `json:"url,omitempty"`
	Detail      string   `json:"detail"`
	File        string   `json:"file"`
	Start       int      `json:"startLine"`
	End         int      `json:"endLine"`
	Location    location `json:"location"`
}

// checkError is the mistake that ended a check.
type checkError struct {
	Message  string   `json:"message"`
	File     string   `json:"file,omitempty"`
	Start    int      `json:"startLine,omitempty"`
	End      int      `json:"endLine,omitempty"`
	Location location `json:"location"`
}

type location struct {
	Ranges []lineRange `json:"ranges,omitempty"`
}

type lineRange struct {
	Start linePosition `json:"start"`
	End   linePosition `json:"end"`
}

type linePosition struct {
	Line int `json:"line"`
}

func locationOf(r parser.Range) location {
	if r.Start == 0 {
		return location{}
	}
	return location{[]lineRange{{linePosition{r.Start}, linePosition{max(r.Start, r.End)}}}}
}

// newCheckResult returns the findings of a check in their printed form.
func newCheckResult(res *imagebuild.Result, err error) checkResult {
	out := checkResult{Warnings: make([]finding, 0, len(res.Warnings))}
	for _, w := range res.Warnings {
		out.Warnings = append(out.Warnings, finding{
			Rule: w.Rule, Description: w.Description, URL: w.URL, Detail: w.Msg,
			File: res.Dockerfile, Start: w.Range.Start, End: w.Range.End,
			Location: locationOf(w.Range),
		})
	}
	if err == nil {
		return out
	}
	out.Error = &checkError{Message: err.Error()}
	var parse *parser.Error
	var step *build.StepError
	switch {
	case errors.As(err, &step):
		out.Error = &checkError{step.Err.Error(), step.File, step.Range.Start, step.Range.End,
			locationOf(step.Range)}
	case errors.As(err, &parse):
		out.Error = &checkError{parse.Err.Error(), parse.File, parse.Range.Start, parse.Range.End,
			locationOf(parse.Range)}
	}
	return out
}

// reportCheck prints the result of --check: the findings on standard output, and the error that
// ended the check, if there is one, on standard error.
func (f *buildFlags) reportCheck(e *env, display *ui.UI, res *imagebuild.Result, err error,
	print ui.PrintOptions) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if f.resultFormat() == "json" {
		if err := printJSON(e.stdout, newCheckResult(res, err)); err != nil {
			return err
		}
	} else if len(res.Warnings) > 0 || err == nil {
		if err := ui.PrintFindings(e.stdout, checked(res),
			func(string) []byte { return res.Text }, print); err != nil {
			return err
		}
	}
	if err != nil {
		return explain(e, display, "plain", res, err, print)
	}
	if len(res.Warnings) > 0 {
		return exitError{exitFailed}
	}
	return nil
}

// target is one line of --call targets --format json.
type target struct {
	Name        string `json:"name,omitempty"`
	Default     bool   `json:"default,omitempty"`
	Description string `json:"description,omitempty"`
	Base        string `json:"base"`
	Platform    string `json:"platform,omitempty"`
	Line        int    `json:"line"`
}

// reportTargets prints the stages that --target can name.
func (f *buildFlags) reportTargets(e *env, res *imagebuild.Result) error {
	if f.resultFormat() == "json" {
		list := make([]target, 0, len(res.Targets))
		for _, t := range res.Targets {
			list = append(list, target{t.Name, t.Default, t.Description, t.Base,
				t.Platform, t.Range.Start})
		}
		return printJSON(e.stdout, map[string]any{"targets": list})
	}
	tw := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "TARGET\tBASE\tDESCRIPTION")
	for i, t := range res.Targets {
		name := cmp.Or(t.Name, strconv.Itoa(i))
		if t.Default {
			name += " (default)"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", ui.Visible(name), ui.Visible(t.Base),
			ui.Visible(t.Description))
	}
	return tw.Flush()
}

// withoutEffect warns about flags that are accepted for compatibility with scripts and have no
// effect.
func (f *buildFlags) withoutEffect(o *imagebuild.Options) []string {
	var list []string
	if f.iidFile != "" && !o.WantsImage() && !o.Check {
		list = append(list,
			"--iidfile gets an empty ID: only files are exported, and no image is made")
	}
	on := func(value string) bool { return value != "" && value != "false" }
	for _, a := range f.attests {
		if !strings.Contains(a, "disabled=true") {
			list = append(list, fmt.Sprintf("--attest %s has no effect: no attestations are made",
				a))
		}
	}
	if on(f.provenance) {
		list = append(list, fmt.Sprintf("--provenance=%s has no effect: no attestations are made",
			f.provenance))
	}
	if on(f.sbom) {
		list = append(list, fmt.Sprintf(
			"--sbom=%s has no effect: no software bill of materials is made", f.sbom))
	}
	if f.resultFormat() != "text" && !o.Check && !o.ListTargets {
		list = append(list, fmt.Sprintf("--format %s has no effect without --check or --call",
			f.resultFormat()))
	}
	if f.cgroupParent != "" {
		list = append(list,
			"--cgroup-parent has no effect: commands run in the control group of layerbuild")
	}
	if f.debug {
		list = append(list, "--debug has no effect; see --progress plain and --progress rawjson")
	}
	return list
}

func checked(res *imagebuild.Result) []event.Warning {
	var list []event.Warning
	for _, w := range res.Warnings {
		list = append(list, event.Warning{Rule: w.Rule, Message: w.Msg, URL: w.URL,
			File: res.Dockerfile, Line: w.Range.Start})
	}
	return list
}

// checkLayers is the variable that makes a build check its layers.
const checkLayers = "LAYERBUILD_CHECK_LAYERS"

// options returns the build's options for the flags.
func (f *buildFlags) options(e *env, args []string) (imagebuild.Options, error) {
	var o imagebuild.Options
	if err := oneContext(args); err != nil {
		return o, err
	}
	o.Source.Context, o.Source.Dockerfile, o.Source.Stdin = args[0], f.file, e.stdin
	o.Image.Names, o.Image.Labels, o.Target, o.Pull = f.tags, f.labels, f.target, f.pull
	o.Cache.No, o.Cache.NoStages, o.Cache.Sync = f.noCache, f.noCacheFilter, f.sync
	o.Run.Network = f.network
	o.Lint.Experimental = f.lintExperimental
	o.CheckLayers = e.getenv(checkLayers) == "1"
	var err error
	steps := []func(*imagebuild.Options, *env) error{f.sources, f.args, f.action,
		f.cache, f.runOptions,
		f.access, f.output, f.imageOptions}
	for _, step := range steps {
		err = errors.Join(err, step(&o, e))
	}
	return o, err
}

// oneContext returns an error unless there is one context.
func oneContext(args []string) error {
	switch {
	case len(args) == 0:
		return errors.New(
			"the build context is missing; give the directory with the files, for example '.'")
	case len(args) == 1 && args[0] == "":
		return errors.New("the build context is an empty argument; give the directory with the " +
			"files, for example '.'")
	case len(args) == 1:
		return nil
	}
	for _, v := range verbs() {
		if args[0] == v.name {
			return fmt.Errorf("the verb must come before its flags: layerbuild %s [flags] %s",
				v.name, v.args)
		}
	}
	return fmt.Errorf("one build context is expected, not %d: %s", len(args),
		strings.Join(args, " "))
}

// sources checks the paths and addresses of the Dockerfile and the contexts.
func (f *buildFlags) sources(o *imagebuild.Options, e *env) error {
	so := source.Options{Stdin: e.stdin, Dockerfile: f.file}
	err := source.Check(o.Source.Context, so)
	if err != nil {
		err = fmt.Errorf("build context %q: %w", o.Source.Context, err)
	} else if f.file != "" {
		err = source.CheckDockerfile(o.Source.Context, so)
		if err != nil {
			err = badValue("file", f.file, err)
		}
	}
	o.Source.Contexts = map[string]string{}
	for _, c := range f.contexts {
		name, value, ok := strings.Cut(c, "=")
		if !ok || name == "" || value == "" {
			return errors.Join(err, badValue("build-context", c,
				errors.New("NAME=WHERE is expected")))
		}
		if bad := checkNamedContext(value, so); bad != nil {
			return errors.Join(err, badValue("build-context", c, bad))
		}
		o.Source.Contexts[name] = value
	}
	return err
}

// checkNamedContext returns an error for an invalid value of --build-context.
func checkNamedContext(value string, o source.Options) error {
	if value == "-" {
		return errors.New("standard input is for the build context only")
	}
	if strings.HasPrefix(value, "oci-layout://") {
		return image.CheckPath(value)
	}
	if name, ok := strings.CutPrefix(value, "docker-image://"); ok {
		_, err := reference.Parse(name)
		return err
	}
	return source.Check(value, o)
}

// args parses the build arguments.
func (f *buildFlags) args(o *imagebuild.Options, e *env) error {
	o.Args = map[string]string{}
	for _, a := range f.buildArgs {
		name, value, ok := strings.Cut(a, "=")
		if name == "" || strings.ContainsAny(name, " \t\n") {
			return badValue("build-arg", a,
				errors.New("NAME=VALUE is expected, or NAME for a variable of the environment"))
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				continue // the variable is not set: the ARG keeps its default, as in docker
			}
		}
		o.Args[name] = value
	}
	if rules, ok := o.Args[parser.LintArg]; ok {
		if _, err := parser.ParseLintOptions(rules); err != nil {
			return badValue("build-arg", parser.LintArg+"="+rules,
				fmt.Errorf("%w (known: skip=RULE,…|all;experimental=RULE,…|all;error=true)", err))
		}
	}
	return nil
}

// call is the value of --call: an action with an optional format, as ACTION,format=FORMAT.
type call struct{ action, format string }

func (c *call) Set(s string) error {
	action, format, ok := strings.Cut(s, ",format=") // the form of buildx
	switch action {
	case "build", "check", "lint", "targets":
	default:
		return errors.New(
			"build, check or targets is expected, and an optional suffix ,format=json")
	}
	if ok && format != "text" && format != "json" {
		return errors.New("the format is text or json")
	}
	*c = call{action, format}
	return nil
}

func (c *call) Type() string   { return "string" }
func (c *call) String() string { return c.action }

// action sets the action that the flags select.
func (f *buildFlags) action(o *imagebuild.Options, _ *env) error {
	o.ListTargets = f.call.action == "targets"
	o.Check = f.call.action == "check" || f.call.action == "lint" || f.check && !o.ListTargets
	return checkRules(f.lintExperimental)
}

// resultFormat returns the format of --check and --call.
func (f *buildFlags) resultFormat() string { return cmp.Or(f.call.format, f.format) }

// checkRules checks the values of --lint.
func checkRules(names []string) error {
	known := parser.ExperimentalRules()
	for _, name := range names {
		if name != "all" && !slices.Contains(known, name) {
			return badValue("lint", name, fmt.Errorf("all, %s is expected", orList(known)))
		}
	}
	return nil
}

// cache parses the places for importing and exporting step results.
func (f *buildFlags) cache(o *imagebuild.Options, _ *env) error {
	for _, s := range f.cacheFrom {
		p, err := remotecache.ParseFrom(s)
		if err != nil {
			return err
		}
		if err := checkCacheRef(p); err != nil {
			return badValue("cache-from", s, err)
		}
		o.Cache.From = append(o.Cache.From, p)
	}
	for _, s := range f.cacheTo {
		p, err := remotecache.ParseTo(s)
		if err != nil {
			return err
		}
		if err := checkCacheRef(p); err != nil {
			return badValue("cache-to", s, err)
		}
		if fi, err := os.Stat(p.Dir); err == nil && !fi.IsDir() && !p.IgnoreError {
			return badValue("cache-to", s, errors.New("dest is a file; a directory is expected"))
		}
		o.Cache.To = append(o.Cache.To, p)
	}
	return nil
}

// checkCacheRef checks the name of an image that holds step results.
func checkCacheRef(p remotecache.Place) error {
	if p.Ref == "" {
		return nil
	}
	_, err := reference.Parse(p.Ref)
	return err
}

// runOptions parses the options for RUN.
func (f *buildFlags) runOptions(o *imagebuild.Options, _ *env) error {
	if f.network == "default" {
		o.Run.Network = "host"
	}
	for _, h := range f.addHosts {
		host, err := parseHost(h)
		if err != nil {
			return err
		}
		o.Run.Hosts = append(o.Run.Hosts, host)
	}
	if f.shmSize != "" {
		n, err := units.ParseDocker(f.shmSize)
		if err != nil {
			return badValue("shm-size", f.shmSize, err)
		}
		o.Run.ShmSize = n
	}
	for _, u := range f.ulimits {
		limit, err := parseUlimit(u)
		if err != nil {
			return err
		}
		o.Run.Ulimits = append(o.Run.Ulimits, limit)
	}
	for _, a := range f.allow {
		switch name, _, _ := strings.Cut(a, "="); name {
		case "network.host":
			o.Run.HostNetwork = true
		case "security.insecure":
			o.Run.Insecure = true
		default:
			return badValue("allow", a, errors.New("network.host or security.insecure is expected"))
		}
	}
	return nil
}

// access parses the secrets and agents that the build may use.
func (f *buildFlags) access(o *imagebuild.Options, e *env) error {
	for _, s := range f.secrets {
		secret, err := parseSecret(s, e.getenv)
		if err != nil {
			return badValue("secret", s, err)
		}
		o.Secrets = append(o.Secrets, secret)
	}
	for _, s := range f.ssh {
		id, socket, _ := strings.Cut(s, "=")
		if id == "" {
			return badValue("ssh", s, errors.New("default or ID[=SOCKET] is expected"))
		}
		if socket == "" {
			if socket = e.getenv("SSH_AUTH_SOCK"); socket == "" {
				return badValue("ssh", s,
					fmt.Errorf("SSH_AUTH_SOCK is not set; start an agent or give its socket: "+
						"--ssh %s=SOCKET", id))
			}
		}
		info, err := os.Stat(socket)
		if err != nil {
			return badValue("ssh", s, plainError(err))
		}
		if info.Mode()&os.ModeSocket == 0 {
			return badValue("ssh", s,
				fmt.Errorf("%s is not the socket of an agent; for a key file, start an agent and "+
					"use ssh-add",
					socket))
		}
		o.SSH = append(o.SSH, secret.Agent{ID: id, Socket: socket})
	}
	return nil
}

// output parses the destinations of the image.
func (f *buildFlags) output(o *imagebuild.Options, e *env) error {
	if err := errors.Join(checkNewNames("tag", f.tags), checkFile("iidfile", f.iidFile),
		checkFile("metadata-file", f.metadataFile)); err != nil {
		return err
	}
	for _, s := range f.outputs {
		spec, err := export.Parse(s)
		if err != nil {
			// the wrapping error repeats "output" and s
			return badValue("output", s, errors.Unwrap(err))
		}
		if fd, ok := hostfile.Descriptor(spec.Dest); ok && fd == int(e.stdout.Fd()) {
			spec.Dest = "-" // such as /dev/stdout: -q must not write the image ID to it, too
		}
		for _, name := range spec.Names {
			if err := checkNewName(name); err != nil {
				return badValue("output", s, fmt.Errorf("name %q: %w", name, err))
			}
		}
		o.Outputs = append(o.Outputs, spec)
	}
	// As in buildx, the short forms apply to an output of that type, if there is one.
	if f.push {
		o.Outputs = pushImages(o.Outputs)
	}
	loads := func(s export.Spec) bool { return s.Type == export.TypeDocker && s.Dest == "" }
	if f.load && !slices.ContainsFunc(o.Outputs, loads) {
		o.Outputs = append(o.Outputs, export.Spec{Type: export.TypeDocker})
	}
	for i, spec := range o.Outputs {
		if spec.Push && len(o.Image.Names)+len(spec.Names) == 0 {
			flag := "--push"
			if i < len(f.outputs) {
				flag = fmt.Sprintf("--output %q", f.outputs[i])
			}
			return fmt.Errorf("%s: the image to push has no name; give one with -t NAME", flag)
		}
	}
	if err := export.Check(e.stdout, o.Outputs...); err != nil {
		return fmt.Errorf("--%w", err)
	}
	if err := f.checkApart(o.Outputs); err != nil {
		return err
	}
	for i, s := range f.outputs {
		if err := checkDest(o.Outputs[i]); err != nil {
			return badValue("output", s, err)
		}
	}
	return nil
}

// checkApart returns an error if two of the additional files that the build writes are the same
// file, or if one of them is an output.
func (f *buildFlags) checkApart(outputs []export.Spec) error {
	taken := map[string]string{}
	for _, spec := range outputs {
		if place := realPlace(spec.Dest); place != "" {
			taken[place] = "--output " + spec.String()
		}
	}
	for _, file := range [...]struct{ flag, name string }{{"iidfile", f.iidFile},
		{"metadata-file", f.metadataFile}} {
		place := realPlace(file.name)
		if place == "" {
			continue
		}
		if other := taken[place]; other != "" {
			return badValue(file.flag, file.name, fmt.Errorf("%s writes the same file", other))
		}
		taken[place] = "--" + file.flag
	}
	return nil
}

// pushImages returns outputs with Push set for each output of type=image, of which it adds one if
// there is none.
func pushImages(outputs []export.Spec) []export.Spec {
	list := slices.Clone(outputs)
	isImage := func(s export.Spec) bool { return s.Type == export.TypeImage }
	if !slices.ContainsFunc(list, isImage) {
		list = append(list, export.Spec{Type: export.TypeImage})
	}
	for i := range list {
		list[i].Push = list[i].Push || isImage(list[i])
	}
	return list
}

// imageOptions parses the options for the image's configuration.
func (f *buildFlags) imageOptions(o *imagebuild.Options, e *env) error {
	var err error
	if o.Platforms, err = platforms(e, f.platforms); err != nil {
		return err
	}
	for _, a := range f.annotations {
		list, err := parseAnnotation(a)
		if err != nil {
			return err
		}
		o.Image.Annotations = append(o.Image.Annotations, list...)
	}
	for _, l := range f.labels {
		if strings.HasPrefix(l, "=") || l == "" {
			return badValue("label", l, errors.New("KEY=VALUE is expected"))
		}
	}
	// As in buildx, the variable sets the build argument, so that an ARG of that name has its
	// value, too.
	if _, ok := o.Args[epochArg]; !ok && e.getenv(epochArg) != "" {
		if _, err := imagebuild.Epoch(e.getenv(epochArg)); err != nil {
			return err
		}
		o.Args[epochArg] = e.getenv(epochArg)
	}
	return nil
}

// epochArg is the variable and the build argument with the time of the image.
const epochArg = "SOURCE_DATE_EPOCH"

// parseAnnotation reads [TARGET[PLATFORM],…:]KEY=VALUE, where a target is manifest, index or one of
// their descriptors.
func parseAnnotation(s string) ([]export.Annotation, error) {
	key, value, ok := strings.Cut(s, "=")
	targets := "manifest"
	if before, after, found := strings.Cut(key, ":"); found {
		targets, key = before, after
	}
	if !ok || key == "" {
		return nil, badValue("annotation", s, errors.New("[TARGET:]KEY=VALUE is expected"))
	}
	var list []export.Annotation
	for target := range strings.SplitSeq(targets, ",") {
		a := export.Annotation{Target: target, Key: key, Value: value}
		if i := strings.IndexByte(target, '['); i > 0 && strings.HasSuffix(target, "]") {
			a.Target, a.Platform = target[:i], target[i+1:len(target)-1]
		}
		if !slices.Contains([]string{"manifest", "index", "manifest-descriptor",
			"index-descriptor"}, a.Target) {
			return nil, badValue("annotation", s,
				errors.New("a target is manifest, index, manifest-descriptor or index-descriptor"))
		}
		list = append(list, a)
	}
	return list, nil
}

// parseHost parses HOST:IP or HOST=IP; IPv6 addresses may be in brackets.
func parseHost(s string) (executor.Host, error) {
	name, ip, ok := strings.Cut(s, "=")
	if !ok {
		name, ip, ok = strings.Cut(s, ":")
	}
	if inner, bracket := strings.CutPrefix(ip, "["); bracket {
		inner, ok = strings.CutSuffix(inner, "]")
		ip = inner
	}
	if ip == "host-gateway" {
		ip = "127.0.0.1" // commands share the host's network
	}
	if _, err := netip.ParseAddr(ip); err != nil || !ok || name == "" ||
		strings.ContainsAny(name, " \t\n#") {
		return executor.Host{}, badValue("add-host", s,
			errors.New("HOST:IP is expected, with an address or host-gateway for IP"))
	}
	return executor.Host{Name: name, IP: ip}, nil
}

func parseUlimit(s string) (executor.Ulimit, error) {
	name, value, ok := strings.Cut(s, "=")
	soft, hard, two := strings.Cut(value, ":")
	if !two {
		hard = soft
	}
	a, err1 := strconv.ParseInt(soft, 10, 64)
	b, err2 := strconv.ParseInt(hard, 10, 64)
	if !ok || name == "" || err1 != nil || err2 != nil || a < -1 || b < -1 {
		return executor.Ulimit{}, badValue("ulimit", s,
			errors.New("NAME=SOFT[:HARD] is expected, two numbers, -1 for no limit"))
	}
	if err := executor.CheckUlimit(name); err != nil {
		return executor.Ulimit{}, badValue("ulimit", s, err)
	}
	if b != -1 && (a == -1 || a > b) {
		return executor.Ulimit{}, badValue("ulimit", s,
			errors.New("the soft limit is above the hard one"))
	}
	return executor.Ulimit{Name: name, Soft: a, Hard: b}, nil
}

// parseSecret parses id=ID with src=FILE or env=VAR. With neither, the id names a variable, or
// else a file.
func parseSecret(s string, getenv func(string) string) (secret.Secret, error) {
	var out secret.Secret
	kind := ""
	for _, f := range strings.Split(s, ",") {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return out, fmt.Errorf("%q is not key=value; id=ID[,src=FILE|,env=VAR] is expected", f)
		}
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "id":
			out.ID = value
		case "src", "source":
			out.File = value
		case "env":
			out.Env = value
		case "type":
			kind = value
		default:
			return out, fmt.Errorf("unknown key %q (known: id, src, env, type)", key)
		}
	}
	if out.ID == "" {
		return out, errors.New("id is missing; id=ID[,src=FILE|,env=VAR] is expected")
	}
	if kind != "" && kind != "file" && kind != "env" {
		return out, fmt.Errorf("type %q: file or env is expected", kind)
	}
	if kind == "env" && out.Env == "" {
		out.Env, out.File = cmp.Or(out.File, out.ID), ""
	}
	if out.File == "" && out.Env == "" {
		if getenv(out.ID) != "" && kind != "file" {
			out.Env = out.ID
		} else {
			out.File = out.ID
			if _, err := os.Stat(out.File); errors.Is(err, fs.ErrNotExist) {
				return out, fmt.Errorf("there is neither a file nor a variable %s; "+
					"id=ID[,src=FILE|,env=VAR] is expected", out.ID)
			}
		}
	}
	if out.File != "" {
		return out, checkSecretFile(out.File)
	}
	return out, nil
}

// checkSecretFile checks that the file of a secret can be read.
func checkSecretFile(name string) error {
	fi, err := os.Stat(name)
	switch {
	case err != nil:
		return fmt.Errorf("src: %w", plainError(err))
	case fi.IsDir():
		return errors.New("src is a directory; a file is expected")
	case fi.Size() > secret.MaxSize:
		return fmt.Errorf("the file has %d bytes; a secret has at most %d",
			fi.Size(), secret.MaxSize)
	case !fi.Mode().IsRegular():
		return nil // a pipe can be opened only once
	}
	f, err := hostfile.Open(name, os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("src: %w", plainError(err))
	}
	return f.Close()
}
