package executor

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/mount"
)

// image is a root file system for a test: a directory that contains busybox.
type image struct {
	t   testing.TB
	dir string
}

const busybox = "/bin/busybox"

func mayRun(t testing.TB) {
	t.Helper()
	if fd, err := unix.OpenTree(unix.AT_FDCWD, "/",
		unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE); err != nil {
		t.Skip("needs root, or `unshare -rm`: mounts are not allowed here")
	} else {
		unix.Close(fd)
	}
}

// newImage returns an empty image.
func newImage(t testing.TB) *image {
	t.Helper()
	mayRun(t)
	im := &image{t, filepath.Join(t.TempDir(), "root")}
	im.mkdir("")
	return im
}

func newBusybox(t testing.TB) *image {
	t.Helper()
	im := newImage(t)
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Skipf("no busybox: %v", err)
	}
	if out, err := exec.Command("ldd", busybox).CombinedOutput(); err == nil {
		t.Skipf("busybox is not static: %s", out)
	}
	im.mkdir("bin")
	im.write("bin/busybox", string(data), 0o755)
	for _, name := range []string{"sh", "ls", "cat", "id", "stat", "true", "sleep", "mount",
		"touch", "env", "echo", "head", "hostname", "umount", "unshare", "mkdir", "chmod", "kill",
		"ps", "rm", "tty", "stty", "readlink", "test", "mknod", "pwd", "grep", "wc",
		"dmesg", "ip", "df"} {
		im.link("busybox", "bin/"+name)
	}
	return im
}

func (im *image) path(name string) string { return filepath.Join(im.dir, name) }

func (im *image) mkdir(name string) {
	im.t.Helper()
	if err := os.MkdirAll(im.path(name), 0o755); err != nil {
		im.t.Fatal(err)
	}
}

func (im *image) write(name, data string, mode os.FileMode) {
	im.t.Helper()
	if err := os.WriteFile(im.path(name), []byte(data), mode); err != nil {
		im.t.Fatal(err)
	}
	if err := os.Chmod(im.path(name), mode); err != nil {
		im.t.Fatal(err)
	}
}

func (im *image) link(target, name string) {
	im.t.Helper()
	if err := os.Symlink(target, im.path(name)); err != nil {
		im.t.Fatal(err)
	}
}

func (im *image) spec(a Action) *Spec {
	return &Spec{
		Root:     []mount.Mount{{Type: "bind", Source: im.dir, Options: []string{"rbind"}}},
		Action:   a,
		UserNS:   userNS,
		SingleID: singleID,
		child:    os.Getenv(childVar) != "",
	}
}

var userNS, singleID = func() (bool, bool) {
	b, _ := os.ReadFile("/proc/self/uid_map")
	f := bytes.Fields(b)
	return len(f) != 3 || string(f[2]) != "4294967295", len(f) == 3 && string(f[2]) == "1"
}()

const path1 = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func shell(script string) *Process {
	return &Process{Args: []string{"/bin/sh", "-c", script}, Env: []string{path1}}
}

// run runs a step and returns its output.
func (im *image) run(a Action) (string, error) {
	im.t.Helper()
	var out bytes.Buffer
	_, err := Run(context.Background(), im.spec(a), &out, &out)
	return out.String(), err
}

func (im *image) mustRun(a Action) string {
	im.t.Helper()
	out, err := im.run(a)
	if err != nil {
		im.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// TestMessages checks that each kind of loss has a message, and that warnings follow.
func TestMessages(t *testing.T) {
	r := Result{Files: copyfs.Result{
		StandIns: 2, FirstStandIn: "dev/null", AttrsLost: 3, FirstAttr: "f: user.x",
		OwnersLost: 4, FirstOwner: "g: 1:2", Warnings: []string{"of the files"},
	}, Warnings: []string{"of the process"}}
	got := r.Messages()
	want := []string{"(2, the first is dev/null)", "(3, the first is f: user.x)",
		"of 4 files could not be set (the first is g: 1:2)", "of the files", "of the process"}
	if len(got) != len(want) {
		t.Fatalf("messages %q, want %d", got, len(want))
	}
	for i, text := range want {
		if !strings.Contains(got[i], text) {
			t.Errorf("message %d is %q, want one with %q", i, got[i], text)
		}
	}
	if got := (&Result{}).Messages(); len(got) > 0 {
		t.Errorf("messages of a result without losses: %q", got)
	}
}
