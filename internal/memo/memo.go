// Package memo computes a value once for each key and returns it to all callers. It has no side
// effects of its own.
package memo

import (
	"context"
	"sync"
)

// Map computes a value once for each key and returns it to all callers. The zero value is empty. A
// Map is safe for concurrent use.
type Map[K comparable, V any] struct {
	mu    sync.Mutex
	calls map[K]*call[V]
}

type call[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// Do returns f's result for k. The first caller runs f, the others wait for it, or for their ctx to
// end.
func (m *Map[K, V]) Do(ctx context.Context, k K, f func() (V, error)) (V, error) {
	m.mu.Lock()
	c, ok := m.calls[k]
	if !ok {
		if m.calls == nil {
			m.calls = map[K]*call[V]{}
		}
		c = &call[V]{done: make(chan struct{})}
		m.calls[k] = c
		m.mu.Unlock()
		// If f panics, the other callers must not wait for ever.
		defer close(c.done)
		c.value, c.err = f()
		return c.value, c.err
	}
	m.mu.Unlock()
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done():
		select {
		case <-c.done: // both channels are ready: return the value
			return c.value, c.err
		default:
		}
		var zero V
		return zero, context.Cause(ctx)
	}
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
