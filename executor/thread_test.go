package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/executor/copyfs/copyfstest"
	"golang.org/x/sys/unix"
)

// openFiles returns this process's open files, by the targets of their links in /proc. Among them
// is the program of process 1, which the first step opens and which is never closed.
func openFiles(t *testing.T) []string {
	t.Helper()
	if _, err := initFile(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, name := range names {
		if to, err := os.Readlink(name); err == nil {
			files = append(files, to)
		}
	}
	slices.Sort(files)
	return files
}

// noMoreFiles waits until no other files are open than before. Code that runs at the same time may
// close one later, and the garbage collector closes files that are no longer used. A file that
// stays open has leaked.
func noMoreFiles(t *testing.T, before []string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		left := openFiles(t)
		for _, name := range before {
			if i := slices.Index(left, name); i >= 0 {
				left = slices.Delete(left, i, i+1)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("files were left open: %q", left)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// After a step, however it ended, this process has no further descriptor, child, or thread in
// another namespace.
func TestNothingStaysInTheProgram(t *testing.T) {
	im := newBusybox(t)
	src := copyfstest.Source(t, "file a 0644 x", "dir d 0755", "file d/b 0644 y")
	im.write("file", "", 0o644)
	steps := []Action{
		shell("true"), shell("exit 1"), shell("kill -9 $$"), shell("sleep 1000 & true"),
		&Process{Args: []string{"nope"}},
		&Process{Args: []string{"true"}, User: "nobody"},
		&Process{Args: []string{"true"}, Dir: "/file/x"},
		&Process{Args: []string{"true"}, Network: "none", Env: []string{path1}},
		&Process{Args: []string{"true"}, Mounts: []Mount{{Target: "/t", Source: Tmpfs{}},
			{Target: "/file/x", Source: Tmpfs{}}}},
		&Process{Args: []string{"true"}, Mounts: []Mount{{Target: "/d",
			Source: Data{Data: []byte("x")}}, {Target: "/x", Source: Bind{Source: "/nope"}}}},
		&Process{Args: []string{"true"}, Ulimits: []Ulimit{{Name: "nope"}}},
		&Process{Args: []string{"true"}, Env: []string{path1}, ReadOnlyRoot: true},
		&Mkdir{Path: "/w/x"}, &Mkdir{Path: "/file/x"},
		&copyfs.Copy{Dest: "/c/", Sources: one(src, copyfs.Item{Path: "."})},
		&copyfs.Copy{Dest: "/file/", Sources: one(src, copyfs.Item{Path: "."})},
	}
	im.run(shell("true")) // make the runtime open the files that it keeps open
	before := openFiles(t)
	cwd, _ := os.Getwd()
	for _, a := range steps {
		im.run(a)
	}
	noMoreFiles(t, before)
	if now, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(now), im.dir) {
		t.Errorf("a mount of the image: %s", now)
	}
	if now, _ := os.Getwd(); now != cwd {
		t.Errorf("working directory: got %s, want %s", now, cwd)
	}
	if kids, err := filepath.Glob("/proc/self/task/*/children"); err == nil {
		for _, name := range kids {
			if b, _ := os.ReadFile(name); len(b) > 0 {
				t.Errorf("children of %s: %s", name, b)
			}
		}
	}
	oneNamespace(t)
}

// oneNamespace waits until all threads are in the same mount namespace: a thread ends a little
// later than its step.
func oneNamespace(t *testing.T) {
	t.Helper()
	home, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"ns/mnt", "ns/uts", "ns/ipc",
		"ns/pid_for_children", "root", "cwd"} {
		want, _ := os.Readlink("/proc/self/" + what)
		for deadline := time.Now().Add(10 * time.Second); ; {
			names, err := filepath.Glob("/proc/self/task/*/" + what)
			if err != nil {
				t.Fatal(err)
			}
			strange := ""
			for _, name := range names {
				if got, err := os.Readlink(name); err == nil && got != want {
					strange = fmt.Sprintf("%s is %s, not %s (%s)", name, got, want, home)
				}
			}
			if strange == "" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(strange)
			}
		}
	}
}

// Steps that run at the same time do not see each other, and do not change this process's umask.
func TestStepsAtOnce(t *testing.T) {
	umask := unix.Umask(0o027)
	defer unix.Umask(umask)
	var wg sync.WaitGroup
	for i := range 6 {
		im := newBusybox(t)
		wg.Go(func() {
			for k := range 5 {
				p := shell(fmt.Sprintf(
					"echo x > /dev/shm/%d; ls /dev/shm; hostname; sleep 0.01; pwd; umask", i))
				p.Hostname = fmt.Sprintf("h%d", i)
				if got, err := im.run(p); err != nil ||
					got != fmt.Sprintf("%d\nh%d\n/\n0022\n", i, i) {
					t.Errorf("got %q, %v", got, err)
				}
				if _, err := im.run(&Mkdir{Path: fmt.Sprintf("/d/%d", k)}); err != nil {
					t.Error(err)
				}
				if fi, err := os.Stat(im.path(fmt.Sprintf("d/%d", k))); err != nil ||
					fi.Mode().Perm() != 0o755 {
					t.Errorf("mode of a new directory: %v, %v", fi.Mode(), err)
				}
			}
		})
	}
	wg.Wait()
	if now := unix.Umask(0o027); now != 0o027 {
		t.Errorf("umask is now %o", now)
	}
	oneNamespace(t)
}

// A step can be canceled at any time. It then ends and returns the context's error.
func TestCancelAnytime(t *testing.T) {
	im := newBusybox(t)
	before := openFiles(t)
	for d := time.Duration(0); d < 6*time.Millisecond; d += 50 * time.Microsecond {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		_, err := Run(ctx, im.spec(shell("sleep 1000")), nil, nil)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: got %v", d, err)
		}
	}
	// a child that is killed cannot remove its mount points
	if left, _ := filepath.Glob(im.path("*")); len(left) != 1 && os.Getenv(childVar) == "" {
		t.Errorf("mount points were left behind: %q", left)
	}
	noMoreFiles(t, before)
}

// A command has the default action for signals that the caller ignores or handles.
func TestIgnoredSignals(t *testing.T) {
	im := newBusybox(t)
	signal.Ignore(unix.SIGHUP, unix.SIGTERM)
	defer signal.Reset(unix.SIGHUP, unix.SIGTERM)
	s := status(t, im, &Process{})
	if s["SigBlk"] != "0000000000000000" || s["SigIgn"] != "0000000000000000" {
		t.Errorf("blocked %s, ignored %s", s["SigBlk"], s["SigIgn"])
	}
	if !signal.Ignored(unix.SIGHUP) {
		t.Error("the caller ignores it no more")
	}
}

func BenchmarkThread(b *testing.B) {
	mayRun(b)
	for b.Loop() {
		if err := onThread(0, func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// In a chroot, the root cannot be changed. The error has the remedy.
func TestErrorInChroot(t *testing.T) {
	dir := t.TempDir()
	err := onThread(0, func() error {
		if err := unix.Chroot(dir); err != nil {
			return errNeedsProcess
		}
		return privateMounts()
	})
	if err == errNeedsProcess {
		t.Skip("this process cannot change the root of a thread")
	}
	if err == nil || !strings.Contains(err.Error(), "mount --bind") {
		t.Errorf("got the error %v", err)
	}
}
