package layers

import (
	"context"
	"sync"

	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/snapshot"
)

// Lazy holds snapshots that are made when they are first needed, and their outlines. The zero value
// holds none. It is safe for concurrent use.
type Lazy struct {
	// KeepOutlines makes Outline return the outlines of snapshots that were made, for checks.
	KeepOutlines bool

	mu       sync.Mutex
	lazy     map[snapshot.ID]*lazy
	made     memo.Map[snapshot.ID, struct{}]
	outlines memo.Map[snapshot.ID, snapshot.ID]
}

type lazy struct {
	make    func(context.Context) error
	outline func(context.Context) (snapshot.ID, error) // nil: there is none
	begun   bool                                       // make was called
}

// Add adds a snapshot and the function that makes it. It does nothing if the snapshot was added
// before.
func (z *Lazy) Add(id snapshot.ID, make func(context.Context) error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.lazy == nil {
		z.lazy = map[snapshot.ID]*lazy{}
	}
	if z.lazy[id] == nil {
		z.lazy[id] = &lazy{make: make}
	}
}

// AddOutline adds the function that makes the outline of an added snapshot: a snapshot on which a
// COPY has the same layer (see package outline). The function returns "" if there is no outline.
func (z *Lazy) AddOutline(id snapshot.ID, make func(context.Context) (snapshot.ID, error)) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.lazy[id].outline = make
}

// WrapOutline replaces the function that makes the outline of an added snapshot by make, which gets
// the one that it replaces.
func (z *Lazy) WrapOutline(id snapshot.ID, make func(ctx context.Context,
	next func(context.Context) (snapshot.ID, error)) (snapshot.ID, error)) {
	z.mu.Lock()
	defer z.mu.Unlock()
	l := z.lazy[id]
	next := l.outline
	if next == nil {
		return
	}
	l.outline = func(ctx context.Context) (snapshot.ID, error) { return make(ctx, next) }
}

// Has reports whether a snapshot was added.
func (z *Lazy) Has(id snapshot.ID) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.lazy[id] != nil
}

// Waits reports whether a snapshot was added that nothing has needed yet.
func (z *Lazy) Waits(id snapshot.ID) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	l := z.lazy[id]
	return l != nil && !l.begun
}

// Materialize makes an added snapshot, once. It does nothing for other snapshots, which exist
// already.
func (z *Lazy) Materialize(ctx context.Context, id snapshot.ID) error {
	z.mu.Lock()
	l := z.lazy[id]
	if l != nil {
		l.begun = true
	}
	z.mu.Unlock()
	if l == nil {
		return nil
	}
	_, err := z.made.Do(ctx, id, func() (struct{}, error) { return struct{}{}, l.make(ctx) })
	return err
}

// Outline makes the outline of an added snapshot, once, and returns it. It returns "" if there is
// none, and if the snapshot was made or is being made, so that it can be used itself (see
// KeepOutlines).
func (z *Lazy) Outline(ctx context.Context, id snapshot.ID) (snapshot.ID, error) {
	z.mu.Lock()
	var make func(context.Context) (snapshot.ID, error)
	if l := z.lazy[id]; l != nil && (z.KeepOutlines || !l.begun) {
		make = l.outline
	}
	z.mu.Unlock()
	if make == nil {
		return "", nil
	}
	return z.outlines.Do(ctx, id, func() (snapshot.ID, error) { return make(ctx) })
}
