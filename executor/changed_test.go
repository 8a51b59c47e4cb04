package executor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/executor/copyfs/copyfstest"
	"github.com/layerbuild/layerbuild/internal/fileentry"
	"golang.org/x/sys/unix"
)

// seen returns the entry of a file with its current values, as a digest would record them.
func seen(t *testing.T, dir, name string) fileentry.Entry {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
		t.Fatal(err)
	}
	e := fileentry.FromStat(&st)
	e.Path = name
	return e
}

// back restores the time of a source's file.
func back(name string) error { return os.Chtimes(name, copyfstest.Old, copyfstest.Old) }

// changes are changes of a file between its digest and its copy. They keep size and time if they
// can.
var changes = []struct {
	name, file string
	do         func(name string) error
	fine       bool // the copied data did not change
}{
	{name: "nothing", file: "d/f", do: func(string) error { return nil }, fine: true},
	{name: "content", file: "d/f", do: func(p string) error {
		return errors.Join(os.WriteFile(p, []byte("y"), 0), back(p))
	}},
	{name: "another file", file: "d/f", do: func(p string) error {
		return errors.Join(os.WriteFile(p+".new", []byte("y"), 0o644), back(p+".new"),
			os.Rename(p+".new", p))
	}},
	{name: "mode", file: "d/f", do: func(p string) error {
		return errors.Join(os.Chmod(p, 0o600), back(p))
	}},
	{name: "attribute", file: "d/f", do: func(p string) error {
		return unix.Setxattr(p, "user.a", []byte("v"), 0)
	}},
	{name: "growth", file: "d/f", do: func(p string) error {
		return errors.Join(os.WriteFile(p, []byte("xy"), 0), back(p))
	}},
	{name: "gone", file: "d/f", do: os.Remove},
	{name: "a directory in its place", file: "d/f",
		do: func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }},
	{name: "a link in its place", file: "d/f",
		do: func(p string) error {
			return errors.Join(os.Remove(p), os.Symlink("/etc/passwd", p))
		}},
	{name: "a fifo in its place", file: "d/f",
		do: func(p string) error { return errors.Join(os.Remove(p), unix.Mkfifo(p, 0o644)) }},
	{name: "link", file: "d/l", do: func(p string) error {
		return errors.Join(os.Remove(p), os.Symlink("too", p))
	}},
	{name: "mode of a directory", file: "d",
		do: func(p string) error { return errors.Join(os.Chmod(p, 0o700), back(p)) }},
	{name: "attribute of a directory", file: "d",
		do: func(p string) error { return unix.Setxattr(p, "user.a", []byte("v"), 0) }},
	{name: "a new name in a directory", file: "d",
		do: func(p string) error { return os.WriteFile(p+"/new", nil, 0o644) }, fine: true},
	{name: "a directory that is gone", file: "d", do: os.RemoveAll},
	{name: "a file in place of a directory", file: "d",
		do: func(p string) error {
			return errors.Join(os.RemoveAll(p), os.WriteFile(p, nil, 0o644))
		}},
	{name: "a fifo that is used", file: "p",
		do: func(p string) error { return os.Chtimes(p, time.Now(), time.Now()) }, fine: true},
	{name: "mode of a fifo", file: "p", do: func(p string) error { return os.Chmod(p, 0o600) }},
}

// A file that differs from the digested one is not copied, neither by a thread nor by a child.
func TestCopyChanged(t *testing.T) {
	for _, c := range changes {
		for _, child := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				im := newImage(t)
				src := copyfstest.Source(t, "dir d", "file d/f 0644 x",
					"link d/l to", "fifo p 0644")
				var list []fileentry.Entry
				for _, name := range []string{"d", "d/f", "d/l", "p"} {
					list = append(list, seen(t, src.Name(), name))
				}
				if err := c.do(filepath.Join(src.Name(), c.file)); err != nil {
					t.Skip(err)
				}
				s := im.spec(&copyfs.Copy{Dest: "/", Sources: one(src,
					copyfs.Item{Path: ".", Contents: true, Entries: list})})
				s.child = child
				_, err := Run(t.Context(), s, nil, nil)
				changed, is := errors.AsType[*copyfs.ChangedError](err)
				if c.fine != (err == nil) || err != nil && !is {
					t.Fatalf("error %v, want none or a ChangedError (%v)", err, !c.fine)
				}
				want := c.file
				if c.name == "a directory that is gone" ||
					c.name == "a file in place of a directory" {
					want = "d"
				}
				if is && changed.Path != want {
					t.Errorf("%q is named, want %q", changed.Path, want)
				}
			})
		}
	}
}

// A file, link or directory with a private copy is copied from the private copy, even if the
// original was changed or removed, and hard links are kept.
func TestCopyFrozen(t *testing.T) {
	for _, child := range []bool{false, true} {
		im := newImage(t)
		src := copyfstest.Source(t, "dir d", "file d/f 0644 changed",
			"file d/plain 0644 p", "dir gone")
		frozen := copyfstest.Source(t, "file 1 0640 was", "link 2 text", "dir 3 0711",
			"dir 4 0700", "file 5 0600 deep")
		if err := errors.Join(os.Remove(filepath.Join(src.Name(), "gone")),
			os.Link(frozen.Name()+"/1", frozen.Name()+"/1.2")); err != nil {
			t.Fatal(err)
		}
		list := []fileentry.Entry{
			{Path: "d", Mode: unix.S_IFDIR | 0o711, MtimeNs: copyfstest.Old.UnixNano(), Frozen: 3},
			{Path: "d/f", Mode: unix.S_IFREG | 0o640, Frozen: 1},
			{Path: "d/l", Mode: unix.S_IFLNK | 0o777, Frozen: 2},
			seen(t, src.Name(), "d/plain"), {Path: "d/second",
				Mode: unix.S_IFREG | 0o640, Frozen: 1},
			{Path: "gone", Mode: unix.S_IFDIR | 0o700,
				MtimeNs: copyfstest.Old.UnixNano(), Frozen: 4},
			{Path: "gone/f", Mode: unix.S_IFREG | 0o600, Frozen: 5},
		}
		s := im.spec(&copyfs.Copy{Dest: "/", Frozen: frozen,
			Sources: one(src, copyfs.Item{Path: ".", Contents: true, Entries: list})})
		s.child = child
		if _, err := Run(t.Context(), s, nil, nil); err != nil {
			t.Fatal(err)
		}
		want := []string{"dir d 0711 old", "file d/f 0640 was old", "link d/l text old",
			"file d/plain 0644 p old", "hard d/second d/f old",
			"dir gone 0700 old", "file gone/f 0600 deep old"}
		if diff := cmp.Diff(want, copyfstest.List(t, im.dir)); diff != "" {
			t.Errorf("child %v (-want +got)\n%s", child, diff)
		}
	}
}

// Files without a private copy in a removed directory that has one are not copied, and the error
// names the directory.
func TestCopyFrozenBelow(t *testing.T) {
	for _, child := range []bool{false, true} {
		im := newImage(t)
		src := copyfstest.Source(t, "dir d", "dir d/e", "file d/e/f 0644 x")
		frozen := copyfstest.Source(t, "dir 1 0755", "dir 2 0755")
		list := []fileentry.Entry{{Path: "d", Mode: unix.S_IFDIR | 0o755, Frozen: 1},
			{Path: "d/e", Mode: unix.S_IFDIR | 0o755, Frozen: 2}, seen(t, src.Name(), "d/e/f")}
		if err := os.RemoveAll(filepath.Join(src.Name(), "d")); err != nil {
			t.Fatal(err)
		}
		s := im.spec(&copyfs.Copy{Dest: "/", Frozen: frozen,
			Sources: one(src, copyfs.Item{Path: ".", Contents: true, Entries: list})})
		s.child = child
		_, err := Run(t.Context(), s, nil, nil)
		changed, ok := errors.AsType[*copyfs.ChangedError](err)
		if !ok || changed.Path != "d" || !changed.Below {
			t.Errorf("error %v (%+v), want that d is gone", err, changed)
		}
	}
}

// The top directory of the copy is compared too.
func TestCopyChangedTop(t *testing.T) {
	for _, change := range []func(string) error{
		func(p string) error { return os.Chmod(p, 0o711) },
		func(p string) error { return unix.Setxattr(p, "user.a", []byte("v"), 0) },
		func(p string) error { return os.WriteFile(p+"/new", nil, 0o644) },
	} {
		im := newImage(t)
		src := copyfstest.Source(t, "file f 0644 x")
		list := []fileentry.Entry{seen(t, src.Name(), "."), seen(t, src.Name(), "f")}
		if err := change(src.Name()); err != nil {
			t.Skip(err)
		}
		_, err := os.Stat(src.Name() + "/new")
		same := err == nil // a new name does not change the copied data
		_, err = Run(t.Context(), im.spec(&copyfs.Copy{Dest: "/d", Sources: one(src,
			copyfs.Item{Path: ".", Entries: list})}), nil, nil)
		if _, changed := errors.AsType[*copyfs.ChangedError](err); changed == same ||
			err != nil && !changed {
			t.Errorf("error %v, want none or a ChangedError (%v)", err, !same)
		}
	}
}

// The attributes of a copy are those that the file had when it was digested, or the copy fails.
// Another goroutine changes them and the target of a link about once per copy: in a child a copy
// takes a hundred times as long as in a thread.
func TestCopyWhileItChanges(t *testing.T) {
	im := newImage(t)
	src := copyfstest.Source(t, "dir d", "file d/f 0644 x", "link d/l 0")
	file, link := filepath.Join(src.Name(), "d/f"), filepath.Join(src.Name(), "d/l")
	names := []string{file, filepath.Join(src.Name(), "d")}
	value := func(name string) string {
		var buf [16]byte
		n, err := unix.Getxattr(name, "user.n", buf[:])
		if err != nil {
			return err.Error()
		}
		return string(buf[:n])
	}
	for _, name := range names {
		if err := unix.Setxattr(name, "user.n", []byte("0"), 0); err != nil {
			t.Skip("no attributes of users:", err)
		}
	}
	var took atomic.Int64 // the time of the last copy, in nanoseconds
	took.Store(int64(100 * time.Microsecond))
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rand.Int64N(2*took.Load() + 1))):
			}
			text := strconv.Itoa(n)
			for _, name := range names {
				unix.Setxattr(name, "user.n", []byte(text), 0)
			}
			os.Symlink(text, link+".new")
			os.Rename(link+".new", link)
		}
	}()
	defer func() { close(stop); <-ended }()
	copied := 0
	for try := 0; try < 3000 && copied < 20; try++ {
		dest := fmt.Sprintf("/%d", try)
		list := []fileentry.Entry{seen(t, src.Name(), "d"), seen(t, src.Name(), "d/f")}
		wantDir, wantFile := value(names[1]), value(file)
		list[0].Attrs, list[1].Attrs = true, true
		to, err := os.Readlink(link)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, seen(t, src.Name(), "d/l"))
		if to2, err := os.Readlink(link); err != nil || to2 != to {
			continue // the copy may have read either link
		}
		again := []fileentry.Entry{seen(t, src.Name(), "d"), seen(t, src.Name(), "d/f")}
		if again[0].CtimeNs != list[0].CtimeNs || again[1].CtimeNs != list[1].CtimeNs {
			continue
		}
		s := im.spec(&copyfs.Copy{Dest: dest, Sources: one(src,
			copyfs.Item{Path: ".", Contents: true, Entries: list})})
		start := time.Now()
		_, err = Run(t.Context(), s, nil, nil)
		took.Store(int64(time.Since(start)))
		if _, changed := errors.AsType[*copyfs.ChangedError](err); changed {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		copied++
		got, err := os.Readlink(im.path(dest + "/d/l"))
		if f, d := value(im.path(dest+"/d/f")), value(im.path(dest+"/d")); err != nil ||
			f != wantFile || d != wantDir || got != to {
			t.Errorf(
				"copied the file of %s, the directory of %s and the link of %s, want %s, %s and %s",
				f, d, got, wantFile, wantDir, to)
		}
	}
	if copied == 0 {
		t.Error("every copy failed because something had changed")
	}
}
