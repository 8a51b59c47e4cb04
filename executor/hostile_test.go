package executor

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/executor/copyfs/copyfstest"
	"github.com/layerbuild/layerbuild/internal/mount"
)

// An image with hostile links and files does not make a step change or read files outside of it.
func TestHostileImages(t *testing.T) {
	outside := t.TempDir()
	for _, name := range []string{"resolv.conf", "hosts", "passwd", "group"} {
		if err := os.WriteFile(filepath.Join(outside, name),
			[]byte("evil:x:0:0::/:\n"), 0o644); err != nil {
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
		{"dev is a link to proc", func(im *image) { im.link("proc", "dev") },
			shell("test -c /dev/null && echo ran"), "ran\n", ""},
		{"proc is a file", func(im *image) { im.write("proc", "", 0o644) }, shell("true"), "",
			"mount at /proc: not a directory"},
		{"hosts is a directory", func(im *image) { im.mkdir("etc/hosts") }, shell("true"), "",
			"mount at /etc/hosts: is a directory"},
		{"links in a circle", func(im *image) { im.link("b", "dev"); im.link("dev", "b") },
			shell("true"), "", "mount at /dev: too many levels of symbolic links"},
		{"a mount point behind links", func(im *image) { im.mkdir("in"); im.link(up+"in", "out") },
			&Process{Args: []string{"cat", "/in/new/f"}, Env: []string{path1},
				Mounts: []Mount{{Target: "/out/../../../out/new/f",
					Source: Data{Data: []byte("d\n")}}}}, "d\n", ""},
		{"passwd leads outside", func(im *image) {
			im.mkdir("etc")
			im.link(up+outside+"/passwd", "etc/passwd")
		},
			&Process{Args: []string{"true"}, Env: []string{path1}, User: "evil"}, "",
			"unable to find user evil: no matching entries in passwd file"},
		{"passwd is a fifo", func(im *image) {
			im.mkdir("etc")
			unix.Mkfifo(im.path("etc/passwd"), 0o666)
		},
			&Process{Args: []string{"true"}, Env: []string{path1}, User: "evil"}, "",
			"find user evil: /etc/passwd is not a regular file"},
		{"passwd is a directory", func(im *image) { im.mkdir("etc/passwd") },
			&Process{Args: []string{"true"}, Env: []string{path1}, User: "evil"}, "",
			"find user evil: /etc/passwd is not a regular file"},
		{"passwd is huge", func(im *image) {
			im.mkdir("etc")
			im.write("etc/passwd", "", 0o644)
			os.Truncate(im.path("etc/passwd"), 1<<40)
		},
			&Process{Args: []string{"true"}, Env: []string{path1}, User: "evil"},
			"", "find user evil: "},
		{"passwd is garbage", func(im *image) {
			im.mkdir("etc")
			im.write("etc/passwd", "evil\nevil:\nevil:x:y:z:\n:::::::\nevil:x:99999999999:1::\n",
				0o644)
		},
			&Process{Args: []string{"true"}, Env: []string{path1}, User: "evil"}, "",
			"unable to find user evil: no matching entries in passwd file"},
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

// hostWords returns strings of this process that a step must not see: its arguments, variables,
// directories and program.
func hostWords(t *testing.T, im *image) []string {
	t.Helper()
	words := []string{os.Args[0], "HOST_SECRET", "hunter2", im.dir, filepath.Dir(im.dir)}
	for _, a := range os.Args[1:] {
		if len(a) > 4 {
			words = append(words, a)
		}
	}
	return words
}

// overlay returns the image as the lower directory of an overlay, on which steps normally run.
func (im *image) overlay() []mount.Mount {
	im.t.Helper()
	dir := im.t.TempDir()
	m := mount.Mount{Type: mount.Overlay, Lower: []string{im.dir}, Upper: dir + "/upper",
		Work: dir + "/work", Options: []string{"index=off"}}
	if userNS {
		m.Options = append(m.Options, "userxattr")
	}
	for _, d := range []string{m.Upper, m.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			im.t.Fatal(err)
		}
	}
	f, err := mount.Open([]mount.Mount{m})
	if err != nil {
		im.t.Skip(err)
	}
	f.Close()
	return []mount.Mount{m}
}

// All processes of the step can read some files about process 1. They must not contain this
// program's command line, which has the build arguments of all stages, nor its environment,
// directories, files and memory.
func TestInitShowsNothing(t *testing.T) {
	t.Setenv("HOST_SECRET", "hunter2")
	im := newBusybox(t)
	words := hostWords(t, im)
	for _, action := range []struct {
		name string
		p    Process
	}{
		{"root", Process{}}, {"user", Process{User: "1234:1234"}},
		{"no network", Process{Network: "none"}}, {"terminal", Process{TTY: true}},
		{"with SYS_ADMIN", Process{Caps: capabilitySet(t, "SYS_ADMIN")}},
		{"read-only", Process{ReadOnlyRoot: true,
			Mounts: []Mount{{Target: "/made/here", Source: Data{Data: []byte("x")}}}}},
	} {
		if action.p.User != "" && singleID {
			continue
		}
		if action.p.Caps != nil && noMemfd() {
			continue // /proc/1/maps has the path of the program
		}
		t.Run(action.name, func(t *testing.T) {
			p := action.p
			// The output must not contain the words, so the script does not print names of the
			// host's files. With CAP_SYS_ADMIN the pagemap can be read, and has 256 GB.
			script := shell(`cat /proc/1/cmdline; echo; cat /proc/1/comm /proc/1/task/*/comm
				for f in /proc/1/* /proc/1/task/*/*; do test -f $f && case $f in */pagemap) ;; *) cat $f; esac; readlink $f; done
				for d in /proc/1/fd /proc/1/ns /proc/1/map_files /proc/1/fdinfo /proc/1/attr; do for f in $d/*; do test $d = /proc/1/attr && cat $f; readlink $f; done; done
				cat /proc/mounts /proc/self/mountinfo /proc/self/cgroup; ps; echo end`)
			p.Args, p.Env = script.Args, script.Env
			s := im.spec(&p)
			s.Root = im.overlay()
			var out bytes.Buffer
			if _, err := Run(t.Context(), s, &out, &out); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			got := strings.ReplaceAll(out.String(), "\r\n", "\n")
			name, rest, _ := strings.Cut(strings.TrimRight(got, "\n"), "\n")
			comm, rest, _ := strings.Cut(rest, "\n")
			if !slices.Contains([]string{"init\x00", "layerbuild-step\x00"}, name) ||
				!slices.Contains([]string{"init", "exe"}, comm) {
				t.Errorf("process 1 is called %q, %q", name, comm)
			}
			if !strings.HasSuffix(rest, "\nend") || !strings.Contains(rest, " / overlay ") {
				t.Errorf("the script did not do what it should: %s", rest)
			}
			for _, word := range words {
				for line := range strings.Lines(got) {
					if strings.Contains(line, word) {
						t.Errorf("a step sees %q: %s", word, line)
					}
				}
			}
		})
	}
}

// A command can neither inspect nor trace process 1, nor access the host through it.
func TestInitIsClosed(t *testing.T) {
	im := newBusybox(t)
	for _, user := range []string{"", "1000"} {
		if user != "" && singleID {
			continue
		}
		for _, tty := range []bool{false, true} {
			p := shell(`for f in exe root cwd; do readlink /proc/1/$f; ls -d /proc/1/$f/. ; done; for f in environ maps mem auxv stack syscall io smaps; do cat /proc/1/$f | head -c 1; done
				for f in /proc/1/fd/* /proc/1/ns/* /proc/1/map_files/*; do readlink $f; done; echo done`)
			p.User, p.TTY = user, tty
			out := im.mustRun(p)
			for line := range strings.Lines(strings.ReplaceAll(out, "\r\n", "\n")) {
				if line != "done\n" && !strings.Contains(line, "ermission denied") &&
					!strings.Contains(line, "Operation not permitted") {
					t.Errorf("user %q, terminal %t: got %q", user, tty, line)
				}
			}
		}
	}
}

// A command that can trace process 1 gains nothing: the process has no capability, no file, no
// directory of the host, and the same filter of system calls.
func TestInitHasNoRights(t *testing.T) {
	im := newBusybox(t)
	secret := filepath.Join(t.TempDir(), "host-secret")
	if err := os.WriteFile(secret, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(secret))
	for _, caps := range []*CapabilitySet{capabilitySet(t, "SYS_PTRACE"),
		capabilitySet(t, "sys_ptrace", "NET_ADMIN", "SYS_ADMIN")} {
		for _, tty := range []bool{false, true} {
			p := shell(`grep -E '^(Cap...|Seccomp):' /proc/1/status; cat /proc/1/cmdline
				ls /proc/1/cwd/host-secret /proc/1/root` + secret + ` 2>/dev/null
				ls -1 /proc/1/cwd/bin/sh /proc/1/root/bin/sh; ls /proc/1/fd; echo $PPID`)
			p.Caps, p.TTY = caps, tty
			out, err := im.run(p)
			if noMemfd() {
				if err == nil || !strings.Contains(err.Error(), "SYS_PTRACE") {
					t.Errorf("without a program in memory: %v\n%s", err, out)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			const none = ":\t0000000000000000\n"
			want := "CapInh" + none + "CapPrm" + none + "CapEff" + none + "CapBnd" + none +
				"CapAmb" + none + "Seccomp:\t2\ninit\x00" +
				"/proc/1/cwd/bin/sh\n/proc/1/root/bin/sh\n0\n0\n"
			if got := strings.ReplaceAll(out, "\r\n", "\n"); !strings.HasPrefix(got, want) {
				t.Errorf("capabilities %x, terminal %t: got %q, want %q", *caps, tty, got, want)
			}
		}
	}
}

// noMemfd reports whether the kernel does not execute programs from memory in this pid namespace.
func noMemfd() bool {
	data, err := os.ReadFile("/proc/sys/vm/memfd_noexec")
	return err == nil && strings.TrimSpace(string(data)) == "2"
}

// capabilitySet returns Docker's capabilities and some more.
func capabilitySet(t *testing.T, names ...string) *CapabilitySet {
	t.Helper()
	set, err := Capabilities(names, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &set
}

// If the kernel does not allow executing the program of process 1 from memory, process 1 is a
// child, whose files below /proc do not reveal this program either.
func TestInitWithoutMemfd(t *testing.T) {
	if os.Getuid() != 0 || userNS {
		t.Skip("needs root")
	}
	if os.Getenv(againVar) != "" {
		t.Skip("this is another run already")
	}
	cmd := exec.Command("unshare", "--pid", "--fork", "--mount-proc", "sh", "-c",
		`echo 2 >/proc/sys/vm/memfd_noexec && exec "$0" -test.v -test.run '^TestInit|^TestExitStatus$|^TestCancel$'`, os.Args[0])
	cmd.Env = append(os.Environ(), againVar+"=1")
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "memfd_noexec") {
		t.Skipf("this kernel cannot forbid it: %s", out)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, failed(out))
	}
}

// A step can access only the image, whatever path it uses to leave its root.
func TestNothingOfTheHost(t *testing.T) {
	im := newBusybox(t)
	secret := filepath.Join(t.TempDir(), "host-secret")
	if err := os.WriteFile(secret, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	out := im.mustRun(shell(`ls ` + secret + ` /../../../` + secret + ` /proc/self/root/` + secret +
		` 2>&1; cat /proc/self/mountinfo; ls /proc | grep -c '^[0-9]'`))
	if strings.Contains(out, "\n/") || strings.Count(out, "No such file") != 3 {
		t.Errorf("got %s", out)
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 5 && strings.Contains(line, " - ") &&
			strings.HasPrefix(f[4], filepath.Dir(im.dir)) {
			t.Errorf("a mount of the host: %s", line)
		}
	}
}

// A RUN works in an image that contains only a program, and leaves no other file in it.
func TestScratchWithOneProgram(t *testing.T) {
	im := newImage(t)
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Skip(err)
	}
	im.write("busybox", string(data), 0o755)
	os.Chtimes(im.dir, copyfstest.Old, copyfstest.Old)
	before := snapshotTree(t, im.dir)
	out := im.mustRun(&Process{Args: []string{"/busybox", "ls", "/"}, Dir: "/"})
	if out != "busybox\ndev\netc\nproc\nsys\n" {
		t.Errorf("got %q", out)
	}
	if diff := cmp.Diff(before, snapshotTree(t, im.dir)); diff != "" {
		t.Errorf("-before +after\n%s", diff)
	}
}

// A step ends without delay if it has passed a pipe to another process.
func TestOutputGivenAway(t *testing.T) {
	im := newBusybox(t)
	start := time.Now()
	for range 3 {
		im.mustRun(shell(
			"(trap '' TERM HUP INT; sleep 1000; echo never) & (sleep 1000 | cat) & true"))
	}
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("three steps took %v", d)
	}
}

// On an overlay, mount points become neither whiteouts nor copies.
func TestMountPointsOnOverlay(t *testing.T) {
	im := newBusybox(t)
	im.mkdir("etc")
	os.Chtimes(im.path("etc"), copyfstest.Old, copyfstest.Old)
	dir := t.TempDir()
	for _, name := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := im.spec(shell("touch /made; rm /bin/echo; test -s /etc/hosts"))
	s.Root = []mount.Mount{{Type: "overlay", Lower: []string{im.dir},
		Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"),
		Options: []string{"index=off"}}}
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
	// /etc was copied up when the mount points were made. Its attributes are unchanged, so it is in
	// no layer.
	if want := []string{"drwxr-xr-x", "/bin", "/bin/echo", "/etc", "/made"}; !cmp.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if fi, err := os.Stat(filepath.Join(dir, "upper/etc")); err != nil ||
		!fi.ModTime().Equal(copyfstest.Old) {
		t.Errorf("the time of /etc: %v, %v", fi.ModTime(), err)
	}
}
