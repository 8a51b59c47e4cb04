package imagebuild

import (
	"context"
	"errors"
	"time"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/outputs"
	"github.com/layerbuild/layerbuild/internal/runmount"
	"github.com/layerbuild/layerbuild/internal/store"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// attempt has the parts of a build that are replaced when the builds start again because of a
// damaged blob.
type attempt struct {
	sealer  Sealer // of layers
	layers  build.Layers
	engine  *build.Engine
	solvers []*build.Solver // one for each plan
}

// repeat runs the plans. After an error about a damaged or missing blob it runs them again, which
// makes the lost results again. The next attempt finds all other results in the cache, including
// results of steps that ran because of --no-cache. The first attempt uses lazy.
func (a *batch) repeat(ctx context.Context, lazy *layers.Lazy) error {
	ctx, cancel := context.WithCancel(ctx)
	shared := &layers.Sealings{}
	for _, b := range a.running() {
		b.shared = newShared(&b.opts, b.file.name)
		b.uploads = outputs.NewUploads(b.opts.Upload, &b.writer.Options, b.writer.Recipe)
		b.seal(ctx, lazy, shared)
	}
	defer func() { // the layers of the last attempt
		cancel()
		a.wait()
		a.closeShared()
		a.saveAccounts()
	}()
	a.repairs.begin()
	defer a.repairs.end()
	for {
		err := a.run(ctx)
		if ctx.Err() != nil || !a.repairs.again(err, a.running()[0].opts.Sink) {
			if err != nil {
				a.finishShared(ctx) // the steps before the one that failed
			}
			return err
		}
		a.wait()
		a.reject(err)
		a.ran.Restarted()
		lazy, shared = &layers.Lazy{}, &layers.Sealings{}
		for _, b := range a.running() {
			b.in = b.in.Again(lazy)
			b.seal(ctx, lazy, shared)
		}
	}
}

// reject makes the shared caches leave out the layer of an *layers.ImportError.
func (a *batch) reject(err error) {
	bad, ok := errors.AsType[*layers.ImportError](err)
	if !ok {
		return
	}
	for _, b := range a.running() {
		for _, s := range b.shared {
			s.Reject(bad.Layer)
		}
	}
}

// wait waits until no layers are sealed or sent.
func (a *batch) wait() {
	for _, b := range a.running() {
		b.attempt.sealer.Wait()
		b.uploads.Wait()
	}
}

// seal begins an attempt. Its layers are sealed, and sent to registries, until ctx ends.
func (b *builder) seal(ctx context.Context, lazy *layers.Lazy, shared *layers.Sealings) {
	all, w := b.all, b.writer
	var checker *layers.Checker
	if b.opts.CheckLayers {
		checker = &layers.Checker{State: all.state, Lazy: lazy, Epoch: w.Options.Epoch}
		lazy.KeepOutlines = true // what is made for checks does not change what is checked
	}
	sealer, copies := all.parts.NewSealer(ctx, layers.SealerOptions{
		State: all.state, TempDir: all.tempdir, Lazy: lazy, Blocks: all.blocks, Shared: shared,
		Format: w.Recipe.Format(w.Options.Epoch), Tables: b.opts.Analyze, Check: checker,
		Warn: func(l *layers.Layer, path, problem string) {
			b.opts.Sink(event.Warning{Message: path + ": " + problem, File: b.file.name,
				Line: l.Lines.Start, Time: time.Now()})
		},
		Begun:  func(g *store.Growing) { b.uploads.Begin(ctx, g) },
		Sealed: func(d ocispec.Descriptor) { b.uploads.Add(ctx, d) },
	})
	b.attempt = attempt{sealer: sealer, layers: build.Layers{Sealer: sealer,
		Directories: copies, Outlines: copies, Lazy: lazy, Checker: checker}}
}

// located adds the position of the instruction to an error about its layer.
func located(file string, err error) error {
	var layer *layers.Error
	if errors.As(err, &layer) {
		return build.At(file, layer.Lines, "", err)
	}
	return err
}

// newEngine makes the engine and the solvers of an attempt. The caller closes the engine.
func (b *builder) newEngine(ctx context.Context, shared *build.Shared) (*build.Engine, error) {
	all := b.all
	imports, err := importRecords(ctx, all.parts.Artifacts, &b.opts, b.plans, b.shared)
	if err != nil {
		return nil, err
	}
	e := build.New(build.Config{
		Parts: all.parts.Engine, Layers: b.attempt.layers, State: all.state, Imports: imports,
		Ran: &all.ran, Epoch: b.writer.Options.Epoch, Shared: shared, Sink: b.opts.Sink,
		NotBefore: b.opts.Cache.notBefore(),
	})
	b.attempt.engine = e
	b.setSolvers(ctx)
	return e, nil
}

// run runs all builds at once.
func (a *batch) run(ctx context.Context) (err error) {
	shared := build.NewShared(a.jobs)
	for _, b := range a.running() {
		e, err1 := b.newEngine(ctx, shared)
		if err1 != nil {
			return b.failed(err1)
		}
		defer func() { err = errors.Join(err, e.Close()) }()
	}
	a.expect(ctx)
	g, gctx := errgroup.WithContext(ctx)
	for _, b := range a.running() {
		g.Go(func() error {
			if b.made != nil { // in an earlier attempt
				return nil
			}
			return b.failed(located(b.file.name, b.run(gctx)))
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, b := range a.running() {
		if b.opts.Cache.Sync {
			if err := a.state.Sync(ctx); err != nil {
				return err
			}
			break
		}
	}
	a.finishShared(ctx)
	a.warnUnknownMounts()
	for _, b := range a.running() {
		b.opts.Sink(event.Result{Names: b.made.Names, Digest: b.made.Root.Digest.String(),
			Time: time.Now()})
	}
	return nil
}

// run builds the target for all platforms at once, and writes the image and the cache.
func (b *builder) run(ctx context.Context) error {
	a := &b.attempt
	targets, err := solve(ctx, a.solvers)
	if err != nil {
		return err
	}
	built := make([]outputs.Built, len(b.plans))
	for i, p := range b.plans {
		built[i] = b.built(p, a.solvers[i], targets[i])
		built[i].Record, err = record(ctx, b.file.name, b.in, p.plan, targets[i])
		if err != nil {
			return err
		}
		err = b.attester.attested(ctx, p, a.solvers[i], targets[i], &built[i])
		if err != nil {
			return err
		}
	}
	if !b.opts.wantsFiles() && b.in.Postponed() {
		// An image is written from layers, but an imported result is unpacked to seal it again.
		a.sealer.Wait()
		b.in.Unneeded()
	}
	made, err := b.writer.Write(ctx, built)
	if err != nil {
		return err
	}
	if err := exportRecords(ctx, b.all.state, &b.opts, a.solvers); err != nil {
		return err
	}
	b.made = &made
	return nil
}

// setSolvers sets the solvers of the plans.
func (b *builder) setSolvers(ctx context.Context) {
	all, a := b.all, &b.attempt
	o := build.SolverOptions{
		Inputs: b.in, Run: b.opts.run(), File: b.file.name, Linked: b.linkedSolver(),
		Mounter: &runmount.Mounter{
			Snapshots: all.state.Snapshots, Lazy: a.layers.Lazy, Secrets: b.secrets,
			Caches: b.cacheMounts, TempDir: all.tempdir.Make,
		},
		Account: b.account, Publish: b.publish(ctx),
		NoCache: build.NoCache{All: b.opts.Cache.No, Stages: b.opts.Cache.NoStages},
		Wants: build.Wants{
			Image: b.opts.WantsImage(), Tables: b.opts.Analyze,
			Files:     b.opts.wantsFiles() || b.isLinked(),
			Export:    len(b.opts.Cache.To) > 0 || b.opts.Cache.writesShared(),
			ExportAll: b.opts.Cache.exportsAll(), SealAll: b.opts.Cache.writesShared(),
		},
	}
	a.solvers = make([]*build.Solver, len(b.plans))
	for i, p := range b.plans {
		o.Label, o.Prefetch = p.label, p.prefetch
		a.solvers[i] = a.engine.Solver(p.plan, o)
	}
}

// expect reports the number of pieces of work: the contexts, all steps with their bases, the images
// and the outputs.
func (a *batch) expect(ctx context.Context) {
	work := 0
	for _, b := range a.running() {
		o := &b.opts
		work += 1 + len(o.Outputs) + len(o.Cache.To)
		for _, c := range o.Cache.Shared {
			if !c.Place.ReadOnly {
				work++
			}
		}
		if o.WantsImage() {
			work++
		}
		for _, s := range b.attempt.solvers {
			work += s.Work(ctx)
		}
	}
	a.running()[0].opts.Sink(event.Expect{Work: work, Time: time.Now()})
}

// solve builds the targets of all platforms at once.
func solve(ctx context.Context, solvers []*build.Solver) ([]build.Target, error) {
	targets := make([]build.Target, len(solvers))
	g, ctx := errgroup.WithContext(ctx)
	for i, s := range solvers {
		g.Go(func() (err error) {
			targets[i], err = s.Solve(ctx)
			return err
		})
	}
	return targets, g.Wait()
}
