package snapshot

import (
	"context"
	"errors"
	"sync"
)

// Pool holds prepared snapshots that a step did not change, by their parents, for the next step on
// the same parent. It is safe for concurrent use.
type Pool struct {
	// From prepares a snapshot if the pool has none on the parent. *Store implements it.
	From interface {
		Prepare(ctx context.Context, parent ID) (*Active, error)
	}

	mu  sync.Mutex
	all map[ID]*Active
}

// Take returns an unchanged snapshot on parent: one of the pool, or a new one.
func (p *Pool) Take(ctx context.Context, parent ID) (*Active, error) {
	p.mu.Lock()
	active := p.all[parent]
	delete(p.all, parent)
	p.mu.Unlock()
	if active != nil {
		return active, nil
	}
	return p.From.Prepare(ctx, parent)
}

// Put adds an unchanged snapshot on parent. It discards the snapshot if the pool has one.
func (p *Pool) Put(parent ID, active *Active) error {
	if p.add(parent, active) {
		return nil
	}
	return active.Discard()
}

// add is Put without Discard. It reports whether the pool has taken the snapshot.
func (p *Pool) add(parent ID, active *Active) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all[parent] != nil {
		return false
	}
	if p.all == nil {
		p.all = map[ID]*Active{}
	}
	p.all[parent] = active
	return true
}

// Close discards the snapshots in the pool.
func (p *Pool) Close() error {
	p.mu.Lock()
	all := p.all
	p.all = nil
	p.mu.Unlock()
	var errs []error
	for _, active := range all {
		errs = append(errs, active.Discard())
	}
	return errors.Join(errs...)
}
