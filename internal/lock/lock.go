// Package lock keeps processes that share a directory out of each other's way, with flock(2) on a file.
package lock

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld says that somebody else holds the lock.
var ErrHeld = errors.New("somebody else holds the lock")

// Acquire opens the file, which is made if it is missing, and locks it: exclusively, or shared with others who share
// it. It waits as long as ctx lets it. Closing the file gives the lock back; so does the end of the process.
func Acquire(ctx context.Context, path string, exclusive bool) (*os.File, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		// flock(2) cannot be interrupted by a context, so it is asked again and again.
		f, err := Try(path, exclusive)
		if !errors.Is(err, ErrHeld) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// Try is Acquire that does not wait: the error is ErrHeld.
func Try(path string, exclusive bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	return try(f, exclusive)
}

// Convert makes a held lock exclusive or shared. It does not wait, but returns ErrHeld. The lock may be lost then,
// because flock(2) releases it before it requests the other kind.
func Convert(f *os.File, exclusive bool) error { return set(f, exclusive) }

// Wait makes a lock on an open file exclusive or shared, and waits until nobody holds another that excludes it. No context
// ends the wait: it is for locks that are held for moments.
func Wait(f *os.File, exclusive bool) error {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	return flock(f, how)
}

// Unlock gives a lock back, and keeps the file open.
func Unlock(f *os.File) error { return flock(f, unix.LOCK_UN) }

// TryExisting is Try, exclusively, for a file that must exist.
func TryExisting(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return try(f, true)
}

// TryDir is Try for a directory, exclusively. Nothing is made: a directory that its owner removes meanwhile stays empty
// and can be removed. It is os.ErrNotExist if path is not the directory any more that was locked.
func TryDir(path string) (*os.File, error) {
	f, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if f, err = try(f, true); err != nil {
		return nil, err
	}
	held, err := f.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Lstat(path); err == nil && !os.SameFile(held, there) {
			err = &os.PathError{Op: "lock", Path: path, Err: os.ErrNotExist}
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// try locks an open file, which it takes over.
func try(f *os.File, exclusive bool) (*os.File, error) {
	if err := set(f, exclusive); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
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
