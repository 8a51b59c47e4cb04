package build

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageanalysis"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layer is a layer of an image to be: one of the base image's, which has a digest already, or one of ours, which gets
// it from the sealer.
type layer struct {
	base       *image.Image // nil: ours; also that of a single layer that came from elsewhere
	index      int          // in base
	descriptor ocispec.Descriptor
	diffID     digest.Digest

	snapshot  snapshot.ID
	unchanged bool // it is the layer without entries, whatever the snapshot is
	stage     string
	text      string
	lines     parser.Range

	sealed chan struct{} // closed when descriptor and diffID or err are set; nil: nobody seals it
	err    error
}

// sealer makes layers of snapshots, behind the build's back.
type sealer struct {
	b *builder
	// ctx is the whole build's: layers are sealed on when the stage that they are of is done. It is kept here because
	// the goroutines are not their caller's.
	ctx     context.Context
	options diff.Options
	name    string // of options, for the cache
	slots   chan struct{}
	wg      sync.WaitGroup

	mu      sync.Mutex
	stages  map[*parser.Stage]bool
	started map[string]*layer // by what is sealed
	early   map[string]*early
}

// sealedAs names what is sealed: a snapshot, or "" for the layer without entries.
func (l *layer) sealedAs() string {
	if l.unchanged {
		return ""
	}
	return string(l.snapshot)
}

func newSealer(ctx context.Context, b *builder) *sealer {
	s := &sealer{b: b, ctx: ctx, stages: map[*parser.Stage]bool{}, started: map[string]*layer{}, early: map[string]*early{}}
	s.slots = make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))
	return s
}

// configure settles how layers are sealed, before the first one is.
func (s *sealer) configure() {
	s.options, s.name = s.b.recipe.sealOptions(s.b.opts.Image.Epoch)
}

// sealedEpoch stands before the epoch in the name of the options that a layer was sealed with.
const sealedEpoch = " epoch "

// include says that the layers of a stage are wanted.
func (s *sealer) include(st *parser.Stage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stages[st] = true
}

// includes says whether they are.
func (s *sealer) includes(st *parser.Stage) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stages[st]
}

// start begins to seal a layer if the layers of its stage are wanted.
func (s *sealer) start(st *parser.Stage, l *layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stages[st] && l.base == nil {
		s.begin(l)
	}
}

// force begins to seal a layer whose stage nobody wants, unless it was begun before.
func (s *sealer) force(l *layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.base == nil && l.sealed == nil {
		s.begin(l)
	}
}

func (s *sealer) begin(l *layer) {
	l.sealed = make(chan struct{})
	if first := s.started[l.sealedAs()]; first != nil {
		s.wg.Go(func() {
			defer close(l.sealed)
			<-first.sealed
			l.descriptor, l.diffID, l.err = first.descriptor, first.diffID, first.err
		})
		return
	}
	s.started[l.sealedAs()] = l
	if done, ok := s.b.state.Cache.Sealed(l.sealedAs(), s.name); ok {
		if there, err := s.b.state.Store.Exists(s.ctx, done.Descriptor); err == nil && there {
			l.descriptor, l.diffID = done.Descriptor, done.DiffID
			close(l.sealed)
			s.b.upload(l.descriptor)
			return
		}
	}
	s.wg.Go(func() {
		defer close(l.sealed)
		if got, ok := s.earlier(l.sealedAs()); ok {
			if l.err = s.checkLayer(s.ctx, l, got); l.err == nil {
				l.err = s.sealed(l, got)
			}
			return
		}
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
			l.err = s.seal(s.ctx, l)
		case <-s.ctx.Done():
			l.err = context.Cause(s.ctx)
		}
	})
}

func (s *sealer) seal(ctx context.Context, l *layer) error {
	tree, err := s.tree(ctx, l)
	if err != nil {
		return err
	}
	o := s.options
	o.Warn = func(path, problem string) {
		s.b.sink(event.Warning{Message: path + ": " + problem, File: s.b.name, Line: l.lines.Start, Time: time.Now()})
	}
	seal := func() (diff.Layer, error) { return diff.Seal(ctx, s.b.state.Store, tree, o) }
	if s.b.opts.Analyze {
		seal = func() (diff.Layer, error) { return imageanalysis.Seal(ctx, s.b.state, tree, o) }
	}
	got, err := seal()
	if err != nil {
		return s.b.at(l.lines, "", fmt.Errorf("seal the layer of %q: %w", l.text, err))
	}
	made := cache.Layer{Descriptor: got.Descriptor, DiffID: got.DiffID, Size: got.Size}
	if err := s.checkLayer(ctx, l, made); err != nil {
		return err
	}
	return s.sealed(l, made)
}

// sealed notes what a layer was sealed as.
func (s *sealer) sealed(l *layer, got cache.Layer) error {
	l.descriptor, l.diffID = got.Descriptor, got.DiffID
	s.b.upload(l.descriptor)
	return s.b.state.Cache.PutSealed(l.sealedAs(), s.name, got)
}

// tree is where a layer's entries are.
func (s *sealer) tree(ctx context.Context, l *layer) (diff.Tree, error) {
	if l.unchanged {
		return emptyTree(s.b.tempdir)
	}
	if err := s.b.ready(ctx, l.snapshot); err != nil {
		return diff.Tree{}, err
	}
	c, err := s.b.state.Snapshots.Changes(l.snapshot)
	return treeOf(c), err
}

// wait waits until nothing is being sealed any more.
func (s *sealer) wait() { s.wg.Wait() }

// wait waits for the layer's digest.
func (l *layer) wait(ctx context.Context) error {
	if l.base != nil {
		return nil
	}
	if l.sealed == nil {
		panic("a layer is awaited that nobody seals")
	}
	select {
	case <-l.sealed:
		return l.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
