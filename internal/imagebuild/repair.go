package imagebuild

import (
	"errors"
	"fmt"
	"sync"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/store"
	digest "github.com/opencontainers/go-digest"
)

// maxRepairs limits how often a build starts again.
const maxRepairs = 100

// repairs holds the damaged blobs for which a build has started again.
type repairs struct {
	mu    sync.Mutex
	blobs map[digest.Digest]bool // nil: the build does not start again now
}

// repairable returns the blob of an error after which the build starts again, or nil if the error
// ends the build.
func (r *repairs) repairable(err error) *store.BlobError {
	r.mu.Lock()
	defer r.mu.Unlock()
	var bad *store.BlobError
	if r.blobs == nil || !errors.As(err, &bad) || r.blobs[bad.Digest] ||
		len(r.blobs) == maxRepairs {
		return nil
	}
	return bad
}

// rejectable returns the imported layer of an error after which the build starts again without the
// layer.
func (r *repairs) rejectable(err error) (*layers.ImportError, bool) {
	bad, ok := errors.AsType[*layers.ImportError](err)
	r.mu.Lock()
	defer r.mu.Unlock()
	return bad, ok && r.blobs != nil && !r.blobs[bad.Layer] && len(r.blobs) < maxRepairs
}

// begin lets the build start again because of damaged blobs, until end is called.
func (r *repairs) begin() { r.set(map[digest.Digest]bool{}) }
func (r *repairs) end()   { r.set(nil) }

func (r *repairs) set(blobs map[digest.Digest]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs = blobs
}

// again reports whether the build starts again after err, and then warns about the blob.
func (r *repairs) again(err error, sink event.Sink) bool {
	if bad, ok := r.rejectable(err); ok {
		r.mu.Lock()
		r.blobs[bad.Layer] = true
		r.mu.Unlock()
		warn(sink, fmt.Sprintf("the result of a step in the cache is not used: %v", bad))
		return true
	}
	bad := r.repairable(err)
	if bad == nil {
		return false
	}
	r.mu.Lock()
	r.blobs[bad.Digest] = true
	r.mu.Unlock()
	warn(sink, fmt.Sprintf("%v; the build makes the blob, and results that depend on it, again",
		bad))
	return true
}

// markDone returns a sink that sets Done.Repair for work that failed because of a blob that the
// build makes again.
func (r *repairs) markDone(sink event.Sink) event.Sink {
	return func(e event.Event) {
		if done, ok := e.(event.Done); ok && done.Err != nil {
			_, rejected := r.rejectable(done.Err)
			done.Repair = rejected || r.repairable(done.Err) != nil
			e = done
		}
		sink(e)
	}
}
