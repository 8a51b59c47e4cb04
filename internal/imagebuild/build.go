package imagebuild

import (
	"cmp"
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
	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/cachemount"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageanalysis"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/outputs"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/runmount"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// builder holds the state that the platforms of one build share.
type builder struct {
	state   *state.State
	images  *image.Resolver
	opts    Options
	sink    event.Sink
	context *source.Context
	file    *parser.File
	name    string // the Dockerfile's name, for messages

	parts       Parts
	secrets     *secret.Store
	cacheMounts *cachemount.Store
	ran         build.Ran
	// ctx ends when Build returns. It is stored because layers are sealed and sent while steps run,
	// by goroutines that continue after the call that starts them.
	ctx     context.Context
	uploads *outputs.Uploads
	recipe  outputs.Recipe // recipe of the image in the store
	tempdir *state.TempDir
	blocks  *layers.Blocks
	// epoch is set with recipe, when the Dockerfile has been read; nil keeps real times.
	epoch *time.Time

	// The following fields are replaced when the build starts again because of a damaged blob.
	sealer      build.Sealer // nil before the plan is made
	directories build.DirectorySealer
	in          *inputs.Inputs
	lazy        *layers.Lazy
	checker     *layers.Checker // nil: layers are not checked

	ownNotice sync.Once
	repairs   repairs

	mu      sync.Mutex
	closers []io.Closer
}

// plan is the plan of one platform.
type plan struct {
	plan     *parser.Plan
	prefetch []inputs.Use  // images that are unpacked while the first steps run
	label    string        // prefix of the names of steps if there are several platforms
	solver   *build.Solver // replaced when the build starts again
}

// Parts are the parts that a build uses. Tests replace them.
type Parts struct {
	Engine     build.Parts
	BaseImages inputs.Images
	Artifacts  remotecache.Artifacts
	NewSealer  func(context.Context, layers.SealerOptions) (build.Sealer, build.DirectorySealer)
}

// DefaultParts returns the parts of a build that is not a test.
func DefaultParts(state *state.State, images *image.Resolver) Parts {
	return Parts{
		Engine:     build.Parts{Snapshots: state.Snapshots, Records: state.Cache, Images: images},
		BaseImages: images, Artifacts: images,
		NewSealer: func(ctx context.Context,
			o layers.SealerOptions) (build.Sealer, build.DirectorySealer) {
			s := layers.NewSealer(ctx, o)
			return s, s
		},
	}
}

// Build builds an image. The Result is never nil. It has the name and text of the Dockerfile as
// soon as they are known, even if an error is returned. An error of an instruction is a
// *build.StepError or a *parser.Error.
func Build(ctx context.Context, state *state.State, images *image.Resolver,
	o Options) (*Result, error) {
	return BuildWith(ctx, state, images, o, DefaultParts(state, images))
}

// BuildWith is like Build, with the given parts.
func BuildWith(ctx context.Context, state *state.State, images *image.Resolver, o Options,
	parts Parts) (*Result, error) {
	if o.Sink == nil {
		o.Sink = event.Discard
	}
	b := &builder{state: state, images: images, opts: o, parts: parts, lazy: &layers.Lazy{}}
	b.sink = b.repairs.marking(o.Sink)
	b.opts.Sink = b.sink
	if b.inlineCache() {
		b.opts.Cache.To = append(slices.Clone(b.opts.Cache.To), remotecache.Place{Type: "inline"})
	}
	return b.run(ctx)
}

// run builds the image.
func (b *builder) run(ctx context.Context) (res *Result, err error) {
	warn := func(message string) { b.sink(event.Warning{Message: message, Time: time.Now()}) }
	b.secrets = &secret.Store{Secrets: b.opts.Secrets, Agents: b.opts.SSH, Warn: warn}
	res = &Result{}
	if err := b.makeTempDir(); err != nil {
		return res, err
	}
	b.blocks = layers.NewBlocks(b.state)
	b.closeLater(b.blocks)
	b.in = b.newInputs()
	b.closeLater(b.in)
	var cancel context.CancelFunc
	b.ctx, cancel = context.WithCancel(ctx)
	defer func() { cancel(); err = errors.Join(err, b.close(ctx)) }()
	b.cacheMounts = &cachemount.Store{Top: func() (string, error) { return b.state.Path("mounts") },
		Empty: b.opts.Cache.No, Lease: b.state.LeaseMount, Settle: b.state.Settle}
	b.state.SyncEarlier(ctx) // the sync may last longer than a build that has nothing to do
	if err := b.open(b.ctx, res); err != nil {
		return res, err
	}
	if res.Targets = b.file.Targets(); b.opts.ListTargets {
		return res, nil
	}
	err = b.build(b.ctx, res)
	var layer *layers.Error
	if errors.As(err, &layer) {
		err = build.At(b.name, layer.Lines, "", err)
	}
	return res, b.full(err)
}

// full adds the remedy to an error about a full disk. It changes the error inside a StepError,
// which keeps its position in the Dockerfile.
func (b *builder) full(err error) error {
	var step *build.StepError
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
// order. ctx is that of the caller of the build, since b.ctx has ended.
func (b *builder) close(ctx context.Context) error {
	b.waitForLayers()
	if b.ran.Changed() {
		b.state.NoteUnsynced(ctx)
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
		Images: b.parts.BaseImages, Snapshots: b.state.Snapshots,
		Remote: b.state.Cache, Lazy: b.lazy,
		Secrets: b.secrets, Sink: b.sink,
		TempDir: b.tempdir.Path,
		Index: func() (source.IndexPlace, error) {
			dir, err := b.state.Path("context")
			return source.IndexPlace{Dir: dir, Temp: b.state.Cache.Temp()}, err
		},
		Own:      source.OwnState{Dir: b.state.Root, Holds: state.Holds, Notice: b.noticeOwn},
		Contexts: b.opts.Source.Contexts, Pull: b.opts.Pull, KeepGitDir: b.keepGitDir(),
	})
}

// newSealer creates the sealer for the layers of the image in the store.
func (b *builder) newSealer() {
	b.checker = nil
	if b.opts.CheckLayers {
		b.checker = &layers.Checker{State: b.state, Lazy: b.lazy, Epoch: b.epoch}
	}
	b.sealer, b.directories = b.parts.NewSealer(b.ctx, layers.SealerOptions{
		State: b.state, TempDir: b.tempdir, Lazy: b.lazy, Format: b.recipe.Format(b.epochSeconds()),
		Blocks: b.blocks,
		Tables: b.opts.Analyze, Check: b.checker,
		Warn: func(l *layers.Layer, path, problem string) {
			b.sink(event.Warning{Message: path + ": " + problem, File: b.name,
				Line: l.Lines.Start, Time: time.Now()})
		},
		Sealed: func(d ocispec.Descriptor) { b.uploads.Add(b.ctx, d) },
	})
}

// waitForLayers waits until no layer is being sealed or sent.
func (b *builder) waitForLayers() {
	if b.sealer != nil {
		b.sealer.Wait()
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
		platforms = []ocispec.Platform{{}} // the host's platform
	}
	if b.opts.Check {
		platforms = platforms[:1] // only one, as in BuildKit
	}
	plans := make([]*plan, len(platforms))
	for i, p := range platforms {
		lint := b.opts.Lint
		lint.Off = i > 0 // the findings would be repeated
		made, err := b.plan(ctx, p, lint)
		if i == 0 && made != nil {
			res.Warnings = made.plan.Warnings()
			b.warn(res.Warnings)
		}
		if err != nil {
			return err
		}
		if len(platforms) > 1 {
			made.label = parser.FormatPlatform(made.plan.Target.Platform) + " "
		}
		plans[i] = made
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
	// that of the command line, or else of a build argument or the Dockerfile
	b.epoch = cmp.Or(b.opts.Image.Epoch, plans[0].plan.Epoch)
	o := b.opts.outputs()
	o.InlineCache, o.Epoch = b.exportsInline(), b.epoch
	b.recipe = o.StoreRecipe()
	b.uploads = outputs.NewUploads(b.opts.Upload, &o, b.recipe)
	b.newSealer()
	o.Warn(b.sink)
	writer := &outputs.Writer{State: b.state, Images: b.images, Options: o, Recipe: b.recipe,
		Exporters: exporters, Sink: b.sink}
	return b.repairing(ctx, res, func() error {
		return b.solve(ctx, res, plans, writer)
	})
}

// solve builds the targets of all platforms at once and writes the image.
func (b *builder) solve(ctx context.Context, res *Result, plans []*plan,
	writer *outputs.Writer) error {
	imports, err := b.importRecords(ctx, plans)
	if err != nil {
		return err
	}
	e := b.newEngine(imports)
	b.closeLater(e)
	for _, p := range plans {
		o := b.solverOptions()
		o.Label, o.Prefetch = p.label, p.prefetch
		p.solver = e.Solver(p.plan, o)
	}
	b.expect(ctx, plans)
	targets := make([]build.Target, len(plans))
	g, gctx := errgroup.WithContext(ctx)
	for i, p := range plans {
		g.Go(func() (err error) {
			targets[i], err = p.solver.Solve(gctx)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return b.finish(ctx, res, plans, targets, writer)
}

// newEngine returns an engine for the steps of all platforms.
func (b *builder) newEngine(imports *remotecache.Imports) *build.Engine {
	return build.New(build.Config{
		Parts: b.parts.Engine,
		Layers: build.Layers{Sealer: b.sealer, Directories: b.directories, Lazy: b.lazy,
			Checker: b.checker},
		State: b.state, Imports: imports, Ran: &b.ran, Epoch: b.epochSeconds(), Sink: b.sink,
	})
}

// solverOptions returns the options that the solvers of all platforms share.
func (b *builder) solverOptions() build.SolverOptions {
	return build.SolverOptions{
		Inputs: b.in, Mounter: b.mounter(), Run: b.runOptions(), File: b.name,
		NoCache: build.NoCache{All: b.opts.Cache.No, Stages: b.opts.Cache.NoStages},
		Wants: build.Wants{
			Image: b.opts.WantsImage(), Files: b.opts.wantsFiles(), Tables: b.opts.Analyze,
			Export: len(b.opts.Cache.To) > 0, ExportAll: b.exportsAll(),
		},
	}
}

// mounter returns the Mounter for the mounts of RUNs.
func (b *builder) mounter() *runmount.Mounter {
	return &runmount.Mounter{
		Snapshots: b.parts.Engine.Snapshots, Lazy: b.lazy, Secrets: b.secrets,
		Caches:  b.cacheMounts,
		TempDir: b.tempdir.Make,
	}
}

// finish writes the images and exports the results.
func (b *builder) finish(ctx context.Context, res *Result, plans []*plan, targets []build.Target,
	writer *outputs.Writer) error {
	built := make([]outputs.Built, len(targets))
	for i, t := range targets {
		var err error
		if built[i], err = b.built(ctx, plans[i], t); err != nil {
			return err
		}
	}
	wrote, err := writer.Write(ctx, built)
	res.Root, res.Config, res.Names, res.Metadata = wrote.Root, wrote.Config,
		wrote.Names, wrote.Metadata
	if err != nil {
		return err
	}
	if err := b.exportRecords(ctx, plans); err != nil {
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

// built returns the result of a plan. t is its target.
func (b *builder) built(ctx context.Context, p *plan, t build.Target) (outputs.Built, error) {
	record, err := b.record(ctx, p.plan, t)
	lazy := b.lazy
	out := outputs.Built{
		Platform: p.plan.Target.Platform, Config: t.Config, Layers: t.Layers, Record: record,
		Files: func(ctx context.Context, w io.Writer) error {
			return layers.WriteFiles(ctx, w, b.state, lazy, t.Top, b.epoch)
		},
	}
	if b.exportsInline() {
		out.Records = func(ctx context.Context) (remotecache.Document, error) {
			return p.solver.Records(ctx, false)
		}
	}
	return out, err
}

// record returns the record of an image: the lines of the Dockerfile that made the entries of its
// history.
func (b *builder) record(ctx context.Context, plan *parser.Plan,
	t build.Target) (imageanalysis.Record, error) {
	rec := imageanalysis.Record{Dockerfile: b.name}
	own := plan.ImageStages()
	first := own[len(own)-1]
	in, ok := first.Base.(parser.ImageInput)
	if c, context := first.Base.(parser.ContextInput); context {
		in, ok = b.in.ContextImage(c)
	}
	if ok {
		img, err := b.in.Resolve(ctx, in)
		if err != nil {
			return rec, err
		}
		rec.Base = imageanalysis.RecordedBase{Name: img.Name,
			Digest: img.Descriptor.Digest.String(), Layers: len(img.Manifest.Layers),
			History: len(img.Config.History)}
	}
	for _, o := range t.Origins {
		rec.Steps = append(rec.Steps, imageanalysis.RecordStep{
			Text: o.Text, Stage: o.Stage.Name, Line: o.Lines.Start, End: o.Lines.End,
			Earlier: o.Stage != plan.Target,
		})
	}
	return rec, nil
}

// warnNoCacheStages warns about stages of --no-cache-filter that the Dockerfile does not have.
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

// expect reports the number of pieces of work: the context, all steps with their bases, the image
// and the outputs.
func (b *builder) expect(ctx context.Context, plans []*plan) {
	work := 1 + len(b.opts.Outputs) + len(b.opts.Cache.To)
	if b.opts.WantsImage() {
		work++
	}
	for _, p := range plans {
		work += p.solver.Work(ctx)
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
// any instruction are found before the first command runs. It returns the plan, with its warnings,
// even if it returns an error. Of several errors it returns the first one in the file.
func (b *builder) plan(ctx context.Context, p ocispec.Platform,
	lint parser.LintOptions) (*plan, error) {
	made, err := b.file.Plan(b.planOptions(p, lint))
	if made == nil {
		return nil, err
	}
	s := &plan{plan: made}
	if err != nil {
		return s, err
	}
	s.prefetch, err = b.in.CheckPlan(ctx, made, len(b.file.Targets()))
	if use := (*inputs.Error)(nil); errors.As(err, &use) {
		err = build.At(b.name, use.Lines, "", use.Err)
	}
	return s, err
}

func (b *builder) warn(list []parser.Warning) {
	for _, w := range list {
		b.sink(event.Warning{Rule: w.Rule, Message: w.Msg, URL: w.URL, File: b.name,
			Line: w.Range.Start, Time: time.Now()})
	}
}

// epochSeconds returns the epoch of the build in seconds since 1970; nil: real times.
func (b *builder) epochSeconds() *int64 {
	if b.epoch == nil {
		return nil
	}
	seconds := b.epoch.Unix()
	return &seconds
}

// noticeOwn warns, once, that a context contains the state directory.
func (b *builder) noticeOwn(path string) {
	b.ownNotice.Do(func() {
		b.sink(event.Warning{Message: fmt.Sprintf("the state directory is in the build context (%s): it is left out. Name it in .dockerignore, or choose another place with --root", path)})
	})
}
