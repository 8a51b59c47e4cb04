package lock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/lock/locktest"
)

// TestCanceled cancels every function that waits.
func TestCanceled(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "lock")
	for _, test := range []struct {
		name string
		path string
		wait func(ctx context.Context) (*Held, error)
	}{
		{"Acquire", file, func(ctx context.Context) (*Held, error) {
			return Acquire(ctx, file, true)
		}},
		{"Acquire shared", file, func(ctx context.Context) (*Held, error) {
			return Acquire(ctx, file, false)
		}},
		{"AcquireDir", dir, func(ctx context.Context) (*Held, error) {
			return AcquireDir(ctx, dir)
		}},
		{"Hold", file, func(ctx context.Context) (*Held, error) {
			f, err := os.Open(file)
			if err != nil {
				return nil, err
			}
			held, err := Hold(ctx, f, false)
			if err != nil {
				f.Close()
			}
			return held, err
		}},
		{"Wait", file, func(ctx context.Context) (*Held, error) {
			f, err := os.Open(file)
			if err != nil {
				return nil, err
			}
			held := &Held{f}
			if err := held.Wait(ctx, true); err != nil {
				return nil, errors.Join(err, held.Close())
			}
			return held, nil
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			locktest.Canceled(t, test.path, func(ctx context.Context) error {
				held, err := test.wait(ctx)
				if err != nil {
					return err
				}
				return held.Close()
			})
			// A lock that is free needs no wait.
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			held, err := test.wait(ctx)
			if err != nil {
				t.Fatalf("a free lock, after the context has ended: %v", err)
			}
			if err := held.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestClose checks that Close releases the lock although a process that was just started has a copy
// of the descriptor.
func TestClose(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "lock")
	for name, try := range map[string]func() (*Held, error){
		"file":          func() (*Held, error) { return Try(file, true) },
		"shared":        func() (*Held, error) { return Try(file, false) },
		"existing file": func() (*Held, error) { return TryExisting(file) },
		"directory":     func() (*Held, error) { return TryDir(dir) },
		"waiting":       func() (*Held, error) { return Acquire(t.Context(), file, true) },
		"waiting for a directory": func() (*Held, error) {
			return AcquireDir(t.Context(), dir)
		},
		"an open file": func() (*Held, error) {
			f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o644)
			if err != nil {
				return nil, err
			}
			return Hold(t.Context(), f, true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			held, err := try()
			if err != nil {
				t.Fatal(err)
			}
			path := held.File().Name()
			again := func() error {
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				return set(f, true)
			}
			if err := again(); !errors.Is(err, ErrHeld) {
				t.Errorf("a second lock: %v, want ErrHeld", err)
			}
			copied, err := unix.FcntlInt(held.File().Fd(), unix.F_DUPFD_CLOEXEC, 3)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(copied)
			if err := held.Close(); err != nil {
				t.Fatal(err)
			}
			if err := again(); err != nil {
				t.Errorf("a lock after Close: %v", err)
			}
		})
	}
}
