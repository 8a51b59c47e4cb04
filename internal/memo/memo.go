package memo

import (
	"context"
	"sync"
)

// Map computes a value once for each key and returns it to all callers. The zero value is empty. A
// Map is safe for concurrent use.
type Map[K comparable, V any] struct {
	mu    sync.Mutex
	calls map[K]*Call[V]
}

// Do returns f's result for k. The first caller runs f, the others wait for it, or for their ctx to
// end.
func (m *Map[K, V]) Do(ctx context.Context, k K, f func() (V, error)) (V, error) {
	c, mine := m.Claim(k)
	if !mine {
		return c.Wait(ctx)
	}
	// If f panics, the other callers must not wait for ever.
	defer close(c.done)
	c.value, c.err = f()
	return c.value, c.err
}

// Claim returns the call for k. If there was none, mine is true, and the caller must call Finish or
// End.
func (m *Map[K, V]) Claim(k K) (c *Call[V], mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c, ok := m.calls[k]; ok {
		return c, false
	}
	if m.calls == nil {
		m.calls = map[K]*Call[V]{}
	}
	c = NewCall[V]()
	m.calls[k] = c
	return c, true
}

// Forget makes the next Do for k run f again.
func (m *Map[K, V]) Forget(k K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.calls, k)
}

// Each calls f with each value that has been computed without an error.
func (m *Map[K, V]) Each(f func(V)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.calls {
		select {
		case <-c.done:
			if c.err == nil {
				f(c.value)
			}
		default:
		}
	}
}

// End finishes a call that was claimed and forgets it: the next Claim begins the work again. It is
// for results that are kept elsewhere, so that only work at the same time is shared.
func (m *Map[K, V]) End(k K, c *Call[V], value V, err error) {
	m.Forget(k)
	c.Finish(value, err)
}

// Call is a value that one goroutine computes and others wait for.
type Call[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// NewCall returns a call that is in no Map.
func NewCall[V any]() *Call[V] { return &Call[V]{done: make(chan struct{})} }

// Finish sets the result. It must be called once.
func (c *Call[V]) Finish(value V, err error) {
	c.value, c.err = value, err
	close(c.done)
}

// Wait returns the result. If ctx ends first, it returns the cause of that.
func (c *Call[V]) Wait(ctx context.Context) (V, error) {
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done():
		select {
		case <-c.done: // both channels are ready: return the value
			return c.value, c.err
		default:
			var zero V
			return zero, context.Cause(ctx)
		}
	}
}
