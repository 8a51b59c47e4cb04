package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
)

func removeIn(t testing.TB, dir, name string) error {
	t.Helper()
	fd, err := openDir(dir)
	check(t, err)
	defer unix.Close(fd)
	return removeTree(fd, name)
}

func TestRemoveTree(t *testing.T) {
	dir := t.TempDir()
	check(t, fstree.Make(dir, `
		file outside/kept 0644 x
		file tree/a/b/c 0644 x
		link tree/out -> ../outside
		link tree/a/abs -> /
		dir tree/closed 0755
		file tree/closed/x 0644 x
		fifo tree/pipe
		file single 0644 x
	`))
	check(t, os.Chmod(dir+"/tree/closed", 0))
	for i := range 500 {
		check(t, os.WriteFile(fmt.Sprintf("%s/tree/a/%0200d", dir, i), nil, 0o644))
	}
	deep := dir + "/tree"
	for range 350 { // three times as deep as maxDepth
		deep += "/d"
		check(t, os.Mkdir(deep, 0o755))
	}
	for _, name := range []string{"tree", "single", "never there"} {
		if err := removeIn(t, dir, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := fstree.Print(dir, fstree.Show{})
	check(t, err)
	if diff := cmp.Diff("dir outside 0755\nfile outside/kept 0644 x\n", got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestRemoveTreeStopsAtMounts(t *testing.T) {
	mounttest.Need(t)
	dir := t.TempDir()
	check(t, fstree.Make(dir, "dir tree/mounted 0755\nfile outside/kept 0644 x\n"))
	check(t, unix.Mount(dir+"/outside", dir+"/tree/mounted", "", unix.MS_BIND, ""))
	err := removeIn(t, dir, "tree")
	check(t, unix.Unmount(dir+"/tree/mounted", unix.MNT_DETACH))
	if err == nil || !strings.Contains(err.Error(), "mounted") {
		t.Errorf("error = %v, want one that speaks of the mount", err)
	}
	if _, err := os.Stat(dir + "/outside/kept"); err != nil {
		t.Errorf("what was mounted is gone: %v", err)
	}
	check(t, removeIn(t, dir, "tree"))
}

func TestRemoveTreeImmutable(t *testing.T) {
	dir := t.TempDir()
	check(t, fstree.Make(dir, "file tree/d/f 0644 x\n"))
	for _, name := range []string{"/tree/d/f", "/tree/d"} {
		fd, err := unix.Open(dir+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		check(t, err)
		defer unix.Close(fd)
		if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0x10); err != nil {
			removeIn(t, dir, "tree")
			t.Skipf("cannot make anything immutable here: %v", err)
		}
	}
	if err := os.Remove(dir + "/tree/d/f"); err == nil {
		t.Error("an immutable file can be removed: this proves nothing")
	}
	check(t, removeIn(t, dir, "tree"))
}

const copyText = `
	dir . 0750 @1000000000 [user.root=yes]
	file plain 0644 @1000000001 content
	file suid 4711 @1000000002 x
	file a/b/c/deep 0400 @1000000003 [user.k=v] x
	hardlink a/hard => plain
	hardlink again => plain
	link a/link @1000000004 -> ../plain
	fifo pipe 0600 @1000000005
	socket sock 0600 @1000000006
	dir a/b 0500 @1000000007
	dir a/b/c 0700 @1000000008
`

func TestCopyTree(t *testing.T) {
	// setting attributes of a file without write permission needs a capability
	mounttest.Need(t)
	testCopyTree(t, t.TempDir())
}

// TestCopyTreeReflink copies on a file system with reflinks.
func TestCopyTreeReflink(t *testing.T) {
	dir := mounttest.LoopMount(t, 512<<20, "mkfs.btrfs", "-q")
	testCopyTree(t, dir)
}

func testCopyTree(t *testing.T, dir string) {
	from, to := dir+"/from", dir+"/to"
	text := copyText
	if os.Geteuid() == 0 && mounttest.Current() != mounttest.Single {
		text += "file owned 2755 1234:4321 @1000000009 x\nlink alink 5:6 @1000000010 -> x\n"
	}
	if os.Geteuid() == 0 && !mounttest.UserNS() {
		text += "char null 0666 3:4 @1000000011 1:3\n"
	}
	check(t, fstree.Make(from, text))
	value := strings.Repeat("long", 500)
	check(t, unix.Setxattr(from+"/plain", "user.long", []byte(value), 0))
	check(t, os.Chtimes(from, unixTime(1000000000), unixTime(1000000000)))
	check(t, copyTree(t.Context(), from, to))
	show := fstree.Show{Owners: true, Times: true, Xattrs: true, Plain: true, Root: true}
	want, err := fstree.Print(from, show)
	check(t, err)
	got, err := fstree.Print(to, show)
	check(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if !strings.Contains(want, "hardlink") || !strings.Contains(want, value) {
		t.Errorf("the original is not what it should be:\n%s", want)
	}
	check(t, os.WriteFile(to+"/plain", []byte("changed"), 0o644))
	if original, err := os.ReadFile(from + "/plain"); string(original) != "content" {
		t.Errorf("a change of the copy has reached the original: %q, %v", original, err)
	}
}

func TestCopyTreeHoles(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Mkdir(dir+"/from", 0o755))
	for name, at := range map[string][]int64{"middle": {8 << 20}, "start": {0}, "none": nil,
		"both": {0, 16 << 20}} {
		f, err := os.Create(dir + "/from/" + name)
		check(t, err)
		for _, off := range at {
			_, err := f.WriteAt([]byte("data"), off)
			check(t, err)
		}
		check(t, f.Truncate(32<<20))
		check(t, f.Close())
	}
	check(t, copyTree(t.Context(), dir+"/from", dir+"/to"))
	for _, name := range []string{"middle", "start", "none", "both"} {
		want, err := os.ReadFile(dir + "/from/" + name)
		check(t, err)
		got, err := os.ReadFile(dir + "/to/" + name)
		check(t, err)
		if string(got) != string(want) {
			t.Errorf("%s: another content", name)
		}
		var st unix.Stat_t
		check(t, unix.Stat(dir+"/to/"+name, &st))
		if st.Blocks*512 > 1<<20 {
			t.Errorf("%s: %d blocks", name, st.Blocks)
		}
	}
}

// TestCopyTreeDeep copies links in a directory whose path is longer than PATH_MAX.
func TestCopyTreeDeep(t *testing.T) {
	top := t.TempDir()
	check(t, os.Mkdir(top+"/from", 0o755))
	dir, err := openDir(top + "/from")
	check(t, err)
	name := strings.Repeat("n", 200)
	for range 30 {
		check(t, unix.Mkdirat(dir, name, 0o755))
		next, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		check(t, err)
		unix.Close(dir)
		dir = next
	}
	check(t, unix.Mknodat(dir, "a", unix.S_IFREG|0o644, 0))
	check(t, unix.Linkat(dir, "a", dir, "b", 0))
	unix.Close(dir)
	check(t, copyTree(t.Context(), top+"/from", top+"/to"))
	dir, err = openDir(top + "/to")
	check(t, err)
	for range 30 {
		next, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		check(t, err)
		unix.Close(dir)
		dir = next
	}
	var a, b unix.Stat_t
	check(t, unix.Fstatat(dir, "a", &a, 0))
	check(t, unix.Fstatat(dir, "b", &b, 0))
	unix.Close(dir)
	if a.Ino != b.Ino {
		t.Error("two names of one file were copied as two files")
	}
}

func TestCopyTreeCanceled(t *testing.T) {
	mounttest.Need(t)
	dir := t.TempDir()
	check(t, fstree.Make(dir+"/from", copyText))
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if err := copyTree(ctx, dir+"/from", dir+"/to"); !errors.Is(err, why) {
		t.Errorf("error = %v, want the context's cause", err)
	}
}

// BenchmarkCopyTree copies 2000 small files in 100 directories.
func BenchmarkCopyTree(b *testing.B) {
	dir := mounttest.TempDir(b)
	for i := range 100 {
		sub := fmt.Sprintf("%s/from/d%d", dir, i)
		check(b, os.MkdirAll(sub, 0o755))
		for j := range 20 {
			check(b, os.WriteFile(fmt.Sprintf("%s/f%d", sub, j),
				[]byte(strings.Repeat("x", 3000)), 0o644))
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		check(b, copyTree(b.Context(), dir+"/from", filepath.Join(dir, "to")))
		b.StopTimer()
		check(b, removeIn(b, dir, "to"))
		b.StartTimer()
	}
	b.ReportMetric(2000*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

// BenchmarkRemoveTree removes 2000 small files in 100 directories.
func BenchmarkRemoveTree(b *testing.B) {
	dir := mounttest.TempDir(b)
	for b.Loop() {
		b.StopTimer()
		for i := range 100 {
			sub := fmt.Sprintf("%s/tree/d%d", dir, i)
			check(b, os.MkdirAll(sub, 0o755))
			for j := range 20 {
				check(b, os.WriteFile(fmt.Sprintf("%s/f%d", sub, j), nil, 0o644))
			}
		}
		b.StartTimer()
		check(b, removeIn(b, dir, "tree"))
	}
	b.ReportMetric(2000*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}
