package image

import (
	"context"
	"sync"

	"github.com/layerbuild/layerbuild/snapshot"
)

// flights keeps work that is under way in this process, so that it is done once. The zero value is ready.
type flights struct {
	mu sync.Mutex
	m  map[string]*flight
}

// flight is one piece of work.
type flight struct {
	done chan struct{}
	id   snapshot.ID
	err  error
}

func newFlight() *flight { return &flight{done: make(chan struct{})} }

// claim begins a piece of work, or returns the one that somebody else has begun.
func (f *flights) claim(key string) (_ *flight, mine bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.m[key]; w != nil {
		return w, false
	}
	if f.m == nil {
		f.m = map[string]*flight{}
	}
	w := newFlight()
	f.m[key] = w
	return w, true
}

// finish ends a piece of work that was claimed. Whoever comes now looks for its result on the disk.
func (f *flights) finish(key string, w *flight, id snapshot.ID, err error) {
	f.mu.Lock()
	delete(f.m, key)
	f.mu.Unlock()
	w.finish(id, err)
}

func (w *flight) finish(id snapshot.ID, err error) {
	w.id, w.err = id, err
	close(w.done)
}

// wait waits for the result.
func (w *flight) wait(ctx context.Context) (snapshot.ID, error) {
	select {
	case <-w.done:
		return w.id, w.err
	case <-ctx.Done():
		select {
		case <-w.done: // both are: what is there is given
			return w.id, w.err
		default:
			return "", context.Cause(ctx)
		}
	}
}
