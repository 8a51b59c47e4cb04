package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/cluster"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/spf13/pflag"
)

// planFlags are the flags of the plan verb, as given.
type planFlags struct {
	build   buildFlags
	fs      *pflag.FlagSet
	format  string
	minCost maxAge
	// image is the image with layerbuild, and source where the nodes find the context.
	image, source given
}

func planVerb() verb {
	return verb{
		name: "plan", args: "[CONTEXT]",
		summary: "show what a build will do, or spread it over a cluster",
		notes: `The text and JSON have the stages and steps of a build, what each stage needs, which caches have its results, and how long the steps took
when they last ran on this machine. Nothing is built. A key that depends on the result of a step is not known before the step has run.

The other formats are what an engine runs: github a matrix for GitHub Actions, argo a Workflow, tekton a PipelineRun, k8s Jobs of Kubernetes
in waves, slurm a script for bash. A node builds one stage with 'layerbuild build --target', the last one pushes the image, and with several
platforms another one joins the images. The nodes share only the caches of --cache, one of which must be written.

A stage gets a node of its own if two stages that do not need each other need it, or if it can be built while another one is. Stages whose
results are in a cache get none. CONTEXT is the current directory if it is not given. docs/CLUSTER.md has the details.`,
		examples: []example{
			{"layerbuild plan .", "show stages, steps and what is cached"},
			{"layerbuild plan --format slurm --cache ghcr.io/me/cache -t ghcr.io/me/app .",
				"print a script for Slurm"},
			{"layerbuild plan --format k8s --cache ghcr.io/me/cache -t ghcr.io/me/app .",
				"print Jobs for Kubernetes"},
		},
		common: []string{"format", "cache", "tag", "file", "target", "build-arg", "platform",
			"min-cost", "builder-image", "source"},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			f := planFlags{fs: fs}
			f.define(fs)
			return f.prepare
		},
	}
}

func (f *planFlags) define(fs *pflag.FlagSet) {
	f.build.state.define(fs)
	group(fs, "Plan", func(fs *pflag.FlagSet) {
		fs.Var(newChoice(&f.format, "text", "text", "json", "github", "argo", "tekton", "k8s",
			"slurm"), "format", "output format")
		fs.Var(&f.minCost, "min-cost", "`TIME` no node for stages that take less, such as 30s\n"+
			"The time is that of the steps that are in no cache, when they last ran on this "+
			"machine. A stage whose time is not known gets a node.")
		fs.Var(&f.image, "builder-image", "`IMAGE` image with layerbuild, for pods\n"+
			"Without the flag it is "+defaultBuilder+", which you replace.")
		fs.Var(&f.source, "source", "`URL|pvc:CLAIM[/DIR]` where the nodes find the context\n"+
			"URL is that of a git repository or an archive. CLAIM is a volume claim in the "+
			"namespace of the pods, for argo, tekton and k8s. Without the flag it is CONTEXT if "+
			"that is a URL, or else pvc:source, and for github and slurm the same directory.")
	})
	group(fs, "Inputs", f.build.defineInputs)
	group(fs, "Image", func(fs *pflag.FlagSet) {
		f.build.defineTag(fs)
		f.build.defineLabels(fs)
		f.build.defineAttestations(fs)
	})
	group(fs, "Cache", f.build.defineShared)
	group(fs, "Registries", f.build.registry.define)
	group(fs, "Isolation of RUN", f.build.defineIsolation)
}

// defaultBuilder is a name for the image with layerbuild. None is published.
const defaultBuilder = "registry.example.com/tools/layerbuild:latest"

// builderImage returns the image with layerbuild.
func (f *planFlags) builderImage() string { return cmp.Or(string(f.image), defaultBuilder) }

// forEngine reports whether the output is for an engine.
func (f *planFlags) forEngine() bool { return f.format != "text" && f.format != "json" }

// inPods reports whether the nodes are pods, which have no files of this machine.
func (f *planFlags) inPods() bool {
	return f.format == "argo" || f.format == "tekton" || f.format == "k8s"
}

// prepare checks the command line.
func (f *planFlags) prepare(e *env, args []string) (runFunc, error) {
	b := &f.build
	if len(args) == 0 {
		args = []string{"."}
	}
	b.call.action, b.layers = "build", true
	if err := errors.Join(b.state.resolve(e), b.state.access(&b.registry)); err != nil {
		return nil, err
	}
	o, err := b.options(e, args)
	if err != nil {
		return nil, err
	}
	o.Preview, o.Native = true, f.forEngine()
	if _, err := reference.Parse(f.builderImage()); err != nil {
		return nil, badValue("builder-image", string(f.image), err)
	}
	n := &nodes{f: f, o: &o}
	if err := n.check(args[0]); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return f.run(ctx, e, n) }, nil
}

// run prints the plan.
func (f *planFlags) run(ctx context.Context, e *env, n *nodes) error {
	display, err := ui.New("quiet", e.stderr, ui.Options{Getenv: e.getenv})
	if err != nil {
		return err
	}
	n.o.Sink = display.Sink()
	state, images, err := f.build.state.open(ctx)
	if err != nil {
		return errors.Join(err, display.Close())
	}
	defer state.Close()
	n.o.Export = f.build.state.exportEnv(e, state, images)
	images.openCaches(n.o, state)
	var res *imagebuild.Result
	images.warnings.sendTo(n.o.Sink, func() {
		res, err = imagebuild.Build(ctx, state, images.resolver, *n.o)
	})
	err = errors.Join(err, display.Close())
	print := ui.PrintOptions{Color: ui.Color(e.stderr, e.getenv),
		Colors: e.getenv("BUILDKIT_COLORS")}
	// an error means that standard error is closed
	_ = ui.PrintWarnings(e.text(e.stderr), display.Warnings(), print)
	if err != nil {
		return f.build.explain(e, &finished{o: *n.o, display: display, res: res}, err, print)
	}
	plan, err := n.plan(res)
	if err != nil {
		return err
	}
	return f.write(e, n, plan, res)
}

// write prints the plan in its format.
func (f *planFlags) write(e *env, n *nodes, plan *cluster.Plan, res *imagebuild.Result) error {
	var text string
	var err error
	switch f.format {
	case "github":
		text, err = plan.GitHub()
	case "slurm":
		text = plan.Slurm()
	case "argo":
		text = plan.Argo()
	case "tekton":
		text = plan.Tekton()
	case "k8s":
		text = plan.Kubernetes()
	case "json":
		return printJSON(e.json(e.stdout), newPlanReport(n, plan, res))
	default:
		r := newPlanReport(n, plan, res)
		_, err := io.WriteString(e.text(e.stdout), r.text())
		return err
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(e.stdout, text)
	return err
}

// planReport is the output of --format json.
type planReport struct {
	Dockerfile string         `json:"dockerfile"`
	Context    string         `json:"context"`
	Caches     []string       `json:"caches"`
	Platforms  []planPlatform `json:"platforms"`
	Nodes      []planNode     `json:"nodes"`
	// Seconds is the sum of the times of the nodes, and PathSeconds the time of those that wait for
	// each other; nil: they are not known.
	Seconds     *float64 `json:"seconds"`
	PathSeconds *float64 `json:"pathSeconds"`
}

type planPlatform struct {
	Platform string      `json:"platform"`
	Target   string      `json:"target"`
	Stages   []planStage `json:"stages"`
}

type planStage struct {
	Name  string `json:"name"`
	Index int    `json:"index"`
	Line  int    `json:"line"`
	// Platform is that of its files and commands.
	Platform string     `json:"platform"`
	Needs    planNeeds  `json:"needs"`
	Steps    []planStep `json:"steps"`
	// Seconds is the time of the steps that are in no cache; nil: it is not known.
	Seconds *float64 `json:"seconds"`
}

// planNeeds are the inputs of a stage.
type planNeeds struct {
	Stages   []string `json:"stages"`
	Images   []string `json:"images"`
	Contexts []string `json:"contexts"` // "" is the main one
}

type planStep struct {
	Number        int    `json:"number"`
	Line          int    `json:"line"`
	Instruction   string `json:"instruction"`
	Key           string `json:"key,omitempty"`
	DefinitionKey string `json:"definitionKey,omitempty"`
	Local         bool   `json:"local"` // the state of this machine has the result
	// Caches are those of --cache that have a result.
	Caches  []string `json:"caches"`
	Seconds *float64 `json:"seconds"` // nil: it is not known
}

type planNode struct {
	Name     string   `json:"name"`
	Platform string   `json:"platform"`
	Stages   []string `json:"stages"`
	Needs    []string `json:"needs"`
	Wave     int      `json:"wave"`
	Seconds  *float64 `json:"seconds"` // nil: it is not known
	Args     []string `json:"args"`
}

// secondsOf returns a time for JSON.
func secondsOf(d time.Duration, known bool) *float64 {
	if !known {
		return nil
	}
	s := float64(d.Milliseconds()) / 1000
	return &s
}

// newPlanReport returns the report of a plan.
func newPlanReport(n *nodes, plan *cluster.Plan, res *imagebuild.Result) *planReport {
	r := &planReport{Dockerfile: res.Dockerfile, Context: n.o.Source.Context, Caches: []string{}}
	for _, c := range n.o.Cache.Shared {
		r.Caches = append(r.Caches, shownCache(c.Place.String()))
	}
	for i := range res.Previews {
		r.Platforms = append(r.Platforms, platformReport(&res.Previews[i]))
	}
	for _, node := range plan.Nodes {
		p := planNode{Name: node.Name, Platform: node.Platform, Stages: node.Stages,
			Needs: []string{}, Wave: node.Level, Seconds: secondsOf(node.Cost, node.Known),
			Args: node.Args}
		for _, i := range node.Needs {
			p.Needs = append(p.Needs, plan.Nodes[i].Name)
		}
		r.Nodes = append(r.Nodes, p)
	}
	path, sum, known := cluster.Critical(plan.Nodes)
	r.Seconds, r.PathSeconds = secondsOf(sum, known), secondsOf(path, known)
	return r
}

// text returns the report for people.
func (r *planReport) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s in %s\n", ui.Clean(r.Dockerfile), ui.Clean(r.Context))
	for _, p := range r.Platforms {
		fmt.Fprintf(&b, "\n%s, target %s\n", p.Platform, ui.Clean(p.Target))
		for _, s := range p.Stages {
			s.text(&b, p.Platform)
		}
	}
	b.WriteString("\nNodes:\n")
	for _, n := range r.Nodes {
		fmt.Fprintf(&b, "  %s: %s", n.Name, took(n.Seconds))
		if len(n.Stages) > 1 {
			fmt.Fprintf(&b, ", with %s", ui.Clean(joinWords(n.Stages[:len(n.Stages)-1], "and")))
		}
		if len(n.Needs) > 0 {
			fmt.Fprintf(&b, ", after %s", joinWords(n.Needs, "and"))
		}
		b.WriteByte('\n')
	}
	if len(r.Nodes) > 1 && r.Seconds != nil {
		fmt.Fprintf(&b, "  in all %s, of which %s are on the longest path\n", took(r.Seconds),
			took(r.PathSeconds))
	}
	return b.String()
}

func (s *planStage) text(b *strings.Builder, platform string) {
	fmt.Fprintf(b, "  stage %s: %s", ui.Clean(s.Name), took(s.Seconds))
	if s.Platform != platform {
		fmt.Fprintf(b, ", for %s", s.Platform)
	}
	for _, needs := range []struct {
		kind  string
		names []string
	}{{"stage", s.Needs.Stages}, {"image", s.Needs.Images}, {"context", s.Needs.Contexts}} {
		for _, name := range needs.names {
			if name == "" {
				name = "of the build"
			}
			fmt.Fprintf(b, ", needs %s %s", needs.kind, ui.Clean(name))
		}
	}
	b.WriteByte('\n')
	for _, step := range s.Steps {
		where := step.Caches
		if step.Local {
			where = append([]string{"this machine"}, where...)
		}
		state := "runs, " + took(step.Seconds)
		if len(where) > 0 {
			state = "cached: " + strings.Join(where, ", ")
		}
		key := step.Key
		if key == "" {
			key = "not known yet"
		}
		fmt.Fprintf(b, "    line %d: %s\n      %s\n      key %s\n", step.Line,
			ui.Cut(ui.Clean(step.Instruction), 68), ui.Clean(state), key)
	}
}

// took returns a time for people.
func took(seconds *float64) string {
	if seconds == nil {
		return "time unknown"
	}
	return time.Duration(*seconds * float64(time.Second)).Round(10 * time.Millisecond).String()
}
