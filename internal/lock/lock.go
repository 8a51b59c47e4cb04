package lock

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld is returned when another process, or another open file of this one, holds the lock.
var ErrHeld = errors.New("another process holds the lock")

// Held is an open file or directory that is or was locked.
//
// A lock belongs to the open file (flock(2)). A process that this program has just started has a
// copy of every descriptor until it closes them, so that closing the file alone does not release
// the lock. Close releases it first.
type Held struct{ f *os.File }

// Close releases the lock and closes the file. The lock is also released when the process ends.
func (h *Held) Close() error { return errors.Join(h.Unlock(), h.f.Close()) }

// File returns the file, which the caller must not close.
func (h *Held) File() *os.File { return h.f }

// Unlock releases the lock and keeps the file open.
func (h *Held) Unlock() error { return flock(h.f, unix.LOCK_UN) }

// Convert makes the lock exclusive or shared. It returns ErrHeld instead of waiting. The lock may
// then be lost, because flock(2) releases it before it requests the other kind.
func (h *Held) Convert(exclusive bool) error { return set(h.f, exclusive) }

// Wait is like Convert, but waits like Acquire. After an error the lock may be lost too.
func (h *Held) Wait(ctx context.Context, exclusive bool) error {
	return poll(ctx, func() error { return h.Convert(exclusive) })
}

// Hold locks an open file, exclusively or shared, and waits like Acquire. It takes ownership of f
// unless it returns an error.
func Hold(ctx context.Context, f *os.File, exclusive bool) (*Held, error) {
	if err := poll(ctx, func() error { return set(f, exclusive) }); err != nil {
		return nil, err
	}
	return &Held{f}, nil
}

// Acquire opens the file, which it makes if it is missing, and locks it, exclusively or shared. It
// waits while another conflicting lock is held. If ctx ends first, it returns the cause
// (context.Cause). A lock that no one else holds is acquired even if ctx has ended.
func Acquire(ctx context.Context, path string, exclusive bool) (*Held, error) {
	return acquire(ctx, func() (*Held, error) { return Try(path, exclusive) })
}

func acquire(ctx context.Context, try func() (*Held, error)) (h *Held, err error) {
	err = poll(ctx, func() error {
		h, err = try()
		return err
	})
	return h, err
}

// poll calls try again while it returns ErrHeld, until ctx ends. A context cannot interrupt
// flock(2), so try does not wait.
func poll(ctx context.Context, try func() error) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if err := try(); !errors.Is(err, ErrHeld) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// Try is like Acquire but returns ErrHeld instead of waiting.
func Try(path string, exclusive bool) (*Held, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	return try(f, exclusive)
}

// TryExisting is like Try with exclusive set, for a file that must exist.
func TryExisting(path string) (*Held, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return try(f, true)
}

// AcquireDir is like Acquire with exclusive set, for an existing directory. It does not make a file
// in it.
func AcquireDir(ctx context.Context, path string) (*Held, error) {
	return acquire(ctx, func() (*Held, error) {
		f, err := os.OpenFile(path, unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		return try(f, true)
	})
}

// TryDir is like Try with exclusive set, for a directory. It does not make a file in it, so that a
// directory that its owner removes meanwhile stays empty and can be removed. It returns
// os.ErrNotExist if path is no longer the directory that was locked.
func TryDir(path string) (*Held, error) {
	f, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	held, err := try(f, true)
	if err != nil {
		return nil, err
	}
	locked, err := f.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Lstat(path); err == nil && !os.SameFile(locked, there) {
			err = &os.PathError{Op: "lock", Path: path, Err: os.ErrNotExist}
		}
	}
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	return held, nil
}

// try locks an open file. It closes the file if that fails.
func try(f *os.File, exclusive bool) (*Held, error) {
	if err := set(f, exclusive); err != nil {
		f.Close()
		return nil, err
	}
	return &Held{f}, nil
}

func set(f *os.File, exclusive bool) error {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	return flock(f, how|unix.LOCK_NB)
}

func flock(f *os.File, how int) error {
	for {
		switch err := unix.Flock(int(f.Fd()), how); err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return ErrHeld
		default:
			return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}
