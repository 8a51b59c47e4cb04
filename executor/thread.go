package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A step needs namespaces and a root of its own, but not a program of its own: on Linux both belong to a thread. So its
// root file system is put together by a thread of this program, which takes leave of all other threads' namespaces
// first and ends with the step. (A step's child costs 3 ms of CPU before it does anything.) What is left for a child
// (see childOnly) needs what belongs to a process.

// childOnly says whether a step needs a child that is this program.
func childOnly(s *Spec) bool {
	if s.child {
		return true
	}
	switch a := s.Action.(type) {
	case *Process:
		// With all capabilities a command could look into the first process, whose memory is this program's.
		return a.TTY || a.Insecure
	case *Copy:
		return a.Unpack // unpacks on several threads
	}
	return false
}

// errChild says that a step could not begin on a thread, since the kernel or what surrounds the program forbids it,
// and that nothing was done.
var errChild = errors.New("a step's thread can't have its namespaces")

// onThread calls f on a thread that has a mount namespace of its own, and the other namespaces that flags name, and
// returns when it has left the mount namespace, so that all that f has mounted is gone.
func onThread(flags int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// It stays locked: the thread ends with the goroutine.
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- inNamespaces(flags, f)
			return
		}
		// The first thread stands for the process: in /proc, for one. It can neither be changed nor end.
		other := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			defer close(other)
			done <- inNamespaces(flags, f)
		}()
		<-other
		runtime.UnlockOSThread()
	}()
	return <-done
}

func inNamespaces(flags int, f func() error) (err error) {
	old, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errChild
	}
	defer unix.Close(old)
	if unix.Unshare(unix.CLONE_FS) != nil || !mayReturn(old) || unix.Unshare(flags|unix.CLONE_NEWNS) != nil {
		return errChild
	}
	defer func() {
		// Mounts that outlive the thread's stay would be busy when the snapshot is committed.
		if lerr := unix.Setns(old, unix.CLONE_NEWNS); err == nil && lerr != nil {
			err = fmt.Errorf("leave the step's mounts: %w", lerr)
		}
	}()
	return f()
}

// mayReturn says whether the thread, which has a root and a working directory of its own, may come back to its mount
// namespace: in a user namespace it may not if that is the machine's, and in a chroot it would be somewhere else. That
// is the same for all threads, and as long as the program runs.
func mayReturn(mounts int) bool {
	if returns.Load() {
		return true
	}
	var before, after unix.Stat_t
	ok := unix.Stat("/", &before) == nil && unix.Setns(mounts, unix.CLONE_NEWNS) == nil && unix.Stat("/", &after) == nil &&
		before.Dev == after.Dev && before.Ino == after.Ino
	returns.Store(ok)
	return ok
}

var returns atomic.Bool // mayReturn has said so

// runOnThread runs a step without a child that is this program.
func runOnThread(ctx context.Context, s *Spec, stdout, stderr io.Writer) (Result, error) {
	var r Result
	var err error
	s = s.attach(func(i int) int { return int(s.trees[i].Fd()) })
	switch a := s.Action.(type) {
	case *Process:
		err = runProcessOnThread(ctx, s, a, stdout, stderr, &r)
	case *Copy:
		dirs := make([]int, len(a.Sources))
		for i := range a.Sources {
			dirs[i] = int(a.Sources[i].Dir.Fd())
		}
		if a.Frozen != nil {
			dirs = append(dirs, int(a.Frozen.Fd()))
		}
		err = onThread(0, func() error { return runCopy(ctx, s, a, dirs, nil, &r) })
	case *Mkdir:
		err = onThread(0, func() error { return runMkdir(s, a, &r) })
	default:
		panic("unreachable")
	}
	if err != nil && ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	return r, err
}
