package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/cachemount"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageanalysis"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/outputs"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// builder holds what the platforms of one build share.
type builder struct {
	state  *state.State
	images *image.Resolver
	// baseImages and artifacts are the same as images, except in tests.
	baseImages inputs.Images
	artifacts  remotecache.Artifacts
	opts       Options
	sink       event.Sink
	context    *source.Context
	file       *parser.File
	name       string // the Dockerfile's, for messages
	epoch      *int64 // seconds, nil: real times
	began      time.Time

	in          *inputs.Inputs
	secrets     *secret.Store
	cacheMounts *cachemount.Store
	e           *engine
	makeSealer  func(context.Context, layers.SealerOptions) (Sealer, DirectorySealer)
	// ctx ends when Build returns. It is stored because layers are sealed and sent while steps run,
	// by goroutines that outlive the call that starts them.
	ctx     context.Context
	uploads *outputs.Uploads
	recipe  outputs.Recipe // of the image in the store
	tempdir *state.TempDir

	ownNotice sync.Once
	repairs   repairs

	mu      sync.Mutex
	closers []io.Closer
}

// Build builds an image. The Result is never nil. It has the name and text of the Dockerfile as
// soon as they are known, even if an error is returned. An error of an instruction is a *StepError
// or a *parser.Error.
func Build(ctx context.Context, state *state.State, images *image.Resolver,
	o Options) (*Result, error) {
	return newBuilder(state, images, o).run(ctx)
}

// newBuilder returns a builder that has not started.
func newBuilder(state *state.State, images *image.Resolver, o Options) *builder {
	if o.Sink == nil {
		o.Sink = event.Discard
	}
	b := &builder{state: state, images: images, baseImages: images, artifacts: images,
		opts: o, began: time.Now()}
	b.sink = b.repairs.marking(o.Sink)
	b.opts.Sink = b.sink
	b.e = &engine{
		exec: processes{}, snapshots: state.Snapshots, records: state.Cache,
		images: images, state: state,
		lazy: &layers.Lazy{}, tables: o.Analyze, sink: b.sink,
	}
	b.makeSealer = func(ctx context.Context, o layers.SealerOptions) (Sealer, DirectorySealer) {
		s := layers.NewSealer(ctx, o)
		return s, s
	}
	if b.inlineCache() {
		b.opts.Cache.To = append(slices.Clone(b.opts.Cache.To), remotecache.Place{Type: "inline"})
	}
	return b
}

// run builds the image.
func (b *builder) run(ctx context.Context) (res *Result, err error) {
	warn := func(message string) { b.sink(event.Warning{Message: message, Time: time.Now()}) }
	b.state.Store.Warn = warn
	b.secrets = &secret.Store{Secrets: b.opts.Run.Secrets, Agents: b.opts.Run.SSH, Warn: warn}
	res = &Result{}
	if err := b.makeTempDir(); err != nil {
		return res, err
	}
	b.closeLater(&b.e.pool)
	b.in = b.newInputs()
	b.closeLater(b.in)
	ctx, cancel := context.WithCancel(ctx)
	b.ctx = ctx
	defer func() { cancel(); err = errors.Join(err, b.close()) }()
	b.cacheMounts = &cachemount.Store{Top: func() (string, error) { return b.state.Path("mounts") },
		Empty: b.opts.Cache.No, Lease: b.state.LeaseMount, Settle: b.state.Settle}
	b.state.SyncEarlier(ctx)
	if err := b.open(ctx, res); err != nil {
		return res, err
	}
	if res.Targets = b.file.Targets(); b.opts.ListTargets {
		return res, nil
	}
	err = b.build(ctx, res)
	var layer *layers.Error
	if errors.As(err, &layer) {
		err = b.at(layer.Lines, "", err)
	}
	return res, b.full(err)
}

// full adds the remedy to an error about a full disk. It changes the error inside a StepError,
// which keeps its place in the Dockerfile.
func (b *builder) full(err error) error {
	var step *StepError
	if errors.As(err, &step) {
		step.Err = state.Full(b.state.Root, step.Err)
		return err
	}
	return state.Full(b.state.Root, err)
}

// makeTempDir removes the temporary directories of builds that were killed, and prepares one for
// this build.
func (b *builder) makeTempDir() error {
	if err := state.RemoveTempDirs(b.state.Root); err != nil {
		return err
	}
	b.tempdir = state.NewTempDir(b.state.Root)
	b.closeLater(b.tempdir)
	return nil
}

// close waits for background work and closes everything that the build has opened, in reverse
// order.
func (b *builder) close() error {
	b.waitForLayers()
	if b.e.dirty.Load() {
		b.state.NoteUnsynced()
	}
	var errs []error
	for _, c := range slices.Backward(b.closers) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// newInputs returns the inputs of the build.
func (b *builder) newInputs() *inputs.Inputs {
	return inputs.New(inputs.Options{
		Images: b.baseImages, Snapshots: b.state.Snapshots, Remote: b.state.Cache, Lazy: b.e.lazy,
		Secrets: b.secrets, Sink: b.sink,
		TempDir: b.tempdir.Path, IndexDir: func() (string, error) {
			return b.state.Path("context")
		},
		Own:      source.OwnState{Dir: b.state.Root, Holds: state.Holds, Notice: b.noticeOwn},
		Contexts: b.opts.Source.Contexts, Pull: b.opts.Pull, KeepGitDir: b.keepGitDir(),
	})
}

// newSealer creates the sealer for the layers of the image in the store.
func (b *builder) newSealer() {
	b.e.checker = nil
	if b.opts.CheckLayers {
		b.e.checker = &layers.Checker{State: b.state, Lazy: b.e.lazy, Epoch: b.opts.Image.Epoch}
	}
	b.e.sealer, b.e.directories = b.makeSealer(b.ctx, layers.SealerOptions{
		State: b.state, TempDir: b.tempdir, Lazy: b.e.lazy, Format: b.recipe.Format(b.epoch),
		Tables: b.opts.Analyze, Check: b.e.checker,
		Warn: func(l *layers.Layer, path, problem string) {
			b.sink(event.Warning{Message: path + ": " + problem, File: b.name,
				Line: l.Lines.Start, Time: time.Now()})
		},
		Sealed: func(d ocispec.Descriptor) { b.uploads.Add(b.ctx, d) },
	})
}

// waitForLayers waits until no layer is being sealed or sent.
func (b *builder) waitForLayers() {
	if b.e.sealer != nil {
		b.e.sealer.Wait()
	}
	if b.uploads != nil {
		b.uploads.Wait()
	}
}

func (b *builder) closeLater(c io.Closer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closers = append(b.closers, c)
}

// open opens the context and parses the Dockerfile.
func (b *builder) open(ctx context.Context, res *Result) error {
	id := event.ID("context")
	b.sink(event.Start{ID: id, Name: "load build context and Dockerfile", Time: time.Now()})
	err := b.openContext(ctx, res)
	b.sink(event.Done{ID: id, Err: err, Time: time.Now()})
	return err
}

func (b *builder) openContext(ctx context.Context, res *Result) (err error) {
	o := b.opts.Source
	if o.Context == "" {
		o.Context = "."
	}
	if b.context, err = b.in.Main(ctx, o.Context, o.Dockerfile, o.Stdin); err != nil {
		return err
	}
	if b.name, res.Text, err = b.context.ReadDockerfile(ctx); err != nil {
		return err
	}
	res.Dockerfile = b.name
	if b.file, err = parser.Parse(b.name, res.Text); err != nil && b.file != nil {
		// Plan fails with the same error, and returns the warnings of the lines before it.
		if plan, _ := b.file.Plan(b.planOptions(ocispec.Platform{}, b.opts.Lint)); plan != nil {
			res.Warnings = plan.Warnings()
			b.warn(res.Warnings)
		}
	}
	return err
}

// build plans for each platform, and then runs the plans.
func (b *builder) build(ctx context.Context, res *Result) error {
	platforms := b.opts.Platforms
	if len(platforms) == 0 {
		platforms = []ocispec.Platform{{}} // the host's
	}
	if b.opts.Check {
		platforms = platforms[:1] // as in BuildKit
	}
	solvers := make([]*solver, len(platforms))
	for i, p := range platforms {
		lint := b.opts.Lint
		lint.Off = i > 0 // the findings would be the same
		s, err := b.plan(ctx, p, lint)
		if i == 0 && s != nil {
			res.Warnings = s.plan.Warnings()
			b.warn(res.Warnings)
		}
		if err != nil {
			return err
		}
		s.label = ""
		if len(platforms) > 1 {
			s.label = parser.FormatPlatform(s.plan.Target.Platform) + " "
		}
		solvers[i] = s
	}
	if b.opts.Check {
		return nil
	}
	b.warnNoCacheStages()
	// New checks the destinations before anything is built.
	exporters, err := export.New(b.opts.Export, b.opts.Outputs...)
	if err != nil {
		return err
	}
	b.setEpoch(solvers[0].plan.Epoch)
	o := b.opts.outputs()
	o.InlineCache = b.exportsInline()
	b.recipe = o.StoreRecipe()
	b.uploads = outputs.NewUploads(b.opts.Upload, &o, b.recipe)
	b.newSealer()
	o.Warn(b.sink)
	writer := &outputs.Writer{State: b.state, Images: b.images, Options: o, Recipe: b.recipe,
		Exporters: exporters, Sink: b.sink}
	return b.repairing(ctx, res, func() error {
		for i, s := range solvers {
			solvers[i] = s.anew()
		}
		return b.solve(ctx, res, solvers, writer)
	})
}

// solve builds the targets of all platforms at once and writes the image.
func (b *builder) solve(ctx context.Context, res *Result, solvers []*solver,
	writer *outputs.Writer) error {
	platforms := make([]ocispec.Platform, len(solvers))
	for i, s := range solvers {
		platforms[i] = s.plan.Target.Platform
	}
	if err := b.importRecords(ctx, platforms); err != nil {
		return err
	}
	b.expect(ctx, solvers)
	targets := make([]rootfs, len(solvers))
	g, gctx := errgroup.WithContext(ctx)
	for i, s := range solvers {
		g.Go(func() (err error) {
			targets[i], err = s.solve(gctx)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return b.finish(ctx, res, solvers, targets, writer)
}

// finish writes the images and exports the results.
func (b *builder) finish(ctx context.Context, res *Result, solvers []*solver, targets []rootfs,
	writer *outputs.Writer) error {
	built := make([]outputs.Built, len(targets))
	for i, t := range targets {
		var err error
		if built[i], err = solvers[i].built(ctx, t); err != nil {
			return err
		}
	}
	wrote, err := writer.Write(ctx, built)
	res.Root, res.Config, res.Names, res.Metadata = wrote.Root, wrote.Config,
		wrote.Names, wrote.Metadata
	if err != nil {
		return err
	}
	if err := b.exportRecords(ctx, solvers); err != nil {
		return err
	}
	if b.opts.Cache.Sync {
		if err := b.state.Sync(ctx); err != nil {
			return err
		}
	}
	b.sink(event.Result{Names: res.Names, Digest: res.Root.Digest.String(), Time: time.Now()})
	return nil
}

// built returns what the build has made for the solver's platform, of which t is the target.
func (s *solver) built(ctx context.Context, t rootfs) (outputs.Built, error) {
	record, err := s.record(ctx, t)
	out := outputs.Built{
		Platform: s.plan.Target.Platform, Config: t.config, Layers: t.layers, Record: record,
		Files: func(ctx context.Context, w io.Writer) error {
			return layers.WriteFiles(ctx, w, s.b.state, s.e.lazy, t.top, s.b.opts.Image.Epoch)
		},
	}
	if s.b.exportsInline() {
		out.Records = func(ctx context.Context) (remotecache.Document, error) {
			return s.collector.Document(ctx, s.e.sealer, false)
		}
	}
	return out, err
}

// origin is the instruction that an entry of the history comes from.
type origin struct {
	stage *parser.Stage
	text  string
	lines parser.Range
}

// record returns which lines of the Dockerfile made which entries of an image's history.
func (s *solver) record(ctx context.Context, t rootfs) (imageanalysis.Record, error) {
	rec := imageanalysis.Record{Dockerfile: s.b.name}
	first := s.plan.Target
	for {
		base, ok := first.Base.(parser.StageInput)
		if !ok {
			break
		}
		first = base.Stage
	}
	in, ok := first.Base.(parser.ImageInput)
	if c, context := first.Base.(parser.ContextInput); context {
		in, ok = s.in.ContextImage(c)
	}
	if ok {
		img, err := s.in.Resolve(ctx, in)
		if err != nil {
			return rec, err
		}
		rec.Base = imageanalysis.RecordedBase{Name: img.Name,
			Digest: img.Descriptor.Digest.String(), Layers: len(img.Manifest.Layers),
			History: len(img.Config.History)}
	}
	for _, o := range t.origins {
		rec.Steps = append(rec.Steps, imageanalysis.RecordStep{
			Text: o.text, Stage: o.stage.Name, Line: o.lines.Start, End: o.lines.End,
			Earlier: o.stage != s.plan.Target,
		})
	}
	return rec, nil
}

// warnNoCacheStages warns of stages of --no-cache-filter that the Dockerfile does not have.
func (b *builder) warnNoCacheStages() {
	for _, name := range b.opts.Cache.NoStages {
		there := slices.ContainsFunc(b.file.Targets(),
			func(t parser.Target) bool { return strings.EqualFold(t.Name, name) })
		n, err := strconv.Atoi(name)
		if !there && (err != nil || n < 0 || n >= len(b.file.Targets())) {
			b.sink(event.Warning{Message: fmt.Sprintf("--no-cache-filter %s has no effect: there is no such stage", name), Time: time.Now()})
		}
	}
}

// expect reports how much work there will be: the context, all steps with their bases, the image
// and the outputs.
func (b *builder) expect(ctx context.Context, solvers []*solver) {
	work := 1 + len(b.opts.Outputs) + len(b.opts.Cache.To)
	if b.opts.WantsImage() {
		work++
	}
	for _, s := range solvers {
		for _, st := range s.needed(ctx) {
			work += st.Total
			switch st.Base.(type) {
			case parser.ImageInput, parser.ContextInput:
				work++
			}
		}
	}
	b.sink(event.Expect{Work: work, Time: time.Now()})
}

// planOptions returns the options of the plan for one platform. A check without a target covers all
// stages.
func (b *builder) planOptions(p ocispec.Platform, lint parser.LintOptions) parser.PlanOptions {
	return parser.PlanOptions{
		BuildArgs: b.opts.Args, Target: b.opts.Target, Labels: b.opts.Image.Labels, Platform: p,
		Contexts: slices.Sorted(maps.Keys(b.opts.Source.Contexts)),
		Ignore:   b.context.Tree().Ignore(), Lint: lint,
		AllStages: b.opts.Check && b.opts.Target == "",
	}
}

// plan makes the plan for one platform and checks it without running anything, so that mistakes in
// any instruction are found before the first command runs. It returns the solver, with the warnings
// of its plan, also with an error. Of several errors it returns the first one of the file.
func (b *builder) plan(ctx context.Context, p ocispec.Platform,
	lint parser.LintOptions) (*solver, error) {
	plan, err := b.file.Plan(b.planOptions(p, lint))
	if plan == nil {
		return nil, err
	}
	s := &solver{b: b, e: b.e, in: b.in, plan: plan}
	if err != nil {
		return s, err
	}
	s.prefetch, err = b.in.CheckPlan(ctx, plan, len(b.file.Targets()))
	if use := (*inputs.Error)(nil); errors.As(err, &use) {
		err = b.at(use.Lines, "", use.Err)
	}
	return s, err
}

// at adds the place in the Dockerfile to an error that has none. The place of a layers.Error is
// that of the instruction that made the layer.
func (b *builder) at(r parser.Range, step string, err error) error {
	var have *StepError
	var parsed *parser.Error
	if err == nil || errors.As(err, &have) || errors.As(err, &parsed) {
		return err
	}
	var layer *layers.Error
	if errors.As(err, &layer) {
		r, step = layer.Lines, ""
	}
	return &StepError{File: b.name, Range: r, Step: step, Err: err}
}

func (b *builder) warn(list []parser.Warning) {
	for _, w := range list {
		b.sink(event.Warning{Rule: w.Rule, Message: w.Msg, URL: w.URL, File: b.name,
			Line: w.Range.Start, Time: time.Now()})
	}
}

// setEpoch sets the epoch of the build: that of the options, or else said, which comes from a build
// argument or the Dockerfile.
func (b *builder) setEpoch(said *time.Time) {
	if b.opts.Image.Epoch == nil {
		b.opts.Image.Epoch = said
	}
	if b.opts.Image.Epoch != nil {
		seconds := b.opts.Image.Epoch.Unix()
		b.epoch, b.e.epoch = &seconds, &seconds
	}
}

// now returns the time of what is made now: the epoch, or else the clock's.
func (b *builder) now() time.Time {
	if b.opts.Image.Epoch != nil {
		return b.opts.Image.Epoch.UTC()
	}
	return time.Now().UTC()
}
