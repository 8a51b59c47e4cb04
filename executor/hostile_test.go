package executor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/mount"
)

// Images are hostile: whatever links and files they have, nothing outside them is touched or read.
func TestHostileImages(t *testing.T) {
	outside := t.TempDir()
	for _, name := range []string{"resolv.conf", "hosts", "passwd", "group"} {
		if err := os.WriteFile(filepath.Join(outside, name), []byte("evil:x:0:0::/:\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := snapshotTree(t, outside)
	up := strings.Repeat("../", 20)
	tests := []struct {
		name  string
		image func(*image)
		p     *Process
		want  string
		err   string
	}{
		{"links to outside", func(im *image) {
			im.link(outside, "etc")
			im.link(outside+"/p", "proc")
			im.link(up+outside+"/d", "dev")
			im.mkdir("sys")
		}, shell("test -c /dev/null && test -s /etc/hosts && test -e /sys/kernel && cat /proc/self/comm"), "cat\n", ""},
		{"links into /proc", func(im *image) {
			im.mkdir("etc")
			im.link("/proc/1/root/etc/passwd", "etc/hosts")
			im.link("/proc/self/fd/3", "etc/resolv.conf")
		}, shell("echo ran"), "", "mount at /"},
		{"dev is a link to proc", func(im *image) { im.link("proc", "dev") }, shell("test -c /dev/null && echo ran"), "ran\n", ""},
		{"proc is a file", func(im *image) { im.write("proc", "", 0o644) }, shell("true"), "", "mount at /proc: not a directory"},
		{"hosts is a directory", func(im *image) { im.mkdir("etc/hosts") }, shell("true"), "", "mount at /etc/hosts: is a directory"},
		{"links in a circle", func(im *image) { im.link("b", "dev"); im.link("dev", "b") }, shell("true"), "", "mount at /dev: too many levels of symbolic links"},
		{"a mount point behind links", func(im *image) { im.mkdir("in"); im.link(up+"in", "out") },
			&Process{Args: []string{"cat", "/in/new/f"}, Env: []string{path1}, Mounts: []Mount{{Target: "/out/../../../out/new/f", Source: Data{Data: []byte("d\n")}}}}, "d\n", ""},
		{"passwd leads outside", func(im *image) { im.mkdir("etc"); im.link(up+outside+"/passwd", "etc/passwd") },
			&Process{Args: []string{"true"}, Env: []string{path1}, User: "evil"}, "", "unable to find user evil: no matching entries in passwd file"},
		{"passwd is a fifo", func(im *image) { im.mkdir("etc"); unix.Mkfifo(im.path("etc/passwd"), 0o666) },
			&Process{Args: []string{"true"}, Env: []string{path1}, User: "evil"}, "", "find user evil: /etc/passwd is not a regular file"},
		{"passwd is a directory", func(im *image) { im.mkdir("etc/passwd") },
			&Process{Args: []string{"true"}, Env: []string{path1}, User: "evil"}, "", "find user evil: /etc/passwd is not a regular file"},
		{"passwd is huge", func(im *image) {
			im.mkdir("etc")
			im.write("etc/passwd", "", 0o644)
			os.Truncate(im.path("etc/passwd"), 1<<40)
		},
			&Process{Args: []string{"true"}, Env: []string{path1}, User: "evil"}, "", "find user evil: "},
		{"passwd is garbage", func(im *image) {
			im.mkdir("etc")
			im.write("etc/passwd", "evil\nevil:\nevil:x:y:z:\n:::::::\nevil:x:99999999999:1::\n", 0o644)
		},
			&Process{Args: []string{"true"}, Env: []string{path1}, User: "evil"}, "", "unable to find user evil: no matching entries in passwd file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			im := newBusybox(t)
			tt.image(im)
			image := snapshotTree(t, im.dir)
			out, err := im.run(tt.p)
			if tt.err == "" && (err != nil || out != tt.want) {
				t.Errorf("got %q, %v", out, err)
			}
			if tt.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.err)) {
				t.Errorf("got %v, want %s", err, tt.err)
			}
			if err != nil && strings.Contains(err.Error(), im.dir) {
				t.Errorf("the machine's path is in %q", err)
			}
			if diff := cmp.Diff(image, snapshotTree(t, im.dir)); diff != "" {
				t.Errorf("the image has changed (-before +after)\n%s", diff)
			}
		})
	}
	if diff := cmp.Diff(before, snapshotTree(t, outside)); diff != "" {
		t.Errorf("outside has changed (-before +after)\n%s", diff)
	}
}

// A command can neither look into process 1, which has the program's file and the socket, nor reach the host by it.
func TestProcessOneIsClosed(t *testing.T) {
	im := newBusybox(t)
	for _, user := range []string{"", "1000"} {
		if user != "" && singleID {
			continue
		}
		p := shell(`for f in exe root cwd; do readlink /proc/1/$f; ls -d /proc/1/$f/. ; done; ls /proc/1/fd /proc/1/map_files; cat /proc/1/environ; cat /proc/1/mem | head -c 1; echo done`)
		p.User = user
		out := im.mustRun(p)
		for line := range strings.Lines(out) {
			if line != "done\n" && !strings.Contains(line, "ermission denied") && !strings.HasSuffix(line, ":\n") && strings.Trim(line, "0123456789\n") != "" {
				t.Errorf("user %q: got %q", user, line)
			}
		}
	}
}

// The step sees the image and nothing else, by whatever way it goes up.
func TestNothingOfTheHost(t *testing.T) {
	im := newBusybox(t)
	secret := filepath.Join(t.TempDir(), "host-secret")
	if err := os.WriteFile(secret, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	out := im.mustRun(shell(`ls ` + secret + ` /../../../` + secret + ` /proc/self/root/` + secret + ` 2>&1; cat /proc/self/mountinfo; ls /proc | grep -c '^[0-9]'`))
	if strings.Contains(out, "\n/") || strings.Count(out, "No such file") != 3 {
		t.Errorf("got %s", out)
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 5 && strings.Contains(line, " - ") && strings.HasPrefix(f[4], filepath.Dir(im.dir)) {
			t.Errorf("a mount of the host: %s", line)
		}
	}
}

// With nothing but a program an image is enough for a RUN, and nothing is left in it.
func TestScratchWithOneProgram(t *testing.T) {
	im := newImage(t)
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Skip(err)
	}
	im.write("busybox", string(data), 0o755)
	os.Chtimes(im.dir, old, old)
	before := snapshotTree(t, im.dir)
	out := im.mustRun(&Process{Args: []string{"/busybox", "ls", "/"}, Dir: "/"})
	if out != "busybox\ndev\netc\nproc\nsys\n" {
		t.Errorf("got %q", out)
	}
	if diff := cmp.Diff(before, snapshotTree(t, im.dir)); diff != "" {
		t.Errorf("-before +after\n%s", diff)
	}
}

// The limits of time: what a step leaves open does not hold its end up.
func TestOutputGivenAway(t *testing.T) {
	im := newBusybox(t)
	start := time.Now()
	for range 3 {
		im.mustRun(shell("(trap '' TERM HUP INT; sleep 1000; echo never) & (sleep 1000 | cat) & true"))
	}
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("three steps took %v", d)
	}
}

// Overlay is what steps run on: there the stubs must not become whiteouts or copies either.
func TestStubsOnOverlay(t *testing.T) {
	im := newBusybox(t)
	im.mkdir("etc")
	os.Chtimes(im.path("etc"), old, old)
	dir := t.TempDir()
	for _, name := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := im.spec(shell("touch /made; rm /bin/echo; test -s /etc/hosts"))
	s.Root = []mount.Mount{{Type: "overlay", Lower: []string{im.dir}, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"), Options: []string{"index=off"}}}
	if userNS {
		s.Root[0].Options = append(s.Root[0].Options, "userxattr")
	}
	if _, err := Run(t.Context(), s, os.Stdout, os.Stderr); err != nil {
		if strings.Contains(err.Error(), "mount overlay") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	var got []string
	for _, line := range snapshotTree(t, filepath.Join(dir, "upper")) {
		got = append(got, strings.Fields(line)[0])
	}
	// /etc was copied up when the stubs were made; it is as it was, and so in no layer.
	if want := []string{"drwxr-xr-x", "/bin", "/bin/echo", "/etc", "/made"}; !cmp.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if fi, err := os.Stat(filepath.Join(dir, "upper/etc")); err != nil || !fi.ModTime().Equal(old) {
		t.Errorf("the time of /etc: %v, %v", fi.ModTime(), err)
	}
}
