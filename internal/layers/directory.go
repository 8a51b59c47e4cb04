package layers

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/snapshot"
)

// SealDirectory seals the layer of a COPY of a directory from the files that are copied. ch holds
// the directories above them, which the COPY has made (copyfs.Copy.DestOnly). ok is false if the
// files must be copied first: one has changed or cannot be read, or the layer depends on the copy.
func (s *Sealer) SealDirectory(ctx context.Context, ch snapshot.Changes,
	dir *copyfs.Directory) (l cache.Layer, ok bool, err error) {
	l, ok, err = unlessExternal(s.sealDirectory(ctx, ch, dir, nil))
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return l, ok, err
}

// unlessExternal returns false in place of diff.ErrExternal.
func unlessExternal(l cache.Layer, err error) (_ cache.Layer, ok bool, _ error) {
	if errors.Is(err, diff.ErrExternal) {
		return cache.Layer{}, false, nil
	}
	return l, err == nil, err
}

func (s *Sealer) sealDirectory(ctx context.Context, ch snapshot.Changes, dir *copyfs.Directory,
	begin func() error) (l cache.Layer, err error) {
	src, err := dir.Open()
	if err != nil {
		return l, fmt.Errorf("%w: %w", diff.ErrExternal, err)
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	t := tree(ch)
	t.External = &diff.External{
		Path: dir.Dest, Dir: src, Entries: dir.Entries,
		Begin: begin, Owner: dir.Owner, Mode: dir.Mode,
	}
	// Options.Warn is not set: the copy warns about what a layer cannot hold.
	got, err := diff.Seal(ctx, s.ingester(), t, s.options())
	return cache.Layer{Descriptor: got.Descriptor, DiffID: got.DiffID, Size: got.Size}, err
}

// BeginDirectory begins to seal the layer of a COPY of a directory as SealDirectory does, as the
// layer of a snapshot that does not exist yet. When it returns, the directories above the files
// have been read from ch, and the files may be copied. A layer that cannot be sealed in this way is
// sealed from its snapshot. If there will be no such snapshot, the caller calls CancelDirectory.
func (s *Sealer) BeginDirectory(id snapshot.ID, ch snapshot.Changes, dir *copyfs.Directory) {
	ctx, cancel := context.WithCancel(s.ctx)
	e := newEarly(cancel)
	s.mu.Lock()
	s.early[string(id)] = e
	s.mu.Unlock()
	s.wg.Go(func() {
		defer cancel()
		e.write(ctx, s, func(begin func() error) (cache.Layer, error) {
			return s.sealDirectory(ctx, ch, dir, begin)
		})
	})
	<-e.begun
}

// CancelDirectory stops the sealing that BeginDirectory has begun for a snapshot, and waits for its
// end. It does nothing if there is none.
func (s *Sealer) CancelDirectory(id snapshot.ID) {
	s.mu.Lock()
	e := s.early[string(id)]
	delete(s.early, string(id))
	s.mu.Unlock()
	if e != nil {
		e.cancel()
		_, _ = e.layer.Wait(context.Background())
	}
}

// takeEarly waits for the layer of a source if BeginDirectory has begun it. ok is false if the
// layer must be sealed from its snapshot.
func (s *Sealer) takeEarly(source string) (l cache.Layer, ok bool, err error) {
	s.mu.Lock()
	e := s.early[source]
	delete(s.early, source)
	s.mu.Unlock()
	if e == nil {
		return cache.Layer{}, false, nil
	}
	return unlessExternal(e.layer.Wait(s.ctx))
}

// early is a layer that is written before its snapshot exists.
type early struct {
	cancel context.CancelFunc
	// begun is closed when the files may be copied.
	begun chan struct{}
	begin func() // closes begun
	// layer is the result of Sealer.sealDirectory.
	layer *memo.Call[cache.Layer]
}

func newEarly(cancel context.CancelFunc) *early {
	e := &early{cancel: cancel, begun: make(chan struct{}), layer: memo.NewCall[cache.Layer]()}
	e.begin = sync.OnceFunc(func() { close(e.begun) })
	return e
}

// write sets the layer. seal calls begin when it has read all but the files. begin takes one of the
// sealer's slots, so that other layers can be sealed until then.
func (e *early) write(ctx context.Context, s *Sealer,
	seal func(begin func() error) (cache.Layer, error)) {
	hasSlot := false
	l, err := seal(func() error {
		e.begin()
		err := s.takeSlot(ctx)
		hasSlot = err == nil
		return err
	})
	if hasSlot {
		s.releaseSlot()
	}
	e.begin() // seal may have failed before it called begin
	e.layer.Finish(l, err)
}
