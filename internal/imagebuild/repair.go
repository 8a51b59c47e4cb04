package imagebuild

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/store"
	digest "github.com/opencontainers/go-digest"
)

// maxRepairs limits how often a build starts again.
const maxRepairs = 100

// repairs holds the damaged blobs for which a build has started again.
type repairs struct {
	mu  sync.Mutex
	met map[digest.Digest]bool // nil: the build does not repair now
}

// repairable returns the blob of an error after which the build starts again, or nil if the error
// ends the build.
func (r *repairs) repairable(err error) *store.BlobError {
	r.mu.Lock()
	defer r.mu.Unlock()
	var bad *store.BlobError
	if r.met == nil || !errors.As(err, &bad) || r.met[bad.Digest] || len(r.met) == maxRepairs {
		return nil
	}
	return bad
}

// set replaces the set of blobs.
func (r *repairs) set(met map[digest.Digest]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.met = met
}

func (r *repairs) add(d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.met[d] = true
}

// marking returns a sink that sets Done.Repair for failed work that the build repairs.
func (r *repairs) marking(sink event.Sink) event.Sink {
	return func(e event.Event) {
		if done, ok := e.(event.Done); ok && done.Err != nil {
			done.Repair = r.repairable(done.Err) != nil
			e = done
		}
		sink(e)
	}
}

// repairing calls solve, and calls it again after an error about a damaged or missing blob. The
// second call makes the lost results again. It finds all other results in the cache, including
// results of steps that ran because of --no-cache.
func (b *builder) repairing(ctx context.Context, res *Result, solve func() error) error {
	b.repairs.set(map[digest.Digest]bool{})
	defer b.repairs.set(nil)
	for {
		err := solve()
		bad := b.repairs.repairable(err)
		if bad == nil || ctx.Err() != nil {
			return err
		}
		b.repairs.add(bad.Digest)
		b.sink(event.Warning{Message: fmt.Sprintf("%v; it and the results that depend on it are made again", bad),
			Time: time.Now()})
		b.beginAgain()
		res.Names = nil
	}
}

// beginAgain drops the results of stages and keeps the open contexts and images.
func (b *builder) beginAgain() {
	b.waitForLayers()
	b.ran.Restarted()
	b.lazy = &layers.Lazy{}
	b.in = b.in.Again(b.lazy)
	b.newSealer()
}
