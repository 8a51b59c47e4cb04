package layers

import (
	"context"
	"runtime"
	"sync"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/imageanalysis"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/outline"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// SealerOptions are the options of a Sealer.
type SealerOptions struct {
	State   *state.State
	TempDir *state.TempDir
	Lazy    *Lazy
	Format  Format
	// Blocks has the compressed blocks of earlier layers; nil: all blocks are compressed.
	Blocks diff.Blocks
	// Tables keeps the table of each layer for package analyze.
	Tables bool
	// Check compares each layer with its snapshot; nil: layers are not checked.
	Check *Checker
	// Warn is called for an entry that no layer can hold. It must not be nil.
	Warn func(l *Layer, path, problem string)
	// Begun is called for each large layer while its blob is written; may be nil. See
	// store.Watched.
	Begun func(*store.Growing)
	// Sealed is called for each layer as soon as its blob is in the store. It must not be nil.
	Sealed func(ocispec.Descriptor)
	// Shared has the layers of sealers of the same build, so that each layer is made once; nil:
	// there is one sealer.
	Shared *Sealings
}

// Sealings are the layers that several Sealers make. The zero value is empty.
type Sealings struct {
	layers memo.Map[string, cache.Layer] // by format and Layer.source
}

// Sealer makes layers of snapshots in the background.
type Sealer struct {
	o      SealerOptions
	format string
	// ctx is the whole build's. A layer may still be sealed after its stage is done. ctx is kept
	// here because the goroutines outlive the call that starts them.
	ctx   context.Context
	slots chan struct{} // one for each layer that is being written
	wg    sync.WaitGroup

	outlines memo.Map[snapshot.ID, *outline.Files]

	mu      sync.Mutex
	early   map[string]*early // by Layer.source: those that BeginDirectory has begun
	claimed map[string]bool   // by Layer.source: those for which claim was called
}

// NewSealer returns a Sealer whose work ends with ctx.
func NewSealer(ctx context.Context, o SealerOptions) *Sealer {
	if o.Shared == nil {
		o.Shared = &Sealings{}
	}
	return &Sealer{
		o: o, format: o.Format.String(), ctx: ctx,
		slots: make(chan struct{}, max(2, runtime.GOMAXPROCS(0))),
		early: map[string]*early{}, claimed: map[string]bool{},
	}
}

// Format returns the text of the format of the sealed layers.
func (s *Sealer) Format() string { return s.format }

// Wait waits until nothing is being sealed.
func (s *Sealer) Wait() { s.wg.Wait() }

// Seal begins to seal a layer, unless it comes from an image, was begun before, or another layer of
// the same source was.
func (s *Sealer) Seal(l *Layer) {
	call, mine := s.claim(l)
	if !mine {
		s.tellLater(call)
		return
	}
	if have, ok := s.o.State.SealedLayer(s.ctx, l.source(), s.format); ok {
		call.Finish(have, nil)
		s.o.Sealed(have.Descriptor)
		return
	}
	s.wg.Go(func() { call.Finish(s.make(l)) })
}

// tellLater calls Options.Sealed when another sealer has made a layer. It does nothing for a layer
// of which this sealer knows, for which call is nil.
func (s *Sealer) tellLater(call *memo.Call[cache.Layer]) {
	if call == nil {
		return
	}
	s.wg.Go(func() {
		if have, err := call.Wait(s.ctx); err == nil {
			s.o.Sealed(have.Descriptor)
		}
	})
}

// claim gives a layer the sealing of its source, and reports whether the caller must perform it. If
// not, it returns the sealing only if another sealer performs it, once for a source.
func (s *Sealer) claim(l *Layer) (call *memo.Call[cache.Layer], mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.Base != nil || l.sealing != nil {
		return nil, false
	}
	call, mine = s.o.Shared.layers.Claim(s.format + "\x00" + l.source())
	l.begin(call)
	known := s.claimed[l.source()]
	if s.claimed[l.source()] = true; known {
		return nil, false
	}
	return call, mine
}

// make makes a layer that is not in the store.
func (s *Sealer) make(l *Layer) (cache.Layer, error) {
	got, ok, err := s.takeEarly(l.source())
	if err != nil {
		return cache.Layer{}, l.failed("seal", err)
	}
	if ok {
		return got, s.finish(l, got)
	}
	if err := s.takeSlot(s.ctx); err != nil {
		return cache.Layer{}, err
	}
	defer s.releaseSlot()
	return s.seal(l)
}

// takeSlot waits until a layer may be written.
func (s *Sealer) takeSlot(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Sealer) releaseSlot() { <-s.slots }

// seal writes a layer.
func (s *Sealer) seal(l *Layer) (cache.Layer, error) {
	t, err := s.tree(l)
	if err != nil {
		return cache.Layer{}, l.failed("seal", err)
	}
	o := s.options()
	o.Warn = func(path, problem string) { s.o.Warn(l, path, problem) }
	seal := func() (diff.Layer, error) { return diff.Seal(s.ctx, s.ingester(), t, o) }
	if s.o.Tables {
		seal = func() (diff.Layer, error) { return imageanalysis.Seal(s.ctx, s.o.State, t, o) }
	}
	got, err := seal()
	if err != nil {
		return cache.Layer{}, l.failed("seal", err)
	}
	made := cache.Layer{Descriptor: got.Descriptor, DiffID: got.DiffID, Size: got.Size}
	return made, s.finish(l, made)
}

// ingester returns the store to which layers are written.
func (s *Sealer) ingester() diff.Ingester {
	if s.o.Begun == nil {
		return s.o.State.Store
	}
	return s.o.State.Store.Watched(s.o.Begun)
}

// options returns the options with which layers are written.
func (s *Sealer) options() diff.Options {
	o := s.o.Format.options()
	o.Blocks = s.o.Blocks
	return o
}

// finish checks and records a layer that was written.
func (s *Sealer) finish(l *Layer, got cache.Layer) error {
	if err := s.o.Check.layer(s.ctx, l, got); err != nil {
		return l.failed("check", err)
	}
	s.o.Sealed(got.Descriptor)
	return s.o.State.Cache.PutSealed(s.ctx, l.source(), s.format, got)
}

// tree returns the tree of a layer's entries.
func (s *Sealer) tree(l *Layer) (diff.Tree, error) {
	if l.NoOp {
		return emptyTree(s.o.TempDir)
	}
	if err := s.o.Lazy.Materialize(s.ctx, l.Snapshot); err != nil {
		return diff.Tree{}, err
	}
	c, err := s.o.State.Snapshots.Changes(s.ctx, l.Snapshot)
	return tree(c), err
}

// ChainID returns the chain ID of layers. It seals those that have not been sealed yet.
func (s *Sealer) ChainID(ctx context.Context, list []*Layer) (digest.Digest, error) {
	ids := make([]digest.Digest, len(list))
	for i, l := range list {
		s.Seal(l)
		if err := l.Wait(ctx); err != nil {
			return "", err
		}
		ids[i] = l.DiffID
	}
	return identity.ChainID(ids), nil
}
