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
// end. If f fails after the ctx of its caller has ended, the error is not kept, and one of the
// others runs its own f.
func (m *Map[K, V]) Do(ctx context.Context, k K, f func() (V, error)) (V, error) {
	return m.do(ctx, k, f, func(error) bool { return true })
}

// Try is like Do for an f that may succeed later: an error is returned to the callers that wait for
// it, and is not kept.
func (m *Map[K, V]) Try(ctx context.Context, k K, f func() (V, error)) (V, error) {
	return m.do(ctx, k, f, func(err error) bool { return err == nil })
}

// Share is like Do for results that are kept elsewhere: it returns f's result to the callers that
// wait for it, and keeps nothing.
func (m *Map[K, V]) Share(ctx context.Context, k K, f func() (V, error)) (V, error) {
	return m.do(ctx, k, f, func(error) bool { return false })
}

func (m *Map[K, V]) do(ctx context.Context, k K, f func() (V, error),
	keep func(error) bool) (V, error) {
	for {
		c, mine := m.Claim(k)
		if mine {
			return m.run(ctx, k, c, f, keep)
		}
		v, err := c.Wait(ctx)
		if !c.Abandoned() || ctx.Err() != nil {
			return v, err
		}
	}
}

// run sets the result of a call that was claimed.
func (m *Map[K, V]) run(ctx context.Context, k K, c *Call[V], f func() (V, error),
	keep func(error) bool) (V, error) {
	// If f panics, the other callers must not wait for ever.
	defer close(c.done)
	c.value, c.err = f()
	c.abandoned = c.err != nil && ctx.Err() != nil
	if c.abandoned || !keep(c.err) {
		m.drop(k, c)
	}
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

// drop removes c, unless it was already removed and k has another call.
func (m *Map[K, V]) drop(k K, c *Call[V]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.calls[k] == c {
		delete(m.calls, k)
	}
}

// End finishes a claimed call and removes it: the next Claim starts the work again. It is for
// results that are stored elsewhere, so that only concurrent callers share the work. ctx is the
// context of the work: if it has ended, the call counts as abandoned.
func (m *Map[K, V]) End(ctx context.Context, k K, c *Call[V], value V, err error) {
	c.abandoned = err != nil && ctx.Err() != nil
	m.drop(k, c)
	c.Finish(value, err)
}

// Call is a value that one goroutine computes and others wait for.
type Call[V any] struct {
	done      chan struct{}
	value     V
	err       error
	abandoned bool
}

// NewCall returns a call that is in no Map.
func NewCall[V any]() *Call[V] { return &Call[V]{done: make(chan struct{})} }

// Finish sets the result. It must be called once.
func (c *Call[V]) Finish(value V, err error) {
	c.value, c.err = value, err
	close(c.done)
}

// Abandoned reports whether the call has failed because the context of the goroutine that computed
// the value had ended. The error of such a call does not concern other callers, who may start
// again. It returns false while the value is computed.
func (c *Call[V]) Abandoned() bool {
	select {
	case <-c.done:
		return c.abandoned
	default:
		return false
	}
}

// Wait returns the result. If ctx ends first, it returns the cause (context.Cause).
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
