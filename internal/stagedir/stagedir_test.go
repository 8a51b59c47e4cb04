package stagedir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/lock/locktest"
	"golang.org/x/sys/unix"
)

// TestCommit moves trees to destinations of all kinds.
func TestCommit(t *testing.T) {
	defer unix.Umask(unix.Umask(0o022)) // missing directories are made with the umask
	for _, tt := range []struct {
		name, before, dest, tree, keep, want string
	}{
		{name: "missing", before: "dir p 0755", dest: "p/out",
			tree: "file a 0644 new\ndir d 0700\nlink l -> a",
			want: "dir p 0755\ndir p/out 0755\nfile p/out/a 0644 new\ndir p/out/d 0700\nlink p/out/l -> a\n"},
		{name: "missing parents", dest: "p/q/out", tree: "file a 0644 new",
			want: "dir p 0755\ndir p/q 0755\ndir p/q/out 0755\nfile p/q/out/a 0644 new\n"},
		{name: "merge", before: "dir out 0750\nfile out/a 0600 old\nfile out/own 0600 old\ndir out/d 0711\nfile out/d/x 0600 old\ndir out/e 0711",
			dest: "out", tree: "file a 0644 new\ndir d 0700\nfile d/y 0644 new\ndir e 0700\nfile e/z 0644 new", keep: "e",
			want: "dir out 0750\nfile out/a 0644 new\ndir out/d 0700\nfile out/d/x 0600 old\nfile out/d/y 0644 new\ndir out/e 0711\nfile out/e/z 0644 new\nfile out/own 0600 old\n"},
		{name: "other types", before: "dir o 0755\nfile o/f 0600 old\ndir out 0755\ndir out/a 0755\nfile out/a/b 0600 old\nfile out/b 0600 old\nlink out/c -> ../o",
			dest: "out", tree: "file a 0644 new\ndir b 0755\nfile b/x 0644 new\ndir c 0755\nfile c/f 0644 new",
			want: "dir o 0755\nfile o/f 0600 old\ndir out 0755\nfile out/a 0644 new\ndir out/b 0755\nfile out/b/x 0644 new\ndir out/c 0755\nfile out/c/f 0644 new\n"},
		{name: "through a link", before: "dir real 0755\nlink out -> real", dest: "out",
			tree: "file a 0644 new",
			want: "link out -> real\ndir real 0755\nfile real/a 0644 new\n"},
		{name: "hard links and a directory without w", before: "dir out 0755", dest: "out",
			tree: "file a 0644 new\nhardlink b => a\ndir d 0555",
			want: "dir out 0755\nfile out/a 0644 new\nhardlink out/b => out/a\ndir out/d 0555\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			top := t.TempDir()
			if err := fstree.Make(top, tt.before); err != nil {
				t.Fatal(err)
			}
			d, err := New(filepath.Join(top, tt.dest))
			if err != nil {
				t.Fatal(err)
			}
			if err := fstree.Make(d.Path(), tt.tree); err != nil {
				t.Fatal(err)
			}
			err = d.Commit(Options{Keep: func(path string) bool { return path == tt.keep }})
			if err := errors.Join(err, d.Close()); err != nil {
				t.Fatal(err)
			}
			got, err := fstree.Print(top, fstree.Show{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestLockCanceled cancels a Lock that waits for another process.
func TestLockCanceled(t *testing.T) {
	top := t.TempDir()
	d, err := New(filepath.Join(top, "out"))
	if err != nil {
		t.Fatal(err)
	}
	locktest.Canceled(t, top, d.Lock)
	if err := errors.Join(os.WriteFile(filepath.Join(d.Path(), "a"), nil, 0o644),
		d.Commit(Options{}), d.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(top, "out", "a")); err != nil {
		t.Error(err)
	}
}

// TestLeftOver checks that New removes the directories of killed processes, and nothing else.
func TestLeftOver(t *testing.T) {
	top := t.TempDir()
	err := fstree.Make(top, "dir out 0755\n"+
		"dir .out.layerbuild-1 0700\ndir .out.layerbuild-1/content 0755\nfile .out.layerbuild-1/content/f 0644 x\n"+
		"dir out/.layerbuild-2 0700\n"+
		"dir .out.layerbuild-3 0755\n"+ // wrong mode
		"dir .out.layerbuild-4 0700\nfile .out.layerbuild-4/mine 0644 x\n"+
		"dir .out.layerbuild-x 0700\ndir .other.layerbuild-1 0700\nfile .out.layerbuild-5 0600 x\n")
	if err != nil {
		t.Fatal(err)
	}
	other, err := New(filepath.Join(top, "out")) // of a running process
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(filepath.Join(top, "out"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(other.Path()); err != nil {
		t.Errorf("the directory of another process was removed: %v", err)
	}
	if err := errors.Join(d.Close(), other.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := fstree.Print(top, fstree.Show{})
	if err != nil {
		t.Fatal(err)
	}
	want := "dir .other.layerbuild-1 0700\ndir .out.layerbuild-3 0755\ndir .out.layerbuild-4 0700\nfile .out.layerbuild-4/mine 0644 x\n" +
		"file .out.layerbuild-5 0600 x\ndir .out.layerbuild-x 0700\ndir out 0755\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestAppearsMeanwhile checks that the tree is merged into a destination that another process has
// made meanwhile.
func TestAppearsMeanwhile(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "p/out")
	d, err := New(dest)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fstree.Make(d.Path(), "file a 0644 new"), os.MkdirAll(dest, 0o750),
		os.WriteFile(dest+"/b", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Commit(Options{}), d.Close()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if _, err := os.Stat(filepath.Join(dest, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestRefused checks that a path that cannot be a destination is an error, and that no files are
// left behind.
func TestRefused(t *testing.T) {
	top := t.TempDir()
	if err := fstree.Make(top, "file f 0644\nlink l -> nowhere"); err != nil {
		t.Fatal(err)
	}
	for _, dest := range []string{"f", "f/x", "l"} {
		if d, err := New(filepath.Join(top, dest)); err == nil {
			t.Errorf("New(%s) succeeded", dest)
			d.Close()
		}
	}
	if _, err := New(filepath.Join(top, "f")); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("New of a file: %v, want %v", err, unix.ENOTDIR)
	}
	if names, _ := os.ReadDir(top); len(names) != 2 {
		t.Errorf("left: %v", names)
	}
}
