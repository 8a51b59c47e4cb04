package imagebuild

import (
	"context"
	"errors"
	"time"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/state"
	"golang.org/x/sync/errgroup"
)

// BuildAll runs several builds together. Of equal steps of different builds one runs, and the
// layers that the images have in common are made once. Options.Name names a build. A named context
// with the value target:NAME is the result of the build with that name. The first error ends all
// builds; that of a build is a *TargetError if there are several. The results are those of list, in
// its order, and like those of Build.
func BuildAll(ctx context.Context, state *state.State, images *image.Resolver,
	list []Options) ([]*Result, error) {
	return BuildAllWith(ctx, state, images, list, DefaultParts(state, images))
}

// BuildAllWith is like BuildAll, with the given parts.
func BuildAllWith(ctx context.Context, state *state.State, images *image.Resolver, list []Options,
	parts Parts) ([]*Result, error) {
	res := make([]*Result, len(list))
	for i := range res {
		res[i] = &Result{}
	}
	a, err := newBatch(state, images, list, parts)
	if err == nil {
		err = errors.Join(a.withRemedy(a.build(ctx, res)), a.close(ctx))
	}
	return res, err
}

// TargetError is the error of one of several builds.
type TargetError struct {
	Name string // of the build
	Err  error
}

// Error returns the text of Err with the name of the build.
func (e *TargetError) Error() string { return "target " + e.Name + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *TargetError) Unwrap() error { return e.Err }

// batch holds what builds that run together have in common, from their beginning to their end.
type batch struct {
	state    *state.State
	images   *image.Resolver
	parts    Parts
	jobs     int // see Options.Jobs
	tempdir  *state.TempDir
	blocks   *layers.Blocks
	ran      build.Ran
	repairs  repairs
	builders []*builder
	began    time.Time
}

// newBatch removes the temporary directories of builds that were killed, and returns a batch. The
// caller closes it.
func newBatch(st *state.State, images *image.Resolver, list []Options,
	parts Parts) (*batch, error) {
	if err := state.RemoveTempDirs(st.Root); err != nil {
		return nil, err
	}
	a := &batch{state: st, images: images, parts: parts, tempdir: state.NewTempDir(st.Root),
		began:  time.Now(),
		blocks: layers.NewBlocks(st)}
	for _, o := range list {
		a.jobs = max(a.jobs, o.Jobs)
		b, err := newBuilder(a, o)
		if err != nil {
			return nil, errors.Join(err, a.closeAll())
		}
		a.builders = append(a.builders, b)
	}
	return a, nil
}

// close removes the temporary files, and notes that the state has changed.
func (a *batch) close(ctx context.Context) error {
	if a.ran.Changed() {
		a.state.NoteUnsynced(ctx)
	}
	return a.closeAll()
}

func (a *batch) closeAll() error {
	errs := []error{a.blocks.Close(), a.tempdir.Close()}
	for _, b := range a.builders {
		errs = append(errs, b.closeAgents())
	}
	return errors.Join(errs...)
}

// build performs the whole builds, from the contexts to the outputs.
func (a *batch) build(ctx context.Context, res []*Result) (err error) {
	a.state.SyncEarlier(ctx) // the sync may last longer than a build that has nothing to do
	lazy := &layers.Lazy{}
	for _, b := range a.builders {
		b.in = b.newInputs(lazy)
		defer func() { err = errors.Join(err, b.in.Close()) }()
	}
	if err := a.checkLinks(); err != nil {
		return err
	}
	if err := a.prepare(ctx, res); err != nil {
		return err
	}
	if len(a.running()) == 0 {
		return a.previews(ctx, lazy, res)
	}
	err = a.repeat(ctx, lazy)
	for i, b := range a.builders {
		if b.made != nil {
			res[i].Root, res[i].Config, res[i].Names, res[i].Metadata = b.made.Root,
				b.made.Config, b.made.Names, b.made.Metadata
			res[i].Absent = b.made.Absent > 0
		}
	}
	return err
}

// prepare reads the Dockerfiles and makes the plans, all at once. A plan is made after those of the
// builds to which it is linked.
func (a *batch) prepare(ctx context.Context, res []*Result) error {
	index := map[*builder]int{}
	for i, b := range a.builders {
		index[b] = i
	}
	var prepared memo.Map[*builder, struct{}]
	var prepare func(ctx context.Context, b *builder) error
	prepare = func(ctx context.Context, b *builder) error {
		_, err := prepared.Do(ctx, b, func() (struct{}, error) {
			r := res[index[b]]
			if err := b.read(ctx, r); err != nil || b.opts.ListTargets {
				return struct{}{}, b.failed(err)
			}
			for _, other := range b.links() {
				if err := prepare(ctx, other); err != nil {
					return struct{}{}, err
				}
			}
			return struct{}{}, b.failed(b.plan(ctx, r))
		})
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, b := range a.builders {
		g.Go(func() error { return prepare(gctx, b) })
	}
	return g.Wait()
}

// running returns the builds that run steps, and do not end after the plan.
func (a *batch) running() []*builder {
	var list []*builder
	for _, b := range a.builders {
		if b.runs() {
			list = append(list, b)
		}
	}
	return list
}

// runs reports whether the build runs steps.
func (b *builder) runs() bool {
	return !b.opts.ListTargets && !b.opts.Check && !b.opts.Outline && !b.opts.Preview
}

// failed returns the error of the build as a *TargetError if there are several builds.
func (b *builder) failed(err error) error {
	if err == nil || len(b.all.builders) == 1 || errors.As(err, new(*TargetError)) {
		return err
	}
	return &TargetError{b.opts.Name, err}
}

// withRemedy adds the remedy to an error about a full disk. Of an error with a StepError it returns
// only that, with the remedy in its Err, which is printed below the lines of the step.
func (a *batch) withRemedy(err error) error {
	var step *build.StepError
	if !errors.As(err, &step) {
		return state.Full(a.state.Root, err)
	}
	with := *step // the events have step
	with.Err = state.Full(a.state.Root, step.Err)
	if target, ok := errors.AsType[*TargetError](err); ok {
		return &TargetError{target.Name, &with}
	}
	return &with
}
