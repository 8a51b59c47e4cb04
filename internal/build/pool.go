package build

import (
	"context"
	"errors"
	"sync"

	"github.com/layerbuild/layerbuild/snapshot"
)

// A step that changes nothing has a layer, but no snapshot: the next step runs on the one before. Every snapshot is a
// directory more that overlay has to open, for all steps that follow.

// snapshotPool are snapshots that were prepared for a step which then had no need of it, by parent. The next step may.
type snapshotPool struct {
	mu  sync.Mutex
	all map[snapshot.ID]*snapshot.Active
}

// take gives a snapshot on parent in which nothing was changed: a spare one, or a new one.
func (s *snapshotPool) take(ctx context.Context, from Snapshots, parent snapshot.ID) (*snapshot.Active, error) {
	s.mu.Lock()
	active := s.all[parent]
	delete(s.all, parent)
	s.mu.Unlock()
	if active != nil {
		return active, nil
	}
	return from.Prepare(ctx, parent)
}

// put keeps one.
func (s *snapshotPool) put(parent snapshot.ID, active *snapshot.Active) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[snapshot.ID]*snapshot.Active{}
	}
	if s.all[parent] != nil {
		return active.Discard()
	}
	s.all[parent] = active
	return nil
}

// Close discards what nobody has taken.
func (s *snapshotPool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, active := range s.all {
		errs = append(errs, active.Discard())
	}
	s.all = nil
	return errors.Join(errs...)
}
