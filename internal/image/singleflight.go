package image

import (
	"context"
	"sync"

	"github.com/layerbuild/layerbuild/snapshot"
)

// calls holds the work that this process is doing, so that no work is done twice at the same
// time. The zero value is ready to use.
type calls struct {
	mu sync.Mutex
	m  map[string]*call
}

// call is one piece of work.
type call struct {
	done chan struct{}
	id   snapshot.ID
	err  error
}

func newCall() *call { return &call{done: make(chan struct{})} }

// claim begins a piece of work, or returns the call of another goroutine that has begun it.
func (f *calls) claim(key string) (_ *call, mine bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.m[key]; w != nil {
		return w, false
	}
	if f.m == nil {
		f.m = map[string]*call{}
	}
	w := newCall()
	f.m[key] = w
	return w, true
}

// finish ends a piece of work that was claimed. Later callers find its result on disk.
func (f *calls) finish(key string, w *call, id snapshot.ID, err error) {
	f.mu.Lock()
	delete(f.m, key)
	f.mu.Unlock()
	w.finish(id, err)
}

func (w *call) finish(id snapshot.ID, err error) {
	w.id, w.err = id, err
	close(w.done)
}

// wait waits for the result or until ctx ends.
func (w *call) wait(ctx context.Context) (snapshot.ID, error) {
	select {
	case <-w.done:
		return w.id, w.err
	case <-ctx.Done():
		select {
		case <-w.done: // both have ended: the result is returned
			return w.id, w.err
		default:
			return "", context.Cause(ctx)
		}
	}
}
