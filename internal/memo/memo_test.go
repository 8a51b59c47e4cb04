package memo

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
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

func TestForgetAndEach(t *testing.T) {
	var m Map[int, int]
	n := 0
	next := func() (int, error) { n++; return n, nil }
	for _, want := range []int{1, 1} {
		if got, _ := m.Do(t.Context(), 1, next); got != want {
			t.Errorf("Do = %d, want %d", got, want)
		}
	}
	m.Forget(1)
	if got, _ := m.Do(t.Context(), 1, next); got != 2 {
		t.Errorf("Do after Forget = %d, want 2", got)
	}
	_, _ = m.Do(t.Context(), 2, func() (int, error) { return 7, errors.New("no") })
	sum := 0
	m.Each(func(v int) { sum += v })
	if sum != 2 {
		t.Errorf("Each gave a sum of %d, want 2: values with an error do not count", sum)
	}
}

// TestEnd checks that a call that has ended is not found again, and that those that waited for it
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
	m.End("a", c, 7, nil)
	if got, err := waiting.Wait(t.Context()); got != 7 || err != nil {
		t.Errorf("Wait = %d, %v, want 7, nil", got, err)
	}
	if _, mine := m.Claim("a"); !mine {
		t.Error("after End the call is still there")
	}
}
