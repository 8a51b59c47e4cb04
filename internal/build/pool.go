package build

import (
	"context"
	"errors"
	"sync"

	"github.com/layerbuild/layerbuild/snapshot"
)

// A step that changes nothing has a layer but no snapshot: the next step runs on the snapshot
// before it. Each snapshot would be one more directory that overlay has to open for all later
// steps.

// snapshotPool holds prepared snapshots that a step did not change, by their parents, for the next
// step on the same parent.
type snapshotPool struct {
	mu  sync.Mutex
	all map[snapshot.ID]*snapshot.Active
}

// take returns an unchanged snapshot on parent: one of the pool, or a new one.
func (s *snapshotPool) take(ctx context.Context, from Snapshots,
	parent snapshot.ID) (*snapshot.Active, error) {
	s.mu.Lock()
	active := s.all[parent]
	delete(s.all, parent)
	s.mu.Unlock()
	if active != nil {
		return active, nil
	}
	return from.Prepare(ctx, parent)
}

// put adds an unchanged snapshot on parent. It discards the snapshot if the pool has one.
func (s *snapshotPool) put(parent snapshot.ID, active *snapshot.Active) error {
	if s.add(parent, active) {
		return nil
	}
	return active.Discard()
}

// add is put without Discard. It reports whether the pool has taken the snapshot.
func (s *snapshotPool) add(parent snapshot.ID, active *snapshot.Active) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[parent] != nil {
		return false
	}
	if s.all == nil {
		s.all = map[snapshot.ID]*snapshot.Active{}
	}
	s.all[parent] = active
	return true
}

// Close discards the snapshots in the pool.
func (s *snapshotPool) Close() error {
	s.mu.Lock()
	all := s.all
	s.all = nil
	s.mu.Unlock()
	var errs []error
	for _, active := range all {
		errs = append(errs, active.Discard())
	}
	return errors.Join(errs...)
}
