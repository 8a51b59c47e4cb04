package copyfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/executor/copyfs/copyfstest"
	"github.com/layerbuild/layerbuild/internal/fileentry"
)

func TestMain(m *testing.M) {
	unix.Umask(0)
	os.Exit(m.Run())
}

// openRoot returns an open empty directory that stands for an image.
func openRoot(t *testing.T) *os.File {
	t.Helper()
	t.Chdir(t.TempDir()) // Run may change the working directory
	root, err := os.OpenFile(t.TempDir(), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// run copies into root. If this process is not root, files keep their owners, since it cannot give
// them to root.
func run(t *testing.T, root *os.File, c *copyfs.Copy, o copyfs.Options) (copyfs.Result, error) {
	t.Helper()
	c.KeepOwner = os.Getuid() != 0
	return copyfs.Run(t.Context(), int(root.Fd()), c, o)
}

func one(dir *os.File, it copyfs.Item) []copyfs.Source {
	return []copyfs.Source{{Dir: dir, Items: []copyfs.Item{it}}}
}

func TestCopy(t *testing.T) {
	for _, tt := range copyfstest.Cases {
		t.Run(tt.Name, func(t *testing.T) {
			root := openRoot(t)
			copyfstest.Make(t, root.Name(), tt.Image...)
			c := tt.Copy
			c.Sources = one(copyfstest.Source(t, tt.Source...), tt.Item)
			_, err := run(t, root, &c, copyfs.Options{})
			tt.Check(t, root.Name(), err)
		})
	}
}

func TestCopyContents(t *testing.T) {
	root := openRoot(t)
	src := copyfstest.Source(t)
	rnd := make([]byte, 3<<20+17)
	for i := range rnd {
		rnd[i] = byte(i * i >> 7)
	}
	files := map[string][]byte{"big": rnd, "empty": nil, "edge": rnd[:128<<10],
		"odd": rnd[:300<<10+1]}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(src.Name(), name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sparse, err := os.Create(filepath.Join(src.Name(), "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	sparse.WriteAt([]byte("middle"), 5<<20)
	sparse.Truncate(64 << 20)
	sparse.Close()
	if _, err := run(t, root, &copyfs.Copy{Dest: "/",
		Sources: one(src, copyfs.Item{Path: ".", Contents: true})}, copyfs.Options{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(root.Name(), name)); err != nil ||
			!bytes.Equal(got, want) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(root.Name(), "sparse"), &st); err != nil ||
		st.Size != 64<<20 ||
		st.Blocks*512 > 1<<20 {
		t.Errorf("sparse: size %d, %d blocks, %v", st.Size, st.Blocks, err)
	}
	got := make([]byte, 6)
	f, _ := os.Open(filepath.Join(root.Name(), "sparse"))
	defer f.Close()
	if _, err := f.ReadAt(got, 5<<20); err != nil || string(got) != "middle" {
		t.Errorf("sparse: got %q, %v", got, err)
	}
}

// A copy ends when its context is canceled, between files and within one.
func TestCanceled(t *testing.T) {
	root := openRoot(t)
	src := copyfstest.Source(t, "dir d", "file d/empty 0644", "file f 0644 x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, it := range []copyfs.Item{{Path: "d", Contents: true}, {Path: "f"}} {
		_, err := copyfs.Run(ctx, int(root.Fd()), &copyfs.Copy{Dest: "/to/",
			KeepOwner: os.Getuid() != 0, Sources: one(src, it)}, copyfs.Options{})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v, want that it was canceled", it.Path, err)
		}
	}
}

// A directory that commands see as a mount point gets the mode 0755, but only in the root
// directory, and only if the copy makes it.
func TestMountPoints(t *testing.T) {
	root := openRoot(t)
	copyfstest.Make(t, root.Name(), "dir sys 0700")
	src := copyfstest.Source(t, "file a 0644 x")
	for _, dest := range []string{"/etc/", "/x/etc/", "/sys/"} {
		if _, err := run(t, root, &copyfs.Copy{Dest: dest, Chmod: "711",
			Sources: one(src, copyfs.Item{Path: "a"})},
			copyfs.Options{MountPoints: []string{"etc", "sys"}}); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"dir etc 0755", "file etc/a 0711 x old", "dir sys 0700",
		"file sys/a 0711 x old", "dir x 0711", "dir x/etc 0711", "file x/etc/a 0711 x old"}
	if diff := cmp.Diff(want, copyfstest.List(t, root.Name())); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// lookupOwner finds only the user app.
func lookupOwner(_ int, name string) (o copyfs.Owner, unknown string, err error) {
	switch name {
	case "app":
		return copyfs.Owner{UID: 1000, GID: 2000}, "", nil
	case "bad":
		return o, "", errors.New("the image's passwd file cannot be read")
	}
	return o, name, nil
}

func TestOwners(t *testing.T) {
	o := copyfs.Options{LookupOwner: lookupOwner, SingleID: os.Getuid() != 0}
	for _, tt := range []struct {
		chown    string
		owner    [2]int
		warnings []string
		err      string
	}{
		{chown: "app", owner: [2]int{1000, 2000}},
		{chown: "no", warnings: []string{
			"--chown=no: the image has no user or group no, 0 is used instead"}},
		{chown: "bad", err: "the image's passwd file cannot be read"},
	} {
		root := openRoot(t)
		res, err := run(t, root, &copyfs.Copy{Dest: "/p/", Chown: tt.chown,
			Sources: one(copyfstest.Source(t, "file a 0644 x"), copyfs.Item{Path: "a"})}, o)
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("%s: error %v, want %s", tt.chown, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.warnings, res.Warnings); diff != "" {
			t.Errorf("%s: warnings (-want +got)\n%s", tt.chown, diff)
		}
		if o.SingleID {
			if tt.chown == "app" && (res.OwnersLost != 2 || res.FirstOwner != "p: 1000:2000") {
				t.Errorf("%s: got %+v", tt.chown, res)
			}
			continue
		}
		for _, name := range []string{"p", "p/a"} {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(root.Name(), name), &st); err != nil ||
				[2]int{int(st.Uid), int(st.Gid)} != tt.owner {
				t.Errorf("%s: %s belongs to %d:%d, %v", tt.chown, name, st.Uid, st.Gid, err)
			}
		}
	}
}

func TestInline(t *testing.T) {
	root := openRoot(t)
	epoch := copyfstest.Old.Unix()
	if _, err := run(t, root, &copyfs.Copy{Dest: "/d/", Chmod: "u+x", Inline: []copyfs.File{
		{Name: "a", Data: []byte("A")}, {Name: "b", Mode: 0o600}}},
		copyfs.Options{Epoch: &epoch, LookupOwner: lookupOwner,
			SingleID: os.Getuid() != 0}); err != nil {
		t.Fatal(err)
	}
	want := []string{"dir d 0755", "file d/a 0744 A", "file d/b 0700 "}
	if diff := cmp.Diff(want, copyfstest.List(t, root.Name())); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, name := range []string{"d/a", "d/b"} {
		if fi, err := os.Stat(filepath.Join(root.Name(), name)); err != nil ||
			fi.ModTime().Unix() != epoch || fi.ModTime().Nanosecond() != 0 {
			t.Errorf("%s: time %v, %v", name, fi.ModTime(), err)
		}
	}
}

// A Copy with DestOnly makes and describes the destination, with its path in the root.
func TestDestOnly(t *testing.T) {
	root := openRoot(t)
	copyfstest.Make(t, root.Name(), "dir real/full", "file real/full/f 0644", "link l /real")
	src := copyfstest.Source(t, "file f 0644 x")
	for _, tt := range []struct {
		dest string
		want copyfs.Dest
	}{
		{"/", copyfs.Dest{}},
		{"/l/new/deep", copyfs.Dest{Path: "real/new/deep", Empty: true}},
		{"/l/full/../full/", copyfs.Dest{Path: "real/full"}},
	} {
		tt.want.Chown = os.Getuid() == 0
		res, err := run(t, root, &copyfs.Copy{Dest: tt.dest, DestOnly: true, Sources: one(src,
			copyfs.Item{Path: ".", Contents: true, Entries: []fileentry.Entry{{Path: "f"}}})},
			copyfs.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&tt.want, res.Dest); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.dest, diff)
		}
	}
	want := []string{"link l /real", "dir real 0755", "dir real/full 0755",
		"file real/full/f 0644 ", "dir real/new 0755", "dir real/new/deep 0755"}
	if diff := cmp.Diff(want, copyfstest.List(t, root.Name())); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// A file is copied only if Unpack does not recognize it as an archive.
func TestUnpack(t *testing.T) {
	root := openRoot(t)
	copyfstest.Make(t, root.Name(), "dir real", "link l /real")
	src := copyfstest.Source(t, "file archive 0644 name content", "file text 0644 text")
	var dest copyfs.ArchiveDest
	unpack := func(f io.Reader, o copyfs.UnpackOptions) (bool, error) {
		text, err := io.ReadAll(f)
		if err != nil || string(text) == "text" {
			return false, err
		}
		if dest, err = o.Dest(); err != nil {
			return true, err
		}
		o.OnStandIn("/dev/x")
		o.OnSkip("/y", "user.z", unix.EPERM)
		fd, err := unix.Openat(dest.Dir, "name", unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return true, err
		}
		return true, unix.Close(fd)
	}
	res, err := run(t, root, &copyfs.Copy{Dest: "/l/new/", Unpack: true,
		Sources: []copyfs.Source{{Dir: src, Items: []copyfs.Item{{Path: "archive"},
			{Path: "text"}}}}}, copyfs.Options{UserNS: true, Unpack: unpack})
	if err != nil {
		t.Fatal(err)
	}
	if dest.Root != int(root.Fd()) || dest.Path != "/real/new" {
		t.Errorf("destination %+v", dest)
	}
	if diff := cmp.Diff(copyfs.Result{StandIns: 1, FirstStandIn: "/dev/x", AttrsLost: 1,
		FirstAttr: "/y: user.z"}, res); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	want := []string{"link l /real", "dir real 0755", "dir real/new 0755",
		"file real/new/name 0600 ", "file real/new/text 0644 text old"}
	if diff := cmp.Diff(want, copyfstest.List(t, root.Name())); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}

	_, err = run(t, root, &copyfs.Copy{Dest: "/", Unpack: true,
		Sources: one(src, copyfs.Item{Path: "archive"})},
		copyfs.Options{Unpack: func(io.Reader, copyfs.UnpackOptions) (bool, error) {
			return true, unix.EIO
		}})
	if err == nil || err.Error() != "unpack archive: input/output error" {
		t.Errorf("error %v", err)
	}
}

func TestMkdir(t *testing.T) {
	root := openRoot(t)
	copyfstest.Make(t, root.Name(), "dir there 0700", "link l /there", "file f 0644")
	epoch := copyfstest.Old.Unix()
	o := copyfs.Options{Epoch: &epoch, LookupOwner: lookupOwner, SingleID: os.Getuid() != 0}
	owner := " 1000:2000"
	if o.SingleID {
		owner = ""
	}
	for _, name := range []string{"/", "/l/new/sub"} {
		if _, err := copyfs.Mkdir(int(root.Fd()), name, "app", o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	want := []string{"file f 0644 ", "link l /there", "dir there 0700",
		fmt.Sprintf("dir there/new 0755%s", owner), fmt.Sprintf("dir there/new/sub 0755%s", owner)}
	if diff := cmp.Diff(want, copyfstest.List(t, root.Name())); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if fi, err := os.Stat(filepath.Join(root.Name(), "there/new/sub")); err != nil ||
		fi.ModTime().Unix() != epoch {
		t.Errorf("time %v, %v", fi.ModTime(), err)
	}
	_, err := copyfs.Mkdir(int(root.Fd()), "/f/x", "", o)
	if err == nil || err.Error() != "make the directory /f/x: not a directory" {
		t.Errorf("error %v", err)
	}
}
