package build

import (
	"context"
	"sync"

	"github.com/layerbuild/layerbuild/snapshot"
)

// Chains makes long chains of snapshots shorter. *snapshot.Store implements it.
type Chains interface {
	MergeNeeded(id snapshot.ID) bool
	Merge(ctx context.Context, id snapshot.ID) error
}

// merging merges the chains of snapshots while steps run, one at a time.
type merging struct {
	chains Chains

	mu      sync.Mutex
	running bool
	wait    sync.WaitGroup
}

// consider begins to merge the chain of a snapshot on which a step was prepared, if that is needed.
// The context is that of the build.
func (m *merging) consider(ctx context.Context, id snapshot.ID) {
	if !m.chains.MergeNeeded(id) || !m.start() {
		return
	}
	m.wait.Go(func() {
		// A chain that was not merged is as good, only slower.
		_ = m.chains.Merge(ctx, id)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.running = false
	})
}

func (m *merging) start() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running {
		return false
	}
	m.running = true
	return true
}
