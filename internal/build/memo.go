package build

import (
	"context"
	"sync"
)

// memo does a thing once for each key and gives everyone who asks the one result.
type memo[K comparable, V any] struct {
	mu    sync.Mutex
	calls map[K]*call[V]
}

type call[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// do returns f's result for k. The first caller runs f, the others wait for it, or for their ctx to end.
func (m *memo[K, V]) do(ctx context.Context, k K, f func() (V, error)) (V, error) {
	m.mu.Lock()
	c, ok := m.calls[k]
	if !ok {
		if m.calls == nil {
			m.calls = map[K]*call[V]{}
		}
		c = &call[V]{done: make(chan struct{})}
		m.calls[k] = c
		m.mu.Unlock()
		// A panic must not leave the others waiting for ever.
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
		case <-c.done: // both are: what is there is given
			return c.value, c.err
		default:
		}
		var zero V
		return zero, context.Cause(ctx)
	}
}

// forget lets the next caller for k run f again.
func (m *memo[K, V]) forget(k K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.calls, k)
}

// each calls f with every result that is there without an error.
func (m *memo[K, V]) each(f func(V)) {
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
