package imagebuild

import (
	"context"
	"errors"
	"time"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/outputs"
	"github.com/layerbuild/layerbuild/internal/runmount"
	"github.com/layerbuild/layerbuild/internal/store"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// attempt has the parts that are replaced when a build starts again because of a damaged blob.
type attempt struct {
	in     *inputs.Inputs
	sealer Sealer // of layers
	layers build.Layers
}

// repeat runs the plans of the Dockerfile with the name file. After an error about a damaged or
// missing blob it runs them again, which makes the lost results again. The next attempt finds all
// other results in the cache, including results of steps that ran because of --no-cache. The first
// attempt uses in and lazy.
func (b *builder) repeat(ctx context.Context, file string, plans []plan, w *outputs.Writer,
	in *inputs.Inputs, lazy *layers.Lazy) (outputs.Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	uploads := outputs.NewUploads(b.opts.Upload, &w.Options, w.Recipe)
	a := b.newAttempt(ctx, file, w, uploads, in, lazy)
	defer func() { // the layers of the last attempt
		cancel()
		a.sealer.Wait()
		uploads.Wait()
	}()
	b.repairs.begin()
	defer b.repairs.end()
	for {
		made, err := b.run(ctx, a, file, plans, w)
		if ctx.Err() != nil || !b.repairs.again(err, b.opts.Sink) {
			return made, located(file, err)
		}
		a.sealer.Wait()
		uploads.Wait()
		b.ran.Restarted()
		lazy = &layers.Lazy{}
		a = b.newAttempt(ctx, file, w, uploads, a.in.Again(lazy), lazy)
	}
}

// newAttempt returns an attempt. Its layers are sealed, and sent to registries, until ctx ends.
func (b *builder) newAttempt(ctx context.Context, file string, w *outputs.Writer,
	uploads *outputs.Uploads, in *inputs.Inputs, lazy *layers.Lazy) attempt {
	var checker *layers.Checker
	if b.opts.CheckLayers {
		checker = &layers.Checker{State: b.state, Lazy: lazy, Epoch: w.Options.Epoch}
		lazy.KeepOutlines = true // what is made for checks does not change what is checked
	}
	sealer, copies := b.parts.NewSealer(ctx, layers.SealerOptions{
		State: b.state, TempDir: b.tempdir, Lazy: lazy, Blocks: b.blocks,
		Format: w.Recipe.Format(w.Options.Epoch), Tables: b.opts.Analyze, Check: checker,
		Warn: func(l *layers.Layer, path, problem string) {
			b.opts.Sink(event.Warning{Message: path + ": " + problem, File: file,
				Line: l.Lines.Start, Time: time.Now()})
		},
		Begun:  func(g *store.Growing) { uploads.Begin(ctx, g) },
		Sealed: func(d ocispec.Descriptor) { uploads.Add(ctx, d) },
	})
	return attempt{in: in, sealer: sealer, layers: build.Layers{Sealer: sealer,
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

// run builds the targets of all platforms at once, and writes the images and the cache.
func (b *builder) run(ctx context.Context, a attempt, file string, plans []plan,
	w *outputs.Writer) (made outputs.Result, err error) {
	imports, err := importRecords(ctx, b.parts.Artifacts, &b.opts, plans)
	if err != nil {
		return made, err
	}
	e := build.New(build.Config{
		Parts: b.parts.Engine, Layers: a.layers, State: b.state, Imports: imports, Ran: &b.ran,
		Epoch: w.Options.Epoch, Jobs: b.opts.Jobs, Sink: b.opts.Sink,
	})
	defer func() { err = errors.Join(err, e.Close()) }()
	solvers := b.newSolvers(e, a, file, plans)
	expect(ctx, &b.opts, solvers)
	targets, err := solve(ctx, solvers)
	if err != nil {
		return made, err
	}

	built := make([]outputs.Built, len(plans))
	for i, p := range plans {
		built[i] = b.built(p, solvers[i], targets[i], w, a.layers.Lazy)
		if built[i].Record, err = record(ctx, file, a.in, p.plan, targets[i]); err != nil {
			return made, err
		}
	}
	if !b.opts.wantsFiles() && a.in.Postponed() {
		// An image is written from layers, but an imported result is unpacked to seal it again.
		a.sealer.Wait()
		a.in.Unneeded()
	}
	if made, err = w.Write(ctx, built); err != nil {
		return made, err
	}
	if err := exportRecords(ctx, b.state, &b.opts, solvers); err != nil {
		return made, err
	}
	if b.opts.Cache.Sync {
		if err := b.state.Sync(ctx); err != nil {
			return made, err
		}
	}
	b.opts.Sink(event.Result{Names: made.Names, Digest: made.Root.Digest.String(),
		Time: time.Now()})
	return made, nil
}

// newSolvers returns the solvers of the plans.
func (b *builder) newSolvers(e *build.Engine, a attempt, file string,
	plans []plan) []*build.Solver {
	o := build.SolverOptions{
		Inputs: a.in, Run: b.opts.run(), File: file,
		Mounter: &runmount.Mounter{
			Snapshots: b.state.Snapshots, Lazy: a.layers.Lazy, Secrets: b.secrets,
			Caches: b.cacheMounts, TempDir: b.tempdir.Make,
		},
		NoCache: build.NoCache{All: b.opts.Cache.No, Stages: b.opts.Cache.NoStages},
		Wants: build.Wants{
			Image: b.opts.WantsImage(), Files: b.opts.wantsFiles(), Tables: b.opts.Analyze,
			Export: len(b.opts.Cache.To) > 0, ExportAll: b.opts.Cache.exportsAll(),
		},
	}
	list := make([]*build.Solver, len(plans))
	for i, p := range plans {
		o.Label, o.Prefetch = p.label, p.prefetch
		list[i] = e.Solver(p.plan, o)
	}
	return list
}

// expect reports the number of pieces of work: the context, all steps with their bases, the image
// and the outputs.
func expect(ctx context.Context, o *Options, solvers []*build.Solver) {
	work := 1 + len(o.Outputs) + len(o.Cache.To)
	if o.WantsImage() {
		work++
	}
	for _, s := range solvers {
		work += s.Work(ctx)
	}
	o.Sink(event.Expect{Work: work, Time: time.Now()})
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
