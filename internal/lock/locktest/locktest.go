package locktest

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// errCanceled is the cause of the contexts that Canceled cancels.
var errCanceled = errors.New("canceled by locktest")

// hang is the time after which a call that its context cannot end fails the test.
const hang = time.Minute

// Hold locks a file or directory exclusively, as another process would, and returns a function that
// releases it. It makes the file if there is none.
func Hold(t testing.TB, path string) (release func()) {
	t.Helper()
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.Create(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		t.Fatalf("lock %s: %v", path, err)
	}
	release = sync.OnceFunc(func() {
		// A process that was just started may have a copy of the descriptor.
		unix.Flock(int(f.Fd()), unix.LOCK_UN)
		f.Close()
	})
	t.Cleanup(release)
	return release
}

// Canceled calls call while the lock at path is held, and cancels its context when it waits: call
// must then return the cause. When the lock is free again, call must succeed.
//
// The first call is made in a bubble of package synctest. It must not wait for goroutines or
// processes outside of it.
func Canceled(t *testing.T, path string, call func(context.Context) error) {
	t.Helper()
	release := Hold(t, path)
	defer release()
	var hung atomic.Bool
	timer := time.AfterFunc(hang, func() { hung.Store(true); release() })
	defer timer.Stop()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		done := make(chan error, 1)
		go func() { done <- call(ctx) }()
		synctest.Wait() // until it waits for the lock in a way that its context can end
		select {
		case err := <-done:
			if hung.Load() {
				t.Fatal("the call waits in a way that its context cannot end")
			}
			t.Fatalf("the call did not wait: it returned %v", err)
		default:
		}
		cancel(errCanceled)
		if err := <-done; !errors.Is(err, errCanceled) {
			t.Errorf("the canceled call returned %v, not the cause", err)
		}
	})
	release()
	if err := call(t.Context()); err != nil {
		t.Errorf("the call when the lock is free: %v", err)
	}
}
