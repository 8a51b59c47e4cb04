package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
)

// performers are the two mount APIs, which must behave the same.
var performers = map[string]performer{"new API": {}, "mount(2)": {legacy: true}}

// hostile is a directory name with all characters that separate options or paths.
const hostile = `a,b:c\d=e f"g\:h\,`

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mkdirs(t testing.TB, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// mountAll makes mounts and unmounts them at the end of the test.
func mountAll(t testing.TB, p performer, mounts []Mount, root string) {
	t.Helper()
	if err := p.all(mounts, root); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
}

func overlayOptions(more ...string) []string {
	if mounttest.UserNS() {
		more = append(more, "userxattr")
	}
	return append([]string{"index=off", "metacopy=off"}, more...)
}

// overlayDirs makes lower directories l0 (top) to l<n-1>, each with a file that has the directory's
// name and a file that all of them have.
func overlayDirs(t testing.TB, base string, n int) Mount {
	t.Helper()
	m := Mount{Type: Overlay, Upper: base + "/upper", Work: base + "/work",
		Options: overlayOptions("volatile")}
	for i := range n {
		dir := fmt.Sprintf("%s/l%d", base, i)
		write(t, fmt.Sprintf("%s/f%d", dir, i), "own")
		write(t, dir+"/all", fmt.Sprint(i))
		m.Lower = append(m.Lower, dir)
	}
	mkdirs(t, m.Upper, m.Work)
	return m
}

// procPath returns a path of an open directory.
func procPath(f *os.File) string { return dirfd.FDPath(int(f.Fd())) }

func TestMounts(t *testing.T) {
	mounttest.Need(t)
	for name, p := range performers {
		t.Run(name, func(t *testing.T) {
			t.Run("overlay", func(t *testing.T) { testOverlay(t, p) })
			t.Run("open", func(t *testing.T) { testOpen(t, p) })
			t.Run("twice", func(t *testing.T) { testTwice(t, p) })
			t.Run("bind", func(t *testing.T) { testBind(t, p) })
			t.Run("rbind", func(t *testing.T) { testRecursive(t, p) })
			t.Run("targets", func(t *testing.T) { testTargets(t, p) })
			t.Run("plain", func(t *testing.T) { testPlain(t, p) })
			t.Run("errors", func(t *testing.T) { testErrors(t, p) })
			t.Run("long paths", func(t *testing.T) { testLongPaths(t, p) })
		})
	}
}

func TestMountsInUserNamespace(t *testing.T) {
	for _, kind := range []mounttest.Kind{mounttest.Range, mounttest.Single} {
		t.Run(string(kind), func(t *testing.T) {
			mounttest.Again(t, kind, "Test(Mounts|Fuse|Many.*)")
		})
	}
}

func testOverlay(t *testing.T, p performer) {
	base := filepath.Join(t.TempDir(), hostile)
	m := overlayDirs(t, base, 3)
	root := base + "/merged"
	mkdirs(t, root)
	mountAll(t, p, []Mount{m}, root)
	if got := read(t, root+"/all"); got != "0" {
		t.Errorf("all = %q, want that of the first lower directory, 0", got)
	}
	for i := range 3 {
		if got := read(t, fmt.Sprintf("%s/f%d", root, i)); got != "own" {
			t.Errorf("f%d = %q, want own", i, got)
		}
	}
	write(t, root+"/new", "new")
	if got := read(t, m.Upper+"/new"); got != "new" {
		t.Errorf("upper has %q, want what was written", got)
	}
}

func testOpen(t *testing.T, p performer) {
	base := t.TempDir()
	m := overlayDirs(t, base, 2)
	before := read(t, "/proc/self/mountinfo")
	f, err := p.open([]Mount{m})
	if err != nil {
		t.Fatal(err)
	}
	if after := read(t, "/proc/self/mountinfo"); after != before {
		t.Errorf("Open left a mount:\n%s", cmp.Diff(before, after))
	}
	names, err := f.Readdirnames(-1)
	if err != nil || len(names) != 3 {
		t.Errorf("Readdirnames = %q, %v, want three names", names, err)
	}
	fd, err := unix.Openat2(int(f.Fd()), "/all",
		&unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		t.Fatalf("openat2: %v", err)
	}
	unix.Close(fd)
	write(t, procPath(f)+"/new", "new")
	f.Close()
	if got := read(t, m.Upper+"/new"); got != "new" {
		t.Errorf("upper has %q, want what was written", got)
	}

	view, err := p.open([]Mount{{Type: Bind, Source: m.Upper, Options: []string{"ro"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	if got := read(t, procPath(view)+"/new"); got != "new" {
		t.Errorf("bind has %q, want new", got)
	}
	if err := os.WriteFile(procPath(view)+"/x", nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a read-only clone = %v, want EROFS", err)
	}
	if err := os.WriteFile(m.Upper+"/x", nil, 0o644); err != nil {
		t.Errorf("the clone's source has become read-only: %v", err)
	}
}

// testTwice mounts a volatile overlay a second time, which the kernel would refuse.
func testTwice(t *testing.T, p performer) {
	m := overlayDirs(t, t.TempDir(), 1)
	for i := range 3 {
		f, err := p.open([]Mount{m})
		if err != nil {
			t.Fatalf("time %d: %v", i, err)
		}
		write(t, fmt.Sprintf("%s/n%d", procPath(f), i), "x")
		f.Close()
	}
}

func testBind(t *testing.T, p performer) {
	base := t.TempDir()
	write(t, base+"/src/file", "content")
	write(t, base+"/root/file", "below")
	mkdirs(t, base+"/root/dir")
	mountAll(t, p, []Mount{
		{Type: Bind, Source: base + "/root"},
		{Type: Bind, Source: base + "/src", Target: "/dir",
			Options: []string{"ro", "nosuid", "nodev", "noexec"}},
		{Type: Bind, Source: base + "/src/file", Target: "file"},
	}, base+"/root")
	defer unix.Unmount(base+"/root/dir", unix.MNT_DETACH)
	if got := read(t, base+"/root/file"); got != "content" {
		t.Errorf("file = %q, want that of the bind mount", got)
	}
	if err := os.WriteFile(base+"/root/dir/file", nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a read-only bind mount = %v, want EROFS", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(base+"/root/dir", &st); err != nil {
		t.Fatal(err)
	}
	if want := int64(unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC |
		unix.ST_RDONLY); st.Flags&want != want {
		t.Errorf("flags = %#x, want %#x in them", st.Flags, want)
	}
	write(t, base+"/src/file", "changed") // the source stays writable
}

func testRecursive(t *testing.T, p performer) {
	base := t.TempDir()
	mkdirs(t, base+"/src/sub dir/deep", base+"/root")
	mountAll(t, p, []Mount{{Type: "tmpfs", Options: []string{"size=64k"}}}, base+"/src/sub dir")
	mkdirs(t, base+"/src/sub dir/deep")
	write(t, base+"/src/sub dir/file", "on tmpfs")
	mountAll(t, p, []Mount{{Type: Bind, Source: base + "/src", Options: []string{"rbind", "ro"}}},
		base+"/root")
	if got := read(t, base+"/root/sub dir/file"); got != "on tmpfs" {
		t.Errorf("file = %q, want what is mounted below", got)
	}
	for _, name := range []string{"/root/x", "/root/sub dir/x"} {
		if err := os.WriteFile(base+name, nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("write to %s = %v, want EROFS", name, err)
		}
	}
	write(t, base+"/src/sub dir/y", "the source stays writable")
}

// testTargets mounts at targets with links, which must be resolved inside the root.
func testTargets(t *testing.T, p performer) {
	base := t.TempDir()
	mkdirs(t, base+"/root/inside", base+"/outside", base+"/src")
	write(t, base+"/src/file", "mounted")
	for name, link := range map[string]string{"abs": "/inside", "up": "../../../../inside",
		"out": base + "/outside"} {
		if err := os.Symlink(link, filepath.Join(base, "root", name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []string{"/abs", "up", "../inside", "/abs/../inside"} {
		m := Mount{Type: Bind, Source: base + "/src", Target: target}
		if err := p.all([]Mount{m}, base+"/root"); err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		if got := read(t, base+"/root/inside/file"); got != "mounted" {
			t.Errorf("%s: file = %q", target, got)
		}
		if err := unix.Unmount(base+"/root/inside", unix.MNT_DETACH); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
	err := p.all([]Mount{{Type: Bind, Source: base + "/src", Target: "/out"}}, base+"/root")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link to outside: %v, want ErrNotExist", err)
	}
	if _, err := os.Stat(base + "/outside/file"); err == nil {
		t.Error("a link has led out of the root")
	}
}

func testPlain(t *testing.T, p performer) {
	base := t.TempDir()
	root := base + "/root"
	mkdirs(t, root)
	mountAll(t, p, []Mount{{Type: "tmpfs", Source: "scratch",
		Options: []string{"mode=751", "size=64k", "nosuid", "ro", "rw"}}}, root)
	write(t, root+"/file", "x")
	st, err := os.Stat(root)
	if err != nil || st.Mode().Perm() != 0o751 {
		t.Errorf("root is %v, %v, want mode 0751", st.Mode(), err)
	}
	if info := read(t, "/proc/self/mountinfo"); !strings.Contains(info, "tmpfs scratch rw") {
		t.Errorf("source and flags are not in mountinfo:\n%s", info)
	}
}

func testErrors(t *testing.T, p performer) {
	base := t.TempDir()
	m := overlayDirs(t, base, 2)
	root := base + "/root"
	mkdirs(t, root)
	missing, option, relative, work := m, m, m, m
	missing.Lower = []string{base + "/l0", base + "/nothing"}
	option.Options = append([]string{"nonsense=1"}, m.Options...)
	relative.Lower = []string{"etc", base + "/l0"}
	work.Work = "/proc"
	for _, test := range []struct {
		name   string
		mount  Mount
		target string
		want   []string
		newAPI string // part of the message with the new API only
	}{
		{"missing lower", missing, "", []string{"mount overlay"}, base + "/nothing"},
		{"option", option, "", []string{"mount overlay"}, "nonsense"},
		{"relative", relative, "", []string{"mount overlay"}, "not an absolute path"},
		{"work", work, "", []string{"mount overlay"}, "overlay: "},
		{"missing target", Mount{Type: Bind, Source: base, Target: "/no/such"}, "",
			[]string{"mount bind", base, "/no/such", "no such file"}, ""},
		{"missing source", Mount{Type: Bind, Source: base + "/none"}, "",
			[]string{"mount bind", base + "/none", "no such file"}, ""},
		{"type", Mount{Type: "nofs"}, "", []string{"mount nofs", "no such device"},
			"the kernel has no file system"},
	} {
		err := p.all([]Mount{test.mount}, root)
		if err == nil {
			t.Errorf("%s: no error", test.name)
			unix.Unmount(root, unix.MNT_DETACH)
			continue
		}
		if _, ok := errors.AsType[*Error](err); !ok {
			t.Errorf("%s: error is %T, want *Error", test.name, err)
		}
		want := test.want
		if !p.legacy && test.newAPI != "" {
			want = append(want, test.newAPI)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not mention %q", test.name, err, w)
			}
		}
	}
	if _, err := p.open(nil); err == nil {
		t.Error("Open of no mounts: no error")
	}
}

// testLongPaths mounts directories whose names are longer than the limit of fsconfig(2) for a
// string.
func testLongPaths(t *testing.T, p performer) {
	base := t.TempDir()
	for range 3 {
		base = filepath.Join(base, strings.Repeat("long", 30))
	}
	m := overlayDirs(t, base, 3)
	f, err := p.open([]Mount{m})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := read(t, procPath(f)+"/f2"); got != "own" {
		t.Errorf("f2 = %q, want own", got)
	}
}

// TestUnknownParameter passes a directory to overlay with an option that no kernel has. Linux 6.5
// returns the same error for lowerdir+, and mount(2) is used then.
func TestUnknownParameter(t *testing.T) {
	mounttest.Need(t)
	if !kernelHas(6, 7) {
		t.Skip("this kernel may have no lowerdir+")
	}
	dir := mounttest.TempDir(t)
	m := overlayDirs(t, filepath.Join(dir, "dirs"), 1)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := m.context(Overlay)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.setDir("nosuch+", m.Lower[0], false); !errors.Is(err, errNoAPI) {
		t.Errorf("setDir(nosuch+) = %v, want %v", err, errNoAPI)
	}
	if err := c.setDir("lowerdir+", file, false); err == nil || errors.Is(err, errNoAPI) {
		t.Errorf("setDir(lowerdir+) of a file = %v, want the kernel's error", err)
	}
}

func TestManyLowers(t *testing.T) {
	mounttest.Need(t)
	for _, test := range []struct {
		p    performer
		n    int
		want string // error
	}{
		{performer{}, 400, ""},
		{performer{}, MaxLower, ""},
		{performer{}, MaxLower + 1, ""},
		{performer{}, 3*MaxLower + 7, ""},
		{performer{legacy: true}, 200, ""},
		{performer{legacy: true}, 400, "need Linux 6.7"},
	} {
		t.Run(fmt.Sprintf("%d legacy=%t", test.n, test.p.legacy), func(t *testing.T) {
			m := overlayDirs(t, filepath.Join(mounttest.TempDir(t), hostile), test.n)
			if test.n > MaxLower && !kernelHas(6, 15) {
				test.want = "need Linux 6.15"
			}
			f, err := test.p.open([]Mount{m})
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error = %v, want %q in it", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got := read(t, fmt.Sprintf("%s/f%d", procPath(f), test.n-1)); got != "own" {
				t.Errorf("the lowest directory's file = %q, want own", got)
			}
			if got := read(t, procPath(f)+"/all"); got != "0" {
				t.Errorf("all = %q, want that of the first lower directory, 0", got)
			}
			if names, err := f.Readdirnames(-1); err != nil || len(names) != test.n+1 {
				t.Errorf("%d names, %v, want %d", len(names), err, test.n+1)
			}
		})
	}
}

func needFuse(t testing.TB) {
	t.Helper()
	mounttest.Need(t)
	if _, err := exec.LookPath("fuse-overlayfs"); err != nil {
		t.Skip("fuse-overlayfs is not installed")
	}
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	dev.Close()
}

// servers returns the fuse-overlayfs processes that serve a mount with a directory in dir.
func servers(t testing.TB, dir string) (pids []string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(line), "fuse-overlayfs\x00") &&
			strings.Contains(string(line), dir) {
			pids = append(pids, path)
		}
	}
	return pids
}

// gone waits until no server runs.
func gone(t testing.TB, dir string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		left := servers(t, dir)
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("still running: %q", left)
		}
	}
}

func TestFuse(t *testing.T) {
	needFuse(t)
	top := mounttest.TempDir(t)
	base := filepath.Join(top, `a,b\c d`)
	m := overlayDirs(t, base, 400)
	m.Type = FuseOverlay
	m.Options = []string{"writeback=0", "volatile"}
	root := base + "/root"
	mkdirs(t, root)

	mountAll(t, performer{}, []Mount{m}, root)
	write(t, root+"/new", "new")
	if got := read(t, root+"/f399"); got != "own" {
		t.Errorf("f399 = %q, want own", got)
	}
	if len(servers(t, top)) == 0 {
		t.Error("found no server: gone would not prove anything")
	}
	if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	gone(t, top)
	if got := read(t, m.Upper+"/new"); got != "new" {
		t.Errorf("upper has %q, want what was written", got)
	}

	f, err := Open([]Mount{m})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, procPath(f)+"/new"); got != "new" {
		t.Errorf("new = %q", got)
	}
	if len(servers(t, top)) == 0 {
		t.Error("found no server")
	}
	f.Close()
	gone(t, top)
}

func TestFuseErrors(t *testing.T) {
	needFuse(t)
	base := t.TempDir()
	m := overlayDirs(t, base, 2)
	m.Type, m.Options = FuseOverlay, nil
	missing, colon := m, m
	missing.Lower = []string{base + "/none", base + "/l0"}
	colon.Upper = base + "/a:b"
	for _, test := range []struct {
		mount Mount
		want  string
	}{
		{missing, "cannot read lower dirs"},
		{colon, "colon"},
		{Mount{Type: FuseOverlay}, "no lower directory"},
	} {
		f, err := Open([]Mount{test.mount})
		if err == nil {
			f.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error = %v, want %q in it", err, test.want)
		}
	}
}

// TestFuseEndsWithNamespace kills a process with a mount: neither the mount nor its server outlives
// the namespace.
func TestFuseEndsWithNamespace(t *testing.T) {
	needFuse(t)
	if base := os.Getenv("FUSE_DIR"); base != "" {
		m := overlayDirs(t, base, 2)
		m.Type, m.Options = FuseOverlay, []string{"writeback=0"}
		mkdirs(t, base+"/root")
		if err := All([]Mount{m}, base+"/root"); err != nil {
			t.Fatal(err)
		}
		if len(servers(t, base)) == 0 {
			t.Fatal("found no server")
		}
		return // the process does not unmount it
	}
	base := t.TempDir()
	t.Setenv("FUSE_DIR", base)
	mounttest.Again(t, mounttest.Root, t.Name())
	gone(t, base)
}

func TestEscape(t *testing.T) {
	for _, test := range []struct{ path, separators, want string }{
		{"/plain", `\,:`, "/plain"},
		{`/a,b:c\d`, `\,:`, `/a\,b\:c\\d`},
		{`/a,b:c\d`, `\`, `/a,b:c\\d`},
	} {
		if got := escape(test.path, test.separators); got != test.want {
			t.Errorf("escape(%q, %q) = %q, want %q", test.path, test.separators, got, test.want)
		}
	}
}

func TestSplit(t *testing.T) {
	a, data := split([]string{"ro", "mode=755", "nosuid", "rw", "noatime", "strictatime", "rslave",
		"rbind", "userxattr"})
	want := attributes{
		set:         unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_STRICTATIME,
		clear:       unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR__ATIME,
		propagation: unix.MS_SLAVE, recursive: true,
	}
	if got := a.set &^ unix.MOUNT_ATTR__ATIME; got != want.set&^unix.MOUNT_ATTR__ATIME {
		t.Errorf("set = %#x, want %#x", a.set, want.set)
	}
	if a.set&unix.MOUNT_ATTR__ATIME != unix.MOUNT_ATTR_STRICTATIME || a.clear != want.clear {
		t.Errorf("set, clear = %#x, %#x, want %#x, %#x", a.set, a.clear, want.set, want.clear)
	}
	if a.propagation != want.propagation || !a.recursive {
		t.Errorf("propagation = %#x, recursive = %t", a.propagation, a.recursive)
	}
	if diff := cmp.Diff([]string{"mode=755", "userxattr"}, data); diff != "" {
		t.Errorf("data: -want +got\n%s", diff)
	}
	if !isSorted() {
		t.Error("the flags are not sorted, and are found by binary search")
	}
}

func isSorted() bool {
	for i := range flags[1:] {
		if flags[i].name >= flags[i+1].name {
			return false
		}
	}
	return true
}

func TestKernelHas(t *testing.T) {
	if !kernelHas(2, 6) || kernelHas(999, 0) {
		t.Error("kernelHas: this kernel is older than 2.6 or newer than 999.0")
	}
}

// BenchmarkOpen mounts and unmounts an overlay. On a tmpfs of two cores: 1 lower directory 0.5 ms,
// 10 0.7 ms, 400 6.2 ms, all of it spent in the kernel.
func BenchmarkOpen(b *testing.B) {
	mounttest.Need(b)
	for _, n := range []int{1, 10, 400} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := []Mount{overlayDirs(b, mounttest.TempDir(b), n)}
			b.ReportAllocs()
			for b.Loop() {
				f, err := Open(m)
				if err != nil {
					b.Fatal(err)
				}
				f.Close()
			}
		})
	}
}
