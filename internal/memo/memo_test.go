package memo

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestDoRunsOnce(t *testing.T) {
	var m Map[string, int]
	var calls atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			got, err := m.Do(t.Context(), "a", func() (int, error) {
				calls.Add(1)
				return 42, nil
			})
			if got != 42 || err != nil {
				t.Errorf("Do = %d, %v, want 42, nil", got, err)
			}
		})
	}
	wg.Wait()
	if n := calls.Load(); n != 1 {
		t.Errorf("f ran %d times, want once", n)
	}
}

func TestDoReturnsTheErrorToEveryone(t *testing.T) {
	var m Map[int, string]
	want := errors.New("no")
	for range 2 {
		if _, err := m.Do(t.Context(), 1, func() (string, error) { return "", want }); err != want {
			t.Errorf("Do: error %v, want %v", err, want)
		}
	}
}

func TestDoWaitsNoLongerThanItsContext(t *testing.T) {
	var m Map[int, int]
	hold := make(chan struct{})
	defer close(hold)
	begun := make(chan struct{})
	go m.Do(context.Background(), 1, func() (int, error) { close(begun); <-hold; return 0, nil })
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Do(ctx, 1, func() (int, error) { return 0, nil }); !errors.Is(err,
		context.Canceled) {
		t.Errorf("Do: error %v, want context.Canceled", err)
	}
}

// TestDoKeeps checks that a value is computed once.
func TestDoKeeps(t *testing.T) {
	var m Map[int, int]
	n := 0
	next := func() (int, error) { n++; return n, nil }
	for _, want := range []int{1, 1} {
		if got, _ := m.Do(t.Context(), 1, next); got != want {
			t.Errorf("Do = %d, want %d", got, want)
		}
	}
}

// TestEnd checks that a call that has ended is not found again, and that callers that wait for it
// get its result.
func TestEnd(t *testing.T) {
	var m Map[string, int]
	c, mine := m.Claim("a")
	if !mine {
		t.Fatal("the first Claim returns the call of another")
	}
	waiting, mine := m.Claim("a")
	if mine || waiting != c {
		t.Fatal("the second Claim begins the work again")
	}
	m.End(t.Context(), "a", c, 7, nil)
	if got, err := waiting.Wait(t.Context()); got != 7 || err != nil {
		t.Errorf("Wait = %d, %v, want 7, nil", got, err)
	}
	if waiting.Abandoned() {
		t.Error("a call that has succeeded counts as abandoned")
	}
	c, mine = m.Claim("a")
	if !mine {
		t.Fatal("after End the call is still there")
	}
	if c.Abandoned() {
		t.Error("a call that is running counts as abandoned")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.End(ctx, "a", c, 0, errors.New("no"))
	if !c.Abandoned() {
		t.Error("a call that has failed after its context ended does not count as abandoned")
	}
}

// TestKeeps checks which results each kind of call keeps.
func TestKeeps(t *testing.T) {
	type do func(context.Context, string, func() (int, error)) (int, error)
	no := errors.New("no")
	tests := []struct {
		name string
		do   func(*Map[string, int]) do
		err  error
		want bool // the result is kept
	}{
		{"Do", func(m *Map[string, int]) do { return m.Do }, nil, true},
		{"Do", func(m *Map[string, int]) do { return m.Do }, no, true},
		{"Try", func(m *Map[string, int]) do { return m.Try }, nil, true},
		{"Try", func(m *Map[string, int]) do { return m.Try }, no, false},
		{"Share", func(m *Map[string, int]) do { return m.Share }, nil, false},
		{"Share", func(m *Map[string, int]) do { return m.Share }, no, false},
	}
	for _, tt := range tests {
		var m Map[string, int]
		runs := 0
		for range 2 {
			_, err := tt.do(&m)(t.Context(), "a", func() (int, error) { runs++; return 1, tt.err })
			if err != tt.err {
				t.Errorf("%s: error %v, want %v", tt.name, err, tt.err)
			}
		}
		if kept := runs == 1; kept != tt.want {
			t.Errorf("%s: after the error %v the result is kept: %v, want %v", tt.name, tt.err,
				kept, tt.want)
		}
	}
}

// TestAbandoned cancels the caller that runs f while another one waits: the other runs its own f.
func TestAbandoned(t *testing.T) {
	type do func(context.Context, string, func() (int, error)) (int, error)
	for name, of := range map[string]func(*Map[string, int]) do{
		"Do":    func(m *Map[string, int]) do { return m.Do },
		"Try":   func(m *Map[string, int]) do { return m.Try },
		"Share": func(m *Map[string, int]) do { return m.Share },
	} {
		synctest.Test(t, func(t *testing.T) {
			var m Map[string, int]
			do := of(&m)
			ctx, cancel := context.WithCancel(t.Context())
			cause := errors.New("canceled")
			go do(ctx, "a", func() (int, error) { <-ctx.Done(); return 0, cause })
			synctest.Wait()
			go func() {
				got, err := do(t.Context(), "a", func() (int, error) { return 42, nil })
				if got != 42 || err != nil {
					t.Errorf("%s = %d, %v, want 42, nil", name, got, err)
				}
			}()
			synctest.Wait()
			cancel()
			synctest.Wait()
		})
	}
}
