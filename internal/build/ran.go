package build

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/layerbuild/layerbuild/internal/cache"
)

// Ran records the steps that a build has run. It is kept when the build starts again because of a
// damaged blob: these steps do not run again, even with NoCache.
type Ran struct {
	mu        sync.Mutex
	keys      map[cache.Key]bool
	restarted bool
	changed   atomic.Bool
}

// Changed reports whether the build has changed the state.
func (r *Ran) Changed() bool { return r.changed.Load() }

// noteChanged records that the build changes the state.
func (r *Ran) noteChanged() { r.changed.Store(true) }

// Restarted records that the build has started again.
func (r *Ran) Restarted() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restarted = true
}

func (r *Ran) add(key cache.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys == nil {
		r.keys = map[cache.Key]bool{}
	}
	r.keys[key] = true
}

// has reports whether a step with one of the keys was run before the build started again.
func (r *Ran) has(keys ...cache.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.restarted && slices.ContainsFunc(keys, func(k cache.Key) bool { return r.keys[k] })
}
