package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/store"
	digest "github.com/opencontainers/go-digest"
)

// maxRepairs limits how often a build begins again.
const maxRepairs = 100

// repairing calls solve, and calls it again after an error about a damaged or missing blob. The second call makes the
// lost results again. Everything else is in the cache by then, also the results of steps run because of --no-cache.
func (b *builder) repairing(ctx context.Context, res *Result, solve func() error) error {
	met := map[digest.Digest]bool{}
	for {
		err := solve()
		var bad *store.BlobError
		if !errors.As(err, &bad) || ctx.Err() != nil || met[bad.Digest] || len(met) == maxRepairs {
			return err
		}
		met[bad.Digest] = true
		b.sink(event.Warning{Message: fmt.Sprintf("%v; what was made with it is made again", bad), Time: time.Now()})
		b.beginAgain()
		res.Names = nil
	}
}

// beginAgain forgets the results of stages, and keeps the open contexts and images.
func (b *builder) beginAgain() {
	b.waitForLayers()
	b.e.made.use()
	b.e.runs, b.e.fetched, b.e.imports, b.e.lazy = memo.Map[string, stepResult]{}, memo.Map[string, stepResult]{}, nil, &layers.Lazy{}
	b.in.Reset(b.e.lazy)
	b.newSealer()
}

// anew returns a solver for the same plan without results.
func (s *solver) anew() *solver {
	return &solver{b: s.b, e: s.e, in: s.in, plan: s.plan, label: s.label, prefetch: s.prefetch}
}

// made are the keys of steps that were run.
type made struct {
	mu   sync.Mutex
	keys map[cache.Key]bool
	used bool
}

func (m *made) add(key cache.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys == nil {
		m.keys = map[cache.Key]bool{}
	}
	m.keys[key] = true
}

// use makes has report true for added keys.
func (m *made) use() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used = true
}

// has reports whether a step with one of the keys was run before the build began again.
func (m *made) has(keys ...cache.Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used && slices.ContainsFunc(keys, func(k cache.Key) bool { return m.keys[k] })
}
