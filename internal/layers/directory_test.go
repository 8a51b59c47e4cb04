package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/snapshot"
	"pgregory.net/rapid"
)

// source is a directory from which a COPY takes files, and the directory of the COPY.
type copied struct {
	dir  string
	from *copyfs.Directory
}

// copyOf makes a source directory with entries in the notation of fstree, and describes the COPY of
// its contents to dest.
func (f *fixture) copyOf(tree, dest string) copied {
	f.Helper()
	dir := f.TempDir()
	if err := fstree.Make(dir, tree); err != nil {
		f.Fatal(err)
	}
	top, err := os.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { top.Close() })
	files, err := source.NewTree(top, source.TreeOptions{})
	if err != nil {
		f.Fatal(err)
	}
	m, err := files.Match(f.Context(), source.Query{Patterns: []string{"/"}})
	if err != nil {
		f.Fatal(err)
	}
	if len(m.Items) != 1 || !m.Items[0].Contents {
		f.Fatalf("the source has the items %+v", m.Items)
	}
	return copied{dir, &copyfs.Directory{Dest: dest, Top: top, Path: m.Items[0].Path,
		Entries: m.Items[0].Entries.List()}}
}

// drawTree returns some of a few entries in the notation of fstree, below a directory. The same
// draws make the same entries below any directory.
func drawTree(t *rapid.T) func(below string) string {
	type entry struct {
		format  string
		mode    int
		mtime   int64
		content string
	}
	const directory = "dir %sx %04o @%d"
	var list []entry
	content := rapid.StringMatching(`[a-z]{0,9}`)
	add := func(format string, modes ...int) {
		// a directory that is not listed would have the time at which it is made
		if format == directory || rapid.Bool().Draw(t, format) {
			list = append(list, entry{format, rapid.SampledFrom(modes).Draw(t, "mode"),
				rapid.Int64Range(0, 1<<33).Draw(t, "mtime"), content.Draw(t, "content")})
		}
	}
	add(directory, 0o755, 0o700, 0o1777)
	add("file %sx/a %04o @%d %s", 0o644, 0o4755)
	add("file %sx/b %04o @%d %s", 0o644, 0o600)
	add("dir %sx/y %04o @%d", 0o755, 0o500)
	add("file %sc %04o @%d %s", 0o644, 0o111)
	add("file %sx-a %04o @%d %s", 0o644)
	add("link %sl %04o @%d -> x/a", 0o777)
	return func(below string) string {
		var b strings.Builder
		for _, e := range list {
			args := []any{below, e.mode, e.mtime}
			if strings.HasSuffix(e.format, "%s") {
				args = append(args, e.content)
			}
			fmt.Fprintf(&b, e.format+"\n", args...)
		}
		return b.String()
	}
}

// fixedTree is a tree as drawTree returns one.
func fixedTree(below string) string {
	return fmt.Sprintf("dir %sx 0750 @11\nfile %[1]sx/a 0644 @12 1\nfile %[1]sb 0755 @13 22\n"+
		"hardlink %[1]sc => %[1]sb\nlink %[1]sl 0777 @14 -> x/a\n", below)
}

// copyOnBase makes snapshots with the numbers n: a base, and an active one with the destination of
// a COPY of a tree to the directory d.
func (f *fixture) copyOnBase(n int, tree func(string) string) (copied, *snapshot.Active) {
	f.Helper()
	base := f.commit(snapshot.ID(fmt.Sprint("base", n)), "", "dir d 0755 @7\nfile e 0644 1\n")
	return f.copyOf(tree(""), "d"), f.prepare(base, "dir d 0755 @8\n")
}

// finish copies a tree to the directory d of an active snapshot, and commits it.
func (f *fixture) finish(id snapshot.ID, active *snapshot.Active, tree func(string) string) {
	f.Helper()
	if err := fstree.Make(active.Upper(), "dir d 0755 @8\n"+tree("d/")); err != nil {
		f.Fatal(err)
	}
	if err := active.Commit(f.Context(), id); err != nil {
		f.Fatal(err)
	}
}

// TestSealDirectory checks that the layer that is written from the files of a source is that of the
// snapshot into which they are copied.
func TestSealDirectory(t *testing.T) {
	drivers(t, func(t *testing.T, f *fixture) {
		n := 0
		check := func(tree func(string) string) error {
			n++
			src, active := f.copyOnBase(n, tree)
			s := NewSealer(t.Context(), f.options())
			got, ok, err := s.SealDirectory(t.Context(), active.Changes(), src.from)
			if !ok || err != nil {
				return fmt.Errorf("the layer is written: %v, error %v", ok, err)
			}
			l := &Layer{Snapshot: snapshot.ID(fmt.Sprint("copy", n))}
			f.finish(l.Snapshot, active, tree)
			s.Seal(l)
			if err := l.Wait(t.Context()); err != nil {
				return err
			}
			if got.Descriptor.Digest != l.Descriptor.Digest || got.DiffID != l.DiffID {
				return fmt.Errorf("%s\nthe layer of the source has\n%s\nand that of the copy\n%s",
					tree(""), f.entries(got.Descriptor), f.entries(l.Descriptor))
			}
			return nil
		}
		if err := check(fixedTree); err != nil {
			t.Error(err)
		}
		if f.state.Snapshots.Layered() {
			return // the files of the source are read by the same code
		}
		rapid.Check(t, func(rt *rapid.T) {
			if err := check(drawTree(rt)); err != nil {
				rt.Fatal(err)
			}
		})
	})
}

// TestBeginDirectory writes layers from the files of a source before their snapshots exist. If that
// is not possible, they are sealed from the snapshots.
func TestBeginDirectory(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(f *fixture, src copied)
		early bool // the layer is written from the source
	}{
		{"good", func(*fixture, copied) {}, true},
		{"a file that has changed", func(f *fixture, src copied) {
			path := filepath.Join(src.dir, "b")
			if err := os.WriteFile(path, []byte("other"), 0o600); err != nil {
				f.Fatal(err)
			}
		}, false},
		{"a source that is missing", func(_ *fixture, src copied) { src.from.Path = "none" }, false},
		{"a special file", func(f *fixture, src copied) {
			if err := fstree.Make(src.dir, "fifo b 0644\n"); err != nil {
				f.Fatal(err)
			}
		}, false},
		{"a file that is gone", func(f *fixture, src copied) {
			if err := os.Remove(filepath.Join(src.dir, "b")); err != nil {
				f.Fatal(err)
			}
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			drivers(t, func(t *testing.T, f *fixture) {
				src, active := f.copyOnBase(0, fixedTree)
				tt.spoil(f, src)
				o := f.options()
				made := 0 // the snapshot is looked up to seal the layer from it
				o.Lazy.Add("copy", func(context.Context) error { made++; return nil })
				s := NewSealer(t.Context(), o)
				if l, ok, err := s.SealDirectory(t.Context(), active.Changes(),
					src.from); ok != tt.early || err != nil {
					t.Errorf("SealDirectory = %v, %v, %v; want %v", l, ok, err, tt.early)
				}
				s.BeginDirectory("copy", active.Changes(), src.from)
				f.finish("copy", active, fixedTree)
				for range 2 {
					l := &Layer{Snapshot: "copy", Text: "COPY . d/"}
					s.Seal(l)
					if err := l.Wait(t.Context()); err != nil {
						t.Fatal(err)
					}
					got := f.entries(l.Descriptor)
					if !strings.Contains(got, `file d/b 0755 "22"`) ||
						strings.Contains(got, "fifo") || strings.Contains(got, "file e") {
						t.Errorf("the layer has the entries\n%s", got)
					}
				}
				s.Wait()
				if (made == 0) != tt.early {
					t.Errorf("the layer was sealed from its snapshot %d times", made)
				}
				if len(f.sealed) != 1 || len(f.seals()) != 1 {
					t.Errorf("sealed %v, recorded %q", f.sealed, f.seals())
				}
			})
		})
	}
}

// TestDirectoryFails checks that an error of the store is returned: the layer is not sealed a
// second time from its snapshot.
func TestDirectoryFails(t *testing.T) {
	f := newFixture(t, "copy")
	src, active := f.copyOnBase(0, fixedTree)
	dir := filepath.Join(f.state.Root, "oci/tmp")
	if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	o := f.options()
	o.Lazy.Add("copy", func(context.Context) error {
		t.Error("the layer is sealed from its snapshot")
		return nil
	})
	s := NewSealer(t.Context(), o)
	if l, ok, err := s.SealDirectory(t.Context(), active.Changes(), src.from); ok ||
		!errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("SealDirectory = %v, %v, %v; want ENOTDIR", l, ok, err)
	}
	s.BeginDirectory("copy", active.Changes(), src.from)
	f.finish("copy", active, fixedTree)
	l := &Layer{Snapshot: "copy", Text: "COPY . d/"}
	s.Seal(l)
	err := l.Wait(t.Context())
	if !errors.Is(err, syscall.ENOTDIR) ||
		!strings.HasPrefix(err.Error(), `seal the layer of "COPY . d/": `) {
		t.Errorf("error %v, want ENOTDIR", err)
	}
	s.Wait()
	if len(f.sealed) > 0 || len(f.seals()) > 0 {
		t.Errorf("sealed %v, recorded %q", f.sealed, f.seals())
	}
}

// TestBeginDirectorySlots begins a layer while as many layers are written as there are slots.
// BeginDirectory returns, so that the files may be copied. The layer is written when a slot is
// free.
func TestBeginDirectorySlots(t *testing.T) {
	f := newFixture(t, "copy")
	src, active := f.copyOnBase(0, fixedTree)
	s := NewSealer(t.Context(), f.options())
	for range cap(s.slots) {
		s.slots <- struct{}{}
	}
	s.BeginDirectory("copy", active.Changes(), src.from)
	select {
	case <-s.early["copy"].begun:
	default:
		t.Error("BeginDirectory returns before the directories above the files are read")
	}
	f.finish("copy", active, fixedTree)
	l := &Layer{Snapshot: "copy"}
	s.Seal(l)
	<-s.slots
	if err := l.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Wait()
	if n := len(s.slots); n != cap(s.slots)-1 {
		t.Errorf("%d slots are taken, want %d", n, cap(s.slots)-1)
	}
}

// TestCancelDirectory cancels a layer that waits for a slot, and one that was not begun. Nothing is
// written to the store.
func TestCancelDirectory(t *testing.T) {
	f := newFixture(t, "copy")
	src, active := f.copyOnBase(0, fixedTree)
	defer active.Discard()
	s := NewSealer(t.Context(), f.options())
	for range cap(s.slots) {
		s.slots <- struct{}{}
	}
	s.BeginDirectory("copy", active.Changes(), src.from)
	s.CancelDirectory("copy")
	s.CancelDirectory("another")
	s.Wait() // although there is no slot
	if n := len(s.slots); n != cap(s.slots) {
		t.Errorf("%d slots are taken, want %d", n, cap(s.slots))
	}
	if len(s.early) > 0 {
		t.Errorf("left: %v", s.early)
	}
	if blobs, err := filepath.Glob(filepath.Join(f.state.Root,
		"oci/blobs/sha256/*")); len(blobs) > 0 || err != nil {
		t.Errorf("the store has %q, %v", blobs, err)
	}
}

// TestBeginDirectoryCanceled ends the context of the build while a layer waits for a slot, and no
// step asks for the layer.
func TestBeginDirectoryCanceled(t *testing.T) {
	f := newFixture(t, "copy")
	src, active := f.copyOnBase(0, fixedTree)
	defer active.Discard()
	ctx, cancel := context.WithCancelCause(t.Context())
	s := NewSealer(ctx, f.options())
	for range cap(s.slots) {
		s.slots <- struct{}{}
	}
	s.BeginDirectory("copy", active.Changes(), src.from)
	stop := errors.New("stop")
	cancel(stop)
	s.Wait()
	l := &Layer{Snapshot: "copy", Text: "COPY . d/"}
	s.Seal(l)
	if err := l.Wait(t.Context()); !errors.Is(err, stop) && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the cause", err)
	}
	s.Wait()
	if len(f.sealed) > 0 || len(f.seals()) > 0 {
		t.Errorf("sealed %v, recorded %q", f.sealed, f.seals())
	}
}
