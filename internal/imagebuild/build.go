package imagebuild

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/cachemount"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/outputs"
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
	res, err := BuildAllWith(ctx, state, images, []Options{o}, parts)
	return res[0], err
}

// builder is one of the builds of a batch.
type builder struct {
	all  *batch
	opts Options // with a Sink

	secrets     *secret.Store
	closeAgents func() error
	cacheMounts *cachemount.Store

	attester *attester
	account  *build.Account

	// The following are set in this order.
	in      *inputs.Inputs
	file    dockerfile
	plans   []plan
	writer  *outputs.Writer
	uploads *outputs.Uploads
	attempt attempt
	shared  []*remotecache.Shared
	made    *outputs.Result // nil until the outputs are written
}

// newBuilder returns a builder. The caller closes it.
func newBuilder(all *batch, o Options) (*builder, error) {
	b := &builder{all: all, opts: o.withInlineCache()}
	b.attester, b.account = newAttester(b), b.newAccount()
	if o.Sink == nil {
		o.Sink = event.Discard
	}
	b.opts.Sink = all.repairs.markDone(o.named(o.Sink))
	agents, closeAgents, err := secret.ServeKeys(o.SSH)
	if err != nil {
		return nil, fmt.Errorf("ssh agent: %w", err)
	}
	b.closeAgents = closeAgents
	b.secrets = &secret.Store{Secrets: o.Secrets, Agents: agents,
		Warn: func(message string) { warn(b.opts.Sink, message) }}
	st := all.state
	b.cacheMounts = &cachemount.Store{Top: func() (string, error) { return st.Path(state.Mounts) },
		Empty: o.Cache.No, Lease: st.LeaseMount, FixType: st.FixType}
	if b.copiesMounts() {
		b.cacheMounts.Copies = mountCopies{b}
	}
	return b, nil
}

// read opens the context and parses the Dockerfile.
func (b *builder) read(ctx context.Context, res *Result) (err error) {
	b.file, err = openDockerfile(ctx, b.in, &b.opts)
	res.Dockerfile, res.Text, res.Warnings = b.file.name, b.file.text, b.file.warnings
	if err == nil {
		res.Targets = b.file.parsed.Targets()
	}
	return err
}

// plan makes the plans. Those of the builds to which it is linked have been made.
func (b *builder) plan(ctx context.Context, res *Result) (err error) {
	b.plans, res.Warnings, err = makePlans(ctx, b.file, b.in, &b.opts)
	if err != nil || b.opts.Check {
		return err
	}
	if b.opts.Outline {
		res.Outline = b.plans[0].plan.Outline()
		return nil
	}
	warnNoCacheStages(&b.opts, res.Targets)
	if !b.opts.Preview {
		if err := b.attester.check(ctx); err != nil {
			return err
		}
	}
	b.writer, err = b.newWriter()
	return err
}

// newInputs returns the inputs of the build. The caller closes them.
func (b *builder) newInputs(lazy *layers.Lazy) *inputs.Inputs {
	all := b.all
	var once sync.Once
	notice := func(path string) {
		once.Do(func() {
			warn(b.opts.Sink, fmt.Sprintf("the state directory is in the build context (%s): the "+
				"build leaves the directory out of the context. Name it in .dockerignore, or "+
				"choose another state directory with --root", path))
		})
	}
	return inputs.New(inputs.Options{
		Images: all.parts.BaseImages, Snapshots: all.state.Snapshots, Remote: all.state.Cache,
		Lazy: lazy, Secrets: b.secrets, Sink: b.opts.Sink, TempDir: all.tempdir.Path,
		Index: func() (source.IndexPlace, error) {
			dir, err := all.state.Path(state.Indexes)
			return source.IndexPlace{Dir: dir, Temp: all.state.Cache.Temp()}, err
		},
		Own:      source.OwnState{Dir: all.state.Root, Holds: state.Holds, Notice: notice},
		Contexts: b.opts.Source.Contexts, Linked: b.linkedConfig(),
		Pull: b.opts.Pull, Local: b.opts.NoPull, Accept: b.opts.Source.Accept,
		KeepGitDir: b.opts.keepGitDir(), Fetched: b.opts.Source.Fetched,
	})
}

// warn sends a warning that is not about a line of the Dockerfile.
func warn(sink event.Sink, message string) {
	sink(event.Warning{Message: message, Time: time.Now()})
}
