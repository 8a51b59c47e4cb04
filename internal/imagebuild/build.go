package imagebuild

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/cachemount"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/internal/state"
)

// Parts are the parts that a build uses. Tests replace them.
type Parts struct {
	Engine     build.Parts
	BaseImages inputs.Images
	Artifacts  remotecache.Artifacts
	NewSealer  func(context.Context, layers.SealerOptions) (Sealer, build.CopySealer)
}

// Sealer makes the layers of a build. *layers.Sealer implements it.
type Sealer interface {
	build.Sealer
	// Wait waits until nothing is being sealed.
	Wait()
}

// DefaultParts returns the parts of a build that is not a test.
func DefaultParts(state *state.State, images *image.Resolver) Parts {
	return Parts{
		Engine: build.Parts{Snapshots: state.Snapshots, Records: state.Cache, LazyLayers: state,
			Images: images},
		BaseImages: images, Artifacts: images,
		NewSealer: func(ctx context.Context,
			o layers.SealerOptions) (Sealer, build.CopySealer) {
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
	res := &Result{}
	b, err := newBuilder(state, images, o, parts)
	if err == nil {
		err = errors.Join(b.withRemedy(b.build(ctx, res)), b.close(ctx))
	}
	return res, err
}

// builder holds what stays the same from the beginning of a build to its end.
type builder struct {
	state  *state.State
	images *image.Resolver
	parts  Parts
	opts   Options // with a Sink

	tempdir     *state.TempDir
	blocks      *layers.Blocks
	secrets     *secret.Store
	closeAgents func() error
	cacheMounts *cachemount.Store
	ran         build.Ran
	repairs     repairs
}

// newBuilder removes the temporary directories of builds that were killed, and returns a builder.
// The caller closes it.
func newBuilder(st *state.State, images *image.Resolver, o Options,
	parts Parts) (*builder, error) {
	if err := state.RemoveTempDirs(st.Root); err != nil {
		return nil, err
	}
	b := &builder{state: st, images: images, parts: parts, opts: o.withInlineCache(),
		tempdir: state.NewTempDir(st.Root), blocks: layers.NewBlocks(st)}
	if o.Sink == nil {
		o.Sink = event.Discard
	}
	b.opts.Sink = b.repairs.markDone(o.Sink)
	agents, closeAgents, err := secret.ServeKeys(o.SSH)
	if err != nil {
		return nil, fmt.Errorf("ssh agent: %w", err)
	}
	b.closeAgents = closeAgents
	b.secrets = &secret.Store{Secrets: o.Secrets, Agents: agents,
		Warn: func(message string) { warn(b.opts.Sink, message) }}
	b.cacheMounts = &cachemount.Store{Top: func() (string, error) { return st.Path(state.Mounts) },
		Empty: o.Cache.No, Lease: st.LeaseMount, FixType: st.FixType}
	return b, nil
}

// close removes the temporary files, and notes that the state has changed.
func (b *builder) close(ctx context.Context) error {
	if b.ran.Changed() {
		b.state.NoteUnsynced(ctx)
	}
	return errors.Join(b.blocks.Close(), b.tempdir.Close(), b.closeAgents())
}

// build performs the whole build, from the context to the outputs.
func (b *builder) build(ctx context.Context, res *Result) (err error) {
	b.state.SyncEarlier(ctx) // the sync may last longer than a build that has nothing to do
	lazy := &layers.Lazy{}
	in := b.newInputs(lazy)
	defer func() { err = errors.Join(err, in.Close()) }()

	file, err := openDockerfile(ctx, in, &b.opts)
	res.Dockerfile, res.Text, res.Warnings = file.name, file.text, file.warnings
	if err != nil {
		return err
	}
	res.Targets = file.parsed.Targets()
	if b.opts.ListTargets {
		return nil
	}

	plans, warnings, err := makePlans(ctx, file, in, &b.opts)
	res.Warnings = warnings
	if err != nil || b.opts.Check {
		return err
	}
	if b.opts.Outline {
		res.Outline = plans[0].plan.Outline()
		return nil
	}
	warnNoCacheStages(&b.opts, res.Targets)

	writer, err := b.newWriter(plans)
	if err != nil {
		return err
	}
	made, err := b.repeat(ctx, file.name, plans, writer, in, lazy)
	res.Root, res.Config, res.Names, res.Metadata = made.Root, made.Config, made.Names,
		made.Metadata
	return err
}

// newInputs returns the inputs of the build. The caller closes them.
func (b *builder) newInputs(lazy *layers.Lazy) *inputs.Inputs {
	var once sync.Once
	notice := func(path string) {
		once.Do(func() {
			warn(b.opts.Sink, fmt.Sprintf("the state directory is in the build context (%s): the "+
				"build leaves the directory out of the context. Name it in .dockerignore, or "+
				"choose another state directory with --root", path))
		})
	}
	return inputs.New(inputs.Options{
		Images: b.parts.BaseImages, Snapshots: b.state.Snapshots, Remote: b.state.Cache,
		Lazy: lazy, Secrets: b.secrets, Sink: b.opts.Sink, TempDir: b.tempdir.Path,
		Index: func() (source.IndexPlace, error) {
			dir, err := b.state.Path(state.Indexes)
			return source.IndexPlace{Dir: dir, Temp: b.state.Cache.Temp()}, err
		},
		Own:      source.OwnState{Dir: b.state.Root, Holds: state.Holds, Notice: notice},
		Contexts: b.opts.Source.Contexts, Pull: b.opts.Pull, Local: b.opts.NoPull,
		KeepGitDir: b.opts.keepGitDir(),
	})
}

// withRemedy adds the remedy to an error about a full disk. Of an error with a StepError it returns
// only that, with the remedy in its Err, which is printed below the lines of the step.
func (b *builder) withRemedy(err error) error {
	var step *build.StepError
	if !errors.As(err, &step) {
		return state.Full(b.state.Root, err)
	}
	with := *step // the events have step
	with.Err = state.Full(b.state.Root, step.Err)
	return &with
}

// warn sends a warning that is not about a line of the Dockerfile.
func warn(sink event.Sink, message string) {
	sink(event.Warning{Message: message, Time: time.Now()})
}
