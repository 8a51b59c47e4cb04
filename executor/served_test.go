package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/executor/copyfs/copyfstest"
	"github.com/layerbuild/layerbuild/internal/mount"
)

// fuse returns the image as the upper directory of a mount that fuse-overlayfs serves.
func (im *image) fuse() mount.Mount {
	im.t.Helper()
	dir := im.t.TempDir()
	m := mount.Mount{Type: mount.FuseOverlay, Lower: []string{dir + "/lower"}, Upper: im.dir,
		Work: dir + "/work", Options: []string{"writeback=0"}}
	for _, d := range []string{dir + "/lower", dir + "/work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			im.t.Fatal(err)
		}
	}
	f, err := mount.Open([]mount.Mount{m})
	if err != nil {
		im.t.Skipf("fuse-overlayfs does not work here: %v", err)
	}
	f.Close()
	for len(servers(im.t)) > 0 { // its program ends by itself, after the mount is closed
		time.Sleep(time.Millisecond)
	}
	return m
}

// servers returns the pids of this process's children that serve files.
func servers(t testing.TB) []int {
	t.Helper()
	names, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, name := range names {
		list, _ := os.ReadFile(name)
		for _, f := range strings.Fields(string(list)) {
			var pid int
			fmt.Sscan(f, &pid)
			if comm, _ := os.ReadFile("/proc/" + f + "/comm"); strings.HasPrefix(string(comm),
				"fuse-overlayfs") {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// Steps run on files that a program serves. When Run returns, the program has ended and was waited
// for.
func TestServed(t *testing.T) {
	im := newBusybox(t)
	root := im.fuse()
	src := copyfstest.Source(t, "file a 0644 x", "dir d 0755", "file d/b 0644 y")
	other := newBusybox(t)
	other.write("there", "there\n", 0o644)
	before := openFiles(t)
	withTree := shell("cat /mnt/there; ps; ls /proc; echo new > /made/new; rm /c/a")
	withTree.Mounts = []Mount{{Target: "/mnt", Source: Tree{Mounts: []mount.Mount{other.fuse()}}}}
	for _, a := range []Action{
		&Mkdir{Path: "/made"}, &copyfs.Copy{Dest: "/c/", Sources: one(src, copyfs.Item{Path: "."})},
		withTree,
		shell("exit 7"), &Process{Args: []string{"nope"}},
		shell("sleep 1000 & true"),
	} {
		s := im.spec(a)
		s.Root = []mount.Mount{root}
		var out bytes.Buffer
		_, err := Run(t.Context(), s, &out, &out)
		exit, ok := errors.AsType[*ExitError](err)
		if err != nil && (!ok || exit.Code != 7 && exit.Code != 127) {
			t.Errorf("%+v: %v\n%s", a, err, out.String())
		}
		if a == Action(withTree) && (!strings.HasPrefix(out.String(), "there\n") ||
			strings.Contains(out.String(), "fuse")) {
			t.Errorf("a step sees the program, or not the files: %s", out.String())
		}
		if left := servers(t); len(left) > 0 {
			t.Fatalf("%+v: the program still runs: %v", a, left)
		}
	}
	for name, want := range map[string]string{"made/new": "new\n", "c/d/b": "y"} {
		if got, err := os.ReadFile(im.path(name)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	if _, err := os.Stat(im.path("c/a")); !os.IsNotExist(err) {
		t.Errorf("c/a is still there: %v", err)
	}
	noMoreFiles(t, before)
}

// A step whose files are lost is killed and fails, and the error gives the reason, even if the
// command ignores the loss.
func TestServedProgramDies(t *testing.T) {
	for _, script := range []string{"echo started; sleep 1000",
		"echo started; while ls / >/dev/null; do :; done; sleep 1000",
		"trap '' TERM; echo started; sleep 1000 & wait"} {
		im := newBusybox(t)
		s := im.spec(shell(script))
		s.Root = []mount.Mount{im.fuse()}
		r, w := io.Pipe()
		go func() {
			r.Read(make([]byte, 8))
			for _, pid := range servers(t) {
				unix.Kill(pid, unix.SIGKILL)
			}
			io.Copy(io.Discard, r)
		}()
		_, err := Run(t.Context(), s, w, w)
		w.Close()
		if err == nil || !strings.Contains(err.Error(),
			"the step's files were lost: mount fuse-overlayfs: the program has ended: signal: killed") {
			t.Errorf("%s: got %v", script, err)
		}
	}
}

func TestServedCancel(t *testing.T) {
	im := newBusybox(t)
	s := im.spec(shell("trap '' TERM INT; echo started; sleep 1000 & sleep 1000"))
	s.Root = []mount.Mount{im.fuse()}
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	go func() {
		r.Read(make([]byte, 8))
		cancel()
		io.Copy(io.Discard, r)
	}()
	_, err := Run(ctx, s, w, w)
	w.Close()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left := servers(t); len(left) > 0 {
		t.Errorf("the program still runs: %v", left)
	}
}

// A mount that cannot be served is an error, and programs that were started before it end.
func TestServedErrors(t *testing.T) {
	im := newBusybox(t)
	root := im.fuse()
	missing := root
	missing.Lower = []string{missing.Lower[0] + "/no/such/directory", missing.Lower[0]}
	s := im.spec(&Process{Args: []string{"true"}, Env: []string{path1},
		Mounts: []Mount{{Target: "/m", Source: Tree{Mounts: []mount.Mount{missing}}}}})
	s.Root = []mount.Mount{root}
	_, err := Run(t.Context(), s, nil, nil)
	if err == nil || !strings.HasPrefix(err.Error(),
		"mount the step's file systems: mount fuse-overlayfs: the program has ended: exit status 1 (") {
		t.Errorf("got %v", err)
	}
	if left := servers(t); len(left) > 0 {
		t.Errorf("a program still runs: %v", left)
	}
}
