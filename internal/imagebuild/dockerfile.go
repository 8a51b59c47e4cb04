package imagebuild

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// dockerfile is a Dockerfile that was read from a context.
type dockerfile struct {
	context *source.Context
	name    string // for messages; "" if the context could not be opened
	text    []byte
	parsed  *parser.File
	// warnings holds the findings before a mistake in the syntax.
	warnings []parser.Warning
}

// ErrPolicy is returned for a build that has a policy for its sources, in the language Rego, which
// docker buildx obeys since its version 0.31.
var ErrPolicy = errors.New("layerbuild evaluates no policies, and a build must not succeed " +
	"because its policy is left out; --policy disabled=true builds without it")

// openDockerfile opens the context and parses the Dockerfile. After an error the result has what is
// known by then.
func openDockerfile(ctx context.Context, in *inputs.Inputs, o *Options) (dockerfile, error) {
	id := event.ID("context")
	o.Sink(event.Start{ID: id, Name: "load build context and Dockerfile", Time: time.Now()})
	d, err := parseDockerfile(ctx, in, o)
	o.Sink(event.Done{ID: id, Err: err, Time: time.Now()})
	return d, err
}

func parseDockerfile(ctx context.Context, in *inputs.Inputs, o *Options) (d dockerfile, err error) {
	src := &o.Source
	stdin := src.Stdin
	if src.Inline != "" {
		stdin = strings.NewReader(src.Inline)
	}
	if d.context, err = in.Main(ctx, cmp.Or(src.Context, "."), src.Dockerfile,
		stdin); err != nil {
		return d, err
	}
	if d.name, d.text, err = d.context.ReadDockerfile(ctx); err != nil {
		return d, err
	}
	if policy := d.context.Policy(); policy != "" && src.RefusePolicy {
		return d, fmt.Errorf("%s is beside the Dockerfile: %w", policy, ErrPolicy)
	}
	if d.context.IsDockerfile() && src.Dockerfile != "" && d.name == d.context.Name {
		o.Sink(event.Warning{Time: time.Now(), Message: fmt.Sprintf(
			"--file %s has no effect: the build context is a Dockerfile", src.Dockerfile)})
	}
	if src.Inline != "" {
		d.name = "dockerfile-inline of " + o.Name
	}
	if err := parser.CheckFrontend(d.name, d.text, o.Args[parser.SyntaxArg]); err != nil {
		return d, err
	}
	if d.parsed, err = parser.Parse(d.name, d.text); err != nil && d.parsed != nil {
		// Plan fails with the same error, and returns the warnings of the lines before it.
		if plan, _ := d.parsed.Plan(d.planOptions(o, ocispec.Platform{}, o.Lint)); plan != nil {
			d.warnings = plan.Warnings()
			d.warn(o.Sink, d.warnings)
		}
	}
	return d, err
}

// warn sends findings of the rules on Dockerfiles.
func (d *dockerfile) warn(sink event.Sink, list []parser.Warning) {
	if len(list) == 0 {
		return
	}
	source := string(d.text)
	for _, w := range list {
		sink(event.Warning{Rule: w.Rule, Message: w.Msg, Detail: w.Description, URL: w.URL,
			File: d.name, Source: source, Line: w.Range.Start, End: w.Range.End,
			Time: time.Now()})
	}
}

// planOptions returns the options of the plan for one platform. A check without a target covers all
// stages.
func (d *dockerfile) planOptions(o *Options, p ocispec.Platform,
	lint parser.LintOptions) parser.PlanOptions {
	var empty []string
	for name, value := range o.Source.Contexts {
		if value == image.SchemeName+"scratch" {
			empty = append(empty, name)
		}
	}
	plan := parser.PlanOptions{
		Empty:     empty,
		BuildArgs: o.Args, Target: o.Target, Labels: o.Image.Labels, Platform: p,
		Contexts: slices.Sorted(maps.Keys(o.Source.Contexts)),
		Ignore:   d.context.Tree().Ignore(), Lint: lint,
		AllStages: o.Check && o.Target == "",
	}
	if o.Native {
		plan.BuildPlatform = p
	}
	return plan
}

// plan is the plan of one platform.
type plan struct {
	plan     *parser.Plan
	prefetch []inputs.Use // images that are unpacked while the first steps run
	label    string       // prefix of the names of steps of several targets or platforms
}

// makePlans makes the plan of each platform and checks it without running anything, so that
// mistakes in any instruction are found before the first command runs. It sends and returns the
// findings of the rules on Dockerfiles, even if it returns an error.
func makePlans(ctx context.Context, d dockerfile, in *inputs.Inputs,
	o *Options) (plans []plan, warnings []parser.Warning, err error) {
	platforms := o.Platforms
	if len(platforms) == 0 {
		platforms = []ocispec.Platform{{}} // the host's platform
	}
	if o.Check || o.Outline {
		platforms = platforms[:1] // only one, as in BuildKit
	}
	epochs := epochs{in: in, sink: o.Sink}
	for i, platform := range platforms {
		lint := o.Lint
		lint.Off = i > 0 // the rules have had the whole file with the first platform
		p, err := d.plan(ctx, in, d.planOptions(o, platform, lint), &epochs)
		if i == 0 && p.plan != nil {
			warnings = p.plan.Warnings()
			d.warn(o.Sink, warnings)
		}
		if err != nil {
			return nil, warnings, err
		}
		if o.Name != "" {
			p.label = o.Name + " "
		}
		if len(platforms) > 1 {
			p.label += parser.FormatPlatform(p.plan.Target.Platform) + " "
		}
		plans = append(plans, p)
	}
	return plans, warnings, nil
}

// plan makes and checks the plan of one platform. It returns the plan, with its warnings, even if
// it returns an error. Of several errors it returns the first one in the file.
func (d *dockerfile) plan(ctx context.Context, in *inputs.Inputs,
	o parser.PlanOptions, epochs *epochs) (p plan, err error) {
	if p.plan, err = d.parsed.Plan(o); err == nil && p.plan.EpochFrom != nil {
		if o.BuildArgs, err = epochs.set(ctx, o.BuildArgs, p.plan.EpochFrom); err == nil {
			p.plan, err = d.parsed.Plan(o)
		}
	}
	if err != nil {
		return p, err
	}
	p.prefetch, err = in.CheckPlan(ctx, p.plan, len(d.parsed.Targets()))
	if use := (*inputs.Error)(nil); errors.As(err, &use) {
		err = build.At(d.name, use.Lines, "", use.Err)
	}
	return p, err
}

// warnNoCacheStages warns about stages of --no-cache-filter that the Dockerfile does not have.
func warnNoCacheStages(o *Options, stages []parser.Target) {
	for _, name := range o.Cache.NoStages {
		there := slices.ContainsFunc(stages,
			func(t parser.Target) bool { return strings.EqualFold(t.Name, name) })
		n, err := strconv.Atoi(name)
		if !there && (err != nil || n < 0 || n >= len(stages)) {
			warn(o.Sink, fmt.Sprintf("--no-cache-filter %s has no effect: there is no such stage",
				name))
		}
	}
}
