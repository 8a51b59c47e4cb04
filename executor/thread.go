package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"golang.org/x/sys/unix"
)

// A step needs its own namespaces and its own root, but not its own process: on Linux both belong
// to a thread. So a thread of this program leaves the namespaces that it shares with the other
// threads, mounts the step's root file system, and ends with the step. (A step's child costs 3 ms
// of CPU before it does anything.) Steps that need a process run in a child (see needsProcess).

// needsProcess reports whether a step must run in a child process, which is this program started
// again.
func needsProcess(s *Spec) bool {
	if s.child {
		return true
	}
	switch a := s.Action.(type) {
	case *Process:
		// With more capabilities a command could inspect process 1 (ptrace(2)), which without a
		// child has the root of this machine.
		return a.TTY || a.addsCaps()
	case *copyfs.Copy:
		return a.Unpack // unpacks on several threads
	}
	return false
}

// errNeedsProcess is returned when a step cannot start on a thread, because the kernel or a
// surrounding container forbids it. Nothing was done.
var errNeedsProcess = errors.New("a thread cannot enter new namespaces here")

// onThread calls f on a thread that has its own mount namespace and the other new namespaces that
// flags name. It returns after the thread has left the mount namespace, so that all mounts made by
// f are gone.
func onThread(flags int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// The goroutine stays locked to its thread, so the thread ends with the goroutine.
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- inNamespaces(flags, f)
			return
		}
		// The first thread represents the process, for example in /proc. Its namespaces must not
		// change, and it must not end.
		other := make(chan error)
		go func() {
			runtime.LockOSThread()
			other <- inNamespaces(flags, f)
		}()
		err := <-other
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

func inNamespaces(flags int, f func() error) (err error) {
	old, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errNeedsProcess
	}
	defer unix.Close(old)
	if unix.Unshare(unix.CLONE_FS) != nil || !probeMountNS(old) ||
		unix.Unshare(flags|unix.CLONE_NEWNS) != nil {
		return errNeedsProcess
	}
	defer func() {
		// A mount namespace that still exists would keep the mounts busy when the snapshot is
		// committed.
		if lerr := unix.Setns(old, unix.CLONE_NEWNS); err == nil && lerr != nil {
			err = fmt.Errorf("leave the step's mounts: %w", lerr)
		}
	}()
	return f()
}

// probeMountNS reports whether the thread, which has its own root and working directory, can return
// to its mount namespace. In a user namespace this is not permitted if the mount namespace is the
// machine's. In a chroot, the thread's root would be another directory afterwards. The result is
// the same for all threads and does not change while the program runs.
func probeMountNS(mounts int) bool {
	if canRestoreMountNS.Load() {
		return true
	}
	var before, after unix.Stat_t
	ok := unix.Stat("/", &before) == nil && unix.Setns(mounts, unix.CLONE_NEWNS) == nil &&
		unix.Stat("/", &after) == nil &&
		before.Dev == after.Dev && before.Ino == after.Ino
	canRestoreMountNS.Store(ok)
	return ok
}

// canRestoreMountNS is set when restoring has succeeded. It is a package variable since it is a
// fact about the process: steps of different callers need not find it out again.
var canRestoreMountNS atomic.Bool

// runOnThread runs a step on a thread, without a child process of its own program.
func runOnThread(ctx context.Context, s *Spec, stdout, stderr io.Writer) (Result, error) {
	var r Result
	var err error
	s = s.attach(func(i int) int { return int(s.trees[i].Fd()) })
	switch a := s.Action.(type) {
	case *Process:
		err = runProcessOnThread(ctx, s, a, stdout, stderr, &r)
	case *copyfs.Copy, *Mkdir:
		err = onThread(0, func() error { return runFiles(ctx, s, nil, &r) })
	default:
		panic("unreachable")
	}
	if err != nil && ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	return r, err
}
