package layers

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/layerbuild/layerbuild/snapshot"
)

func TestLazy(t *testing.T) {
	var z Lazy
	made := 0
	z.Add("a", func(context.Context) error { made++; return nil })
	z.Add("bad", func(context.Context) error { return errors.New("no") })
	for range 2 {
		for _, id := range []snapshot.ID{"a", "there", ""} {
			if err := z.Materialize(t.Context(), id); err != nil {
				t.Errorf("Materialize(%q): %v", id, err)
			}
		}
		if err := z.Materialize(t.Context(), "bad"); err == nil {
			t.Error("Materialize returns no error of the function")
		}
	}
	if made != 1 {
		t.Errorf("the snapshot was made %d times, want once", made)
	}
}

func TestLazyOutline(t *testing.T) {
	var z Lazy
	made := 0
	for _, id := range []snapshot.ID{"a", "b", "bad", "none"} {
		z.Add(id, func(context.Context) error { return nil })
	}
	for _, id := range []snapshot.ID{"a", "b"} {
		z.AddOutline(id, func(context.Context) (snapshot.ID, error) {
			made++
			return id + ".o", nil
		})
	}
	z.AddOutline("bad", func(context.Context) (snapshot.ID, error) { return "", errors.New("no") })
	if err := z.Materialize(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		// b was made, so that its outline is not needed.
		for id, want := range map[snapshot.ID]snapshot.ID{"a": "a.o", "b": "", "none": "",
			"there": ""} {
			if got, err := z.Outline(t.Context(), id); got != want || err != nil {
				t.Errorf("Outline(%q) = %q, %v; want %q", id, got, err, want)
			}
		}
		if _, err := z.Outline(t.Context(), "bad"); err == nil {
			t.Error("Outline returns no error of the function")
		}
	}
	z.KeepOutlines = true
	if got, err := z.Outline(t.Context(), "b"); got != "b.o" || err != nil {
		t.Errorf("with KeepOutlines: %q, %v", got, err)
	}
	if made != 2 {
		t.Errorf("%d outlines were made, want 2", made)
	}
	if !z.Has("a") || z.Has("there") {
		t.Error("Has is wrong")
	}
}

// TestLazyOnLazy makes a snapshot whose parent is lazy, too, from several goroutines.
func TestLazyOnLazy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var z Lazy
		var made []snapshot.ID
		goOn := make(chan struct{})
		z.Add("parent", func(context.Context) error {
			<-goOn
			made = append(made, "parent")
			return nil
		})
		z.Add("child", func(ctx context.Context) error {
			err := z.Materialize(ctx, "parent")
			made = append(made, "child")
			return err
		})
		var ended atomic.Int32
		for _, id := range []snapshot.ID{"child", "parent", "child"} {
			go func() {
				if err := z.Materialize(t.Context(), id); err != nil {
					t.Error(err)
				}
				ended.Add(1)
			}()
			synctest.Wait()
		}
		z.Add("other", func(context.Context) error { return nil }) // while others are made
		if err := z.Materialize(t.Context(), "other"); err != nil || ended.Load() > 0 {
			t.Errorf("error %v; %d calls have not waited", err, ended.Load())
		}
		close(goOn)
		synctest.Wait()
		if want := []snapshot.ID{"parent", "child"}; !slices.Equal(made, want) || ended.Load() != 3 {
			t.Errorf("made %q, want %q; %d of 3 calls have ended", made, want, ended.Load())
		}
	})
}

// TestLazyCanceled cancels the caller that makes a snapshot: another one that waits makes it, and
// one that is canceled, too, does not wait.
func TestLazyCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var z Lazy
		calls, stop := 0, errors.New("stop")
		z.Add("a", func(ctx context.Context) error {
			if calls++; calls > 1 {
				return nil
			}
			<-ctx.Done()
			return context.Cause(ctx)
		})
		first, cancelFirst := context.WithCancelCause(t.Context())
		second, cancelSecond := context.WithCancelCause(t.Context())
		var mu sync.Mutex
		got := map[string]error{}
		for _, c := range []struct {
			name string
			ctx  context.Context
		}{{"first", first}, {"second", second}, {"third", t.Context()}} {
			go func() {
				err := z.Materialize(c.ctx, "a")
				mu.Lock()
				defer mu.Unlock()
				got[c.name] = err
			}()
			synctest.Wait()
		}
		cancelSecond(stop)
		synctest.Wait()
		mu.Lock()
		if len(got) != 1 || got["second"] != stop {
			t.Errorf("errors %v, want that of the second caller alone", got)
		}
		mu.Unlock()
		cancelFirst(stop)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(got) != 3 || got["first"] != stop || got["third"] != nil || calls != 2 {
			t.Errorf("errors %v, %d calls", got, calls)
		}
	})
}
