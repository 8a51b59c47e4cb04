package state

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/test/lab"
)

// waitDockerfile has a step that makes the file begun in its cache mount, and ends when the file
// end is there.
const waitDockerfile = `FROM busybox
RUN --mount=type=cache,target=/c touch /c/begun; until [ -e /c/end ]; do sleep 0.1; done; echo >/f
`

// TestInterruptedWait interrupts builds that wait for a lock which another process holds and does
// not release. They end as usual and leave nothing behind, and the next build works.
func TestInterruptedWait(t *testing.T) {
	lab.Root(t)
	for _, test := range []struct {
		name string
		lock string // the locked file, below the state directory
		step bool   // it is locked while the step runs, and else before the build starts
		open bool   // the build opens the file before it waits for the lock
		args []string
	}{
		{name: "the state while it is opened", lock: "lock", open: true},
		{name: "a collector after a step", lock: "lock", step: true},
		{name: "the snapshots after a step", lock: "snapshots/full/lock", step: true,
			open: true},
		{name: "the names of images", lock: "oci/lock", step: true, open: true},
		{name: "the ledger of syncs", lock: "cache/lock", step: true, open: true,
			args: []string{"--sync"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := lab.New(t)
			l.Busybox()
			l.Write("Dockerfile", waitDockerfile, "Plain", "FROM busybox\n")
			l.Run("build", "-q", "--driver=copy", "-f=Plain", ".") // so that all locks are there
			path := filepath.Join(l.State, test.lock)
			var release, opened func()
			if !test.step {
				release, opened = hold(t, path), opens(t, path)
			}
			args := append([]string{"--driver=copy", "--progress=plain", "-t=app", "."},
				test.args...)
			if !test.step {
				args = append(args, "-f=Plain")
			}
			cmd := l.Command("build", args...)
			var log bytes.Buffer
			cmd.Stderr = &log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if test.step {
				end := step(t, l)
				release, opened = hold(t, path), opens(t, path)
				end()
			}
			if test.open {
				opened()
			} else {
				until(t, "the step has ended", func() bool { return !children(t, cmd) })
			}
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // a build that does not end is killed, and the test fails
			if code := cmd.ProcessState.ExitCode(); code != 130 ||
				!strings.HasSuffix("\n"+log.String(), "\nlayerbuild: interrupted\n") {
				t.Errorf("status %d, want 130 and a last line that says so:\n%s", code, &log)
			}
			left(t, l.State)
			release()
			l.Run("build", args...)
			left(t, l.State)
		})
	}
}

// step waits until the step of a build has begun, and returns a function that lets it end.
func step(t *testing.T, l *lab.Lab) (end func()) {
	t.Helper()
	begun := ""
	until(t, "the step has begun", func() bool {
		found, err := filepath.Glob(filepath.Join(l.State, "cache/mounts/*/fs/begun"))
		if err != nil {
			t.Fatal(err)
		}
		begun = strings.Join(found, " ")
		return begun != ""
	})
	return func() {
		if err := os.WriteFile(filepath.Join(filepath.Dir(begun), "end"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// children reports whether a process has child processes.
func children(t *testing.T, cmd *exec.Cmd) bool {
	t.Helper()
	lists, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid),
		"task/*/children"))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		if pids, _ := os.ReadFile(list); len(pids) > 0 {
			return true
		}
	}
	return false
}

// hold locks a file exclusively. The result releases the lock.
func hold(t *testing.T, path string) (release func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	until(t, path+" is free", func() bool {
		return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
	})
	return func() {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
			t.Error(err)
		}
	}
}

// patience is the time after which a test that waits for a build fails.
const patience = 2 * time.Minute

// until waits until done returns true.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waiting in vain until %s", what)
		}
	}
}

// opens returns a function that waits until a process opens the file at path, which another one
// has locked, after the call of opens.
func opens(t *testing.T, path string) (wait func()) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	t.Cleanup(func() { events.Close() })
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := events.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := events.Read(make([]byte, 4<<10)); err != nil {
			t.Fatalf("waiting until the build opens %s: %v", path, err)
		}
	}
}

// left fails the test if there are temporary files, or files of running processes, in the state.
func left(t *testing.T, state string) {
	t.Helper()
	for _, pattern := range []string{"tmp-*", "running/*", "oci/tmp/*", "cache/tmp/*",
		"snapshots/tmp/*", "snapshots/full/tmp/*"} {
		found, err := filepath.Glob(filepath.Join(state, pattern))
		if err != nil || len(found) > 0 {
			t.Errorf("left behind: %q, %v", found, err)
		}
	}
}
