package snapshottest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
	"github.com/layerbuild/layerbuild/snapshot"
)

// Run tests the driver of the stores that open opens. open may be called several times for one
// directory, as several processes would open it.
func Run(t *testing.T, open func(t *testing.T, root string) *snapshot.Store) {
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"chain", (*suite).chain},
		{"removed", (*suite).removed},
		{"replaced", (*suite).replaced},
		{"fidelity", (*suite).fidelity},
		{"sockets", (*suite).sockets},
		{"holes", (*suite).holes},
		{"links", (*suite).links},
		{"root attributes", (*suite).rootAttributes},
		{"views", (*suite).views},
		{"again", (*suite).again},
		{"changes", (*suite).changes},
		{"commit on", (*suite).commitOn},
		{"ended", (*suite).ended},
		{"discard", (*suite).discard},
		{"over", (*suite).over},
		{"race", (*suite).race},
		{"parallel", (*suite).parallel},
		{"remove", (*suite).remove},
		{"all", (*suite).all},
		{"two stores", (*suite).twoStores},
		{"left over", (*suite).leftOver},
		{"hostile names", (*suite).hostileNames},
		{"hostile root", (*suite).hostileRoot},
		{"long chain", (*suite).longChain},
	} {
		t.Run(test.name, func(t *testing.T) {
			if IsChild() {
				(&suite{T: t, open: open}).killed()
			}
			// The runs in user namespaces use memory, which is faster, and the others use the disk.
			dir := t.TempDir()
			if mounttest.UserNS() {
				dir = mounttest.TempDir(t)
			}
			root := filepath.Join(dir, "snapshots")
			test.run(&suite{T: t, open: open, root: root, Store: open(t, root)})
		})
	}
}

type suite struct {
	*testing.T
	*snapshot.Store
	open func(t *testing.T, root string) *snapshot.Store
	root string
}

func (s *suite) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// see makes mounts and calls f with the directory on which they are mounted, which ends in a slash.
func see(mounts []mount.Mount, f func(dir string) error) (err error) {
	dir, err := os.MkdirTemp("", "snapshottest")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	if err := mount.All(mounts, dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH)) }()
	return f(dir + "/")
}

// begin prepares a snapshot on parent and changes it.
func (s *suite) begin(parent snapshot.ID, change func(dir string) error) *snapshot.Active {
	s.Helper()
	a, err := s.Prepare(s.Context(), parent)
	s.check(err)
	s.check(see(a.Mounts(), change))
	return a
}

// make commits a snapshot on parent.
func (s *suite) make(id, parent snapshot.ID, change func(dir string) error) {
	s.Helper()
	s.check(s.begin(parent, change).Commit(s.Context(), id))
}

// tree returns a function that makes entries in a directory.
func tree(text string) func(dir string) error {
	return func(dir string) error { return fstree.Make(dir, text) }
}

// want compares the tree in a view of id.
func (s *suite) want(id snapshot.ID, want string) {
	s.Helper()
	mounts, err := s.View(s.Context(), id)
	s.check(err)
	s.wantMounts(string(id), mounts, fstree.Show{}, want)
}

func (s *suite) wantMounts(what string, mounts []mount.Mount, show fstree.Show, want string) {
	s.Helper()
	var got string
	s.check(see(mounts, func(dir string) (err error) {
		got, err = fstree.Print(dir, show)
		return err
	}))
	if diff := cmp.Diff(clean(want), clean(got)); diff != "" {
		s.Errorf("%s: -want +got\n%s", what, diff)
	}
}

// clean removes the indentation of a tree.
func clean(tree string) string {
	var b strings.Builder
	for line := range strings.Lines(tree) {
		if line = strings.TrimLeft(line, " \t"); strings.TrimSpace(line) != "" {
			b.WriteString(strings.TrimRight(line, "\n") + "\n")
		}
	}
	return b.String()
}

// empty fails if tmp has entries.
func (s *suite) empty() {
	s.Helper()
	entries, err := os.ReadDir(filepath.Join(s.root, s.Home(), "tmp"))
	s.check(err)
	for _, e := range entries {
		s.Errorf("left in tmp: %s", e.Name())
	}
}

func (s *suite) chain() {
	s.make("a", "", tree("file one 0644 1\ndir d 0755\nfile d/x 0600 x\n"))
	s.make("b", "a", tree("file two 0644 2\nfile d/x 0600 changed\n"))
	s.make("c", "a", tree("file three 0644 3\n"))
	s.want("a", "dir d 0755\nfile d/x 0600 x\nfile one 0644 1\n")
	s.want("b", "dir d 0755\nfile d/x 0600 changed\nfile one 0644 1\nfile two 0644 2\n")
	s.want("c", "dir d 0755\nfile d/x 0600 x\nfile one 0644 1\nfile three 0644 3\n")
	s.want("", "")
	s.empty()
}

func (s *suite) removed() {
	s.make("a", "", tree("file d/one 0644 1\nfile d/two 0644 2\nfile e/x 0644 x\n"))
	s.make("b", "a", func(dir string) error {
		return errors.Join(os.Remove(dir+"d/one"), os.RemoveAll(dir+"e"))
	})
	s.make("c", "b", tree("file d/three 0644 3\n"))
	s.make("d", "c", tree("file d/one 0644 again\n"))
	s.want("b", "dir d 0755\nfile d/two 0644 2\n")
	s.want("c", "dir d 0755\nfile d/three 0644 3\nfile d/two 0644 2\n")
	s.want("d", "dir d 0755\nfile d/one 0644 again\nfile d/three 0644 3\nfile d/two 0644 2\n")
	s.want("a", "dir d 0755\nfile d/one 0644 1\nfile d/two 0644 2\ndir e 0755\nfile e/x 0644 x\n")
}

func (s *suite) replaced() {
	s.make("a", "", tree("file d/one 0644 1\nfile f 0644 f\nfile g/deep/x 0644 x\n"))
	s.make("b", "a", func(dir string) error {
		return errors.Join(
			// hides the directory below
			os.RemoveAll(dir+"d"), os.Mkdir(dir+"d", 0o755),
			os.WriteFile(dir+"d/new", []byte("new"), 0o644),
			os.Remove(dir+"f"), os.Mkdir(dir+"f", 0o700),
			os.RemoveAll(dir+"g"), os.WriteFile(dir+"g", []byte("now a file"), 0o644),
		)
	})
	s.make("c", "b", func(dir string) error {
		return errors.Join(os.Remove(dir+"g"), os.Mkdir(dir+"g", 0o755))
	})
	s.want("b", "dir d 0755\nfile d/new 0644 new\ndir f 0700\nfile g 0644 now a file\n")
	s.want("c", "dir d 0755\nfile d/new 0644 new\ndir f 0700\ndir g 0755\n")

	// Rename a directory of a lower layer as tools do it when rename returns EXDEV.
	s.make("m", "a", func(dir string) error {
		if err := os.Rename(dir+"g", dir+"moved"); err == nil || !errors.Is(err, unix.EXDEV) {
			return err
		}
		return errors.Join(os.CopyFS(dir+"moved", os.DirFS(dir+"g")), os.RemoveAll(dir+"g"))
	})
	s.want("m", "dir d 0755\nfile d/one 0644 1\nfile f 0644 f\ndir moved 0755\n"+
		"dir moved/deep 0755\nfile moved/deep/x 0644 x\n")
}

// sockets checks that sockets can be removed, renamed, changed and replaced in a snapshot on top,
// and that they stay if they replace another file. Snapshots of fuse-overlayfs are the only ones
// that do not keep them.
func (s *suite) sockets() {
	s.make("a", "", tree("file d/file 0644 f\nfile d/gone 0644 g\nfile e/x 0644 x\n"))
	s.make("b", "a", func(dir string) error {
		return errors.Join(os.Remove(dir+"d/gone"), os.RemoveAll(dir+"e"),
			fstree.Make(dir, "socket d/gone 0755\nsocket d/removed 0755\nsocket d/renamed 0755\n"+
				"socket d/changed 0755\nsocket e 0755\nsocket n/s 0755\n"))
	})
	s.make("c", "b", func(dir string) error {
		var errs []error
		for _, err := range []error{
			os.Remove(dir + "d/removed"), os.Rename(dir+"d/renamed", dir+"d/new"),
			os.Chmod(dir+"d/changed", 0o700),
			os.Remove(dir + "e"), os.RemoveAll(dir + "n"),
		} {
			if s.Driver() != mount.FuseOverlay || !errors.Is(err, unix.ENOENT) {
				errs = append(errs, err)
			}
		}
		return errors.Join(append(errs, os.Mkdir(dir+"e", 0o755))...)
	})
	b := "dir d 0755\nsocket d/changed 0755\nfile d/file 0644 f\nsocket d/gone 0755\n" +
		"socket d/removed 0755\nsocket d/renamed 0755\nsocket e 0755\ndir n 0755\nsocket n/s 0755\n"
	c := "dir d 0755\nsocket d/changed 0700\nfile d/file 0644 f\nsocket d/gone 0755\n" +
		"socket d/new 0755\ndir e 0755\n"
	if s.Driver() == mount.FuseOverlay {
		b, c = "dir d 0755\nfile d/file 0644 f\ndir n 0755\n",
			"dir d 0755\nfile d/file 0644 f\ndir e 0755\n"
	}
	s.want("b", b)
	s.want("c", c)
}

// fidelity checks that each snapshot of a chain shows the same tree, with files of all types.
func (s *suite) fidelity() {
	text := `
		dir . 0755 @1000000000
		file plain 0644 @1000000001 content
		file empty 0600 @1000000002
		file suid 4755 @1000000003 program
		file "odd\n\xffname" 0444 @1000000004 x
		file attr 0644 @1000000005 [user.colour=red] [user.empty=] x
		link link @1000000006 -> "no/where \n"
		hardlink hard => plain
		fifo pipe 0640 @1000000007
		socket sock 0750 @1000000008
		dir closed 0500 @1000000009 [user.dir=yes]
		file closed/in 0644 @1000000010 x
		dir sticky 1777 @1000000011
		dir setgid 2755 @1000000012
		file .wh.looks-like-one 0644 @1000000013 x
	`
	if s.Driver() == mount.FuseOverlay {
		// fuse-overlayfs interprets such a name as a whiteout, and its snapshots keep no sockets.
		text = strings.ReplaceAll(text, "file .wh.looks-like-one 0644 @1000000013 x", "")
		text = strings.ReplaceAll(text, "socket sock 0750 @1000000008", "")
	}
	if mounttest.Current() != mounttest.Single {
		text += "file owned 0644 1234:4321 @1000000014 x\nlink ownedlink 77:88 @1000000015 -> x\n"
	}
	if mounttest.Current() == mounttest.Root {
		text += "char null 0666 @1000000016 1:3\nblock disk 0660 0:6 @1000000017 7:200\n"
	}
	s.make("a", "", tree(text))
	show := fstree.Show{Owners: true, Times: true, Xattrs: true, Root: true}
	print := func(id snapshot.ID) (got string) {
		s.Helper()
		mounts, err := s.View(s.Context(), id)
		s.check(err)
		s.check(see(mounts, func(dir string) (err error) {
			got, err = fstree.Print(dir, show)
			return err
		}))
		return got
	}
	want := print("a")
	for _, line := range []string{"hardlink", "[user.colour=red", "4755", "fifo",
		"@1000000009", "@1000000000"} {
		if !strings.Contains(want, line) {
			s.Errorf("the first snapshot lacks %s:\n%s", line, want)
		}
	}
	parent := snapshot.ID("a")
	for _, id := range []snapshot.ID{"b", "c"} {
		s.make(id, parent, func(string) error { return nil })
		if diff := cmp.Diff(want, print(id)); diff != "" {
			s.Errorf("%s: -want +got\n%s", id, diff)
		}
		parent = id
	}
}

// holes checks a file of 64 MiB with few blocks on the disk.
func (s *suite) holes() {
	s.make("a", "", func(dir string) error {
		f, err := os.Create(dir + "sparse")
		if err != nil {
			return err
		}
		_, err1 := f.WriteAt([]byte("data"), 32<<20)
		_, err2 := f.WriteAt([]byte("end\n"), 64<<20)
		return errors.Join(err1, err2, f.Close())
	})
	s.make("b", "a", func(dir string) error { return os.Chmod(dir+"sparse", 0o600) })
	for _, id := range []snapshot.ID{"a", "b"} {
		mounts, err := s.View(s.Context(), id)
		s.check(err)
		s.check(see(mounts, func(dir string) error {
			var st unix.Stat_t
			if err := unix.Stat(dir+"sparse", &st); err != nil {
				return err
			}
			if st.Size != 64<<20+4 || st.Blocks*512 > 4<<20 && s.Driver() != mount.FuseOverlay {
				s.Errorf("%s: %d bytes in %d blocks", id, st.Size, st.Blocks)
			}
			content, err := os.ReadFile(dir + "sparse")
			if err == nil && (string(content[32<<20:32<<20+4]) != "data" ||
				string(content[64<<20:]) != "end\n") {
				s.Errorf("%s: the content is another one", id)
			}
			return err
		}))
	}
}

func (s *suite) links() {
	s.make("a", "", tree("file one 0644 same\nhardlink two => one\nhardlink d/three => one\n"))
	s.make("b", "a", func(dir string) error { return os.Link(dir+"one", dir+"four") })
	s.make("c", "a", func(dir string) error { return os.Remove(dir + "one") })
	s.make("d", "b", tree("file new 0644 x\nhardlink newer => new\n"))
	s.want("a",
		"dir d 0755\nfile d/three 0644 same\nhardlink one => d/three\nhardlink two => d/three\n")
	s.want("c", "dir d 0755\nfile d/three 0644 same\nhardlink two => d/three\n")
	for _, id := range []snapshot.ID{"b", "d"} {
		mounts, err := s.View(s.Context(), id)
		s.check(err)
		s.check(see(mounts, func(dir string) error {
			for _, name := range []string{"one", "two", "d/three", "four"} {
				if content, err := os.ReadFile(dir + name); err != nil ||
					string(content) != "same" {
					s.Errorf("%s: %s = %q, %v, want same", id, name, content, err)
				}
			}
			return nil
		}))
	}
}

func (s *suite) rootAttributes() {
	s.make("plain", "", func(string) error { return nil })
	mounts, err := s.View(s.Context(), "plain")
	s.check(err)
	s.wantMounts("a new root", mounts, fstree.Show{Owners: true, Root: true},
		"dir . 0755 root:root\n")

	text := "dir . 0711 @1234567890 [user.root=yes]"
	if mounttest.Current() != mounttest.Single {
		text = "dir . 2711 7:8 @1234567890 [user.root=yes]"
	}
	show := fstree.Show{Owners: true, Times: true, Xattrs: true, Root: true}
	s.make("a", "", tree(text))
	want := strings.ReplaceAll(text, " 0711 @", " 0711 root:root @")
	parent := snapshot.ID("a")
	for _, id := range []snapshot.ID{"b", "c"} {
		a := s.begin(parent, func(string) error { return nil })
		s.wantMounts("active on "+string(parent), a.Mounts(), show, want)
		s.check(a.Commit(s.Context(), id))
		mounts, err := s.View(s.Context(), id)
		s.check(err)
		s.wantMounts(string(id), mounts, show, want)
		parent = id
	}
}

func (s *suite) views() {
	s.make("a", "", tree("file d/one 0644 1\n"))
	s.make("b", "a", tree("file d/two 0644 2\n"))
	for _, id := range []snapshot.ID{"", "a", "b"} {
		mounts, err := s.View(s.Context(), id)
		s.check(err)
		s.check(see(mounts, func(dir string) error {
			for what, err := range map[string]error{
				"create": os.WriteFile(dir+"new", nil, 0o644),
				"mkdir":  os.Mkdir(dir+"newdir", 0o755),
				"chmod":  os.Chmod(dir+".", 0o700),
			} {
				if !errors.Is(err, unix.EROFS) {
					s.Errorf("%s in a view of %q = %v, want EROFS", what, id, err)
				}
			}
			return nil
		}))
	}
	if _, err := s.View(s.Context(), "none"); !errors.Is(err, snapshot.ErrNotExist) {
		s.Errorf("View of no snapshot = %v, want ErrNotExist", err)
	}
	// Mount two views of one snapshot and an Active on it at once.
	mounts, err := s.View(s.Context(), "b")
	s.check(err)
	s.check(see(mounts, func(string) error {
		s.want("b", "dir d 0755\nfile d/one 0644 1\nfile d/two 0644 2\n")
		s.make("c", "b", tree("file d/three 0644 3\n"))
		return nil
	}))
}

// again mounts an active snapshot several times.
func (s *suite) again() {
	s.make("a", "", tree("file one 0644 1\n"))
	a := s.begin("a", tree("file two 0644 2\n"))
	s.check(see(a.Mounts(), tree("file three 0644 3\n")))
	s.wantMounts("active", a.Mounts(), fstree.Show{},
		"file one 0644 1\nfile three 0644 3\nfile two 0644 2\n")
	s.check(a.Commit(s.Context(), "b"))
	s.want("b", "file one 0644 1\nfile three 0644 3\nfile two 0644 2\n")
}

func (s *suite) changes() {
	s.make("a", "", tree("file one 0644 1\nfile two 0644 2\nfile d/x 0644 x\n"))
	s.make("b", "a", tree("file three 0644 3\n"))
	a := s.begin("b", func(dir string) error {
		return errors.Join(os.Remove(dir+"one"), os.WriteFile(dir+"four", []byte("4"), 0o644),
			os.RemoveAll(dir+"d"), os.Mkdir(dir+"d", 0o755))
	})
	want := "dir d 0755\nopaque d\nfile four 0644 4\nwhiteout one\n"
	if !s.Layered() {
		want = "dir d 0755\nfile four 0644 4\nfile three 0644 3\nfile two 0644 2\n"
	}
	if s.Driver() != mount.FuseOverlay { // the commit translates its marks
		s.wantDir("active", a.Changes().Dir, want)
	}
	if got := a.Changes(); got.Dir != a.Upper() {
		s.Errorf("Changes of an active: Dir = %q, want Upper, %q", got.Dir, a.Upper())
	}
	before := a.Changes()
	s.check(a.Commit(s.Context(), "c"))
	after, err := s.Changes(s.Context(), "c")
	s.check(err)
	s.wantDir("committed", after.Dir, want)
	if diff := cmp.Diff(after, a.Changes()); diff != "" {
		s.Errorf("Changes of the committed Active: -want +got\n%s", diff)
	}
	before.Dir = after.Dir
	if diff := cmp.Diff(after, before); diff != "" {
		s.Errorf("Changes before the commit but for Dir: -want +got\n%s", diff)
	}
	dirs := func(id snapshot.ID) string {
		c, err := s.Changes(s.Context(), id)
		s.check(err)
		return c.Dir
	}
	lower := []string{dirs("b"), dirs("a")}
	if !s.Layered() {
		lower = lower[:1]
	}
	if !slices.Equal(after.Lower, lower) || after.Full == s.Layered() {
		s.Errorf("Changes = %+v, want Lower %q, Full %t", after, lower, !s.Layered())
	}
	all := []string{after.Dir}
	if s.Layered() {
		all = append(all, lower...)
	}
	if got, err := s.Dirs(s.Context(), "c"); err != nil || !slices.Equal(got, all) {
		s.Errorf("Dirs = %q, %v, want %q", got, err, all)
	}
	if got, err := s.Dirs(s.Context(), ""); err != nil || got != nil {
		s.Errorf("Dirs of the empty file system = %q, %v", got, err)
	}
	if got, err := s.Dirs(s.Context(), "none"); !errors.Is(err, snapshot.ErrNotExist) {
		s.Errorf("Dirs of no snapshot = %q, %v, want ErrNotExist", got, err)
	}
}

func (s *suite) wantDir(what, dir, want string) {
	s.Helper()
	got, err := fstree.Print(dir, fstree.Show{})
	s.check(err)
	if diff := cmp.Diff(clean(want), clean(got)); diff != "" {
		s.Errorf("%s: -want +got\n%s", what, diff)
	}
}

// commitOn unpacks layers before their parents exist.
func (s *suite) commitOn() {
	ctx := s.Context()
	a, err := s.Prepare(ctx, "")
	s.check(err)
	defer a.Discard()
	s.check(fstree.Make(a.Upper(), "file top 0644 top\nfile d/x 0644 new\n"))
	s.make("base", "", tree(
		"dir . 0711 @1234567890\nfile base 0644 base\nfile d/x 0644 old\nfile d/y 0644 y\n"))
	if !s.Layered() {
		if err := a.CommitOn(ctx, "top", "base", false); err == nil {
			s.Error("CommitOn: a whole tree has got another parent")
		}
		s.check(a.CommitOn(ctx, "top", "", false))
		s.want("top", "dir d 0755\nfile d/x 0644 new\nfile top 0644 top\n")
		return
	}
	if err := a.CommitOn(ctx, "top", "none", false); !errors.Is(err, snapshot.ErrNotExist) {
		s.Errorf("CommitOn a missing parent = %v, want ErrNotExist", err)
	}
	s.check(a.CommitOn(ctx, "top", "base", false))
	mounts, err := s.View(ctx, "top")
	s.check(err)
	s.wantMounts("top", mounts, fstree.Show{Root: true}, `
		dir . 0711
		file base 0644 base
		dir d 0755
		file d/x 0644 new
		file d/y 0644 y
		file top 0644 top`)

	// What was written through a mount without a parent hides nothing of the parent: fuse-overlayfs
	// marks each directory that it makes as opaque.
	alone := s.begin("", tree("file d/z 0644 z\nfile d/e/f 0644 f\nfile top 0644 replaced\n"))
	s.check(alone.CommitOn(ctx, "alone", "top", false))
	s.want("alone", `
		file base 0644 base
		dir d 0755
		dir d/e 0755
		file d/e/f 0644 f
		file d/x 0644 new
		file d/y 0644 y
		file d/z 0644 z
		file top 0644 replaced`)

	// The layer's entry for the root is kept with any time, including recent and future ones.
	parent := snapshot.ID("top")
	for i, mtime := range []int64{1111111111, time.Now().Unix(), 4000000000} {
		b, err := s.Prepare(ctx, "")
		s.check(err)
		s.check(fstree.Make(b.Upper(), fmt.Sprintf("dir . 0750 @%d\n", mtime)))
		id := snapshot.ID(fmt.Sprintf("over%d", i))
		s.check(b.CommitOn(ctx, id, parent, true))
		mounts, err = s.View(ctx, id)
		s.check(err)
		s.check(see(mounts, func(dir string) error {
			st, err := os.Stat(dir)
			if err == nil && (st.Mode().Perm() != 0o750 || st.ModTime().Unix() != mtime) {
				s.Errorf("a layer with a root entry: root is %v %v, want 0750 and the time %d",
					st.Mode(), st.ModTime(), mtime)
			}
			return err
		}))
		parent = id
	}
	info, err := s.Stat(s.Context(), "over0")
	if err != nil || info.Parent != "top" {
		s.Errorf("Stat = %+v, %v, want parent top", info, err)
	}
}

// ended checks the methods of Actives that have ended.
func (s *suite) ended() {
	ctx := s.Context()
	a := s.begin("", tree("file one 0644 1\n"))
	s.check(a.Commit(ctx, "a"))
	if err := a.Commit(ctx, "b"); err == nil {
		s.Error("a second Commit is no error")
	}
	if err := a.Discard(); err != nil {
		s.Errorf("Discard after Commit = %v, want nil", err)
	}
	s.want("a", "file one 0644 1\n")
	if _, err := s.Prepare(ctx, "none"); !errors.Is(err, snapshot.ErrNotExist) {
		s.Errorf("Prepare on no snapshot = %v, want ErrNotExist", err)
	}
	s.empty()
}

func (s *suite) discard() {
	a := s.begin("", func(dir string) error {
		if err := fstree.Make(dir, "file d/x 0644 x\ndir closed 0755\n"+
			"file closed/x 0644 x\nlink l -> /etc\n"); err != nil {
			return err
		}
		return errors.Join(os.Chmod(dir+"closed", 0), deep(dir, 300))
	})
	s.check(a.Discard())
	s.check(a.Discard())
	if err := a.Commit(s.Context(), "a"); err == nil {
		s.Error("Commit after Discard is no error")
	}
	if _, err := s.Stat(s.Context(), "a"); !errors.Is(err, snapshot.ErrNotExist) {
		s.Errorf("Stat = %v, want ErrNotExist", err)
	}
	s.empty()
}

// over changes files on a directory of the host, which keeps its files.
func (s *suite) over() {
	host := s.TempDir()
	const files = "file a 0644 one\nfile d/b 0600 two\nlink l -> a\n"
	s.check(fstree.Make(host+"/", files))
	a, err := s.Over(s.Context(), host)
	s.check(err)
	s.check(see(a.Mounts(), func(dir string) error {
		for name, want := range map[string]string{"a": "one", "d/b": "two", "l": "one"} {
			if got, err := os.ReadFile(dir + name); err != nil || string(got) != want {
				s.Errorf("%s is %q, %v", name, got, err)
			}
		}
		return errors.Join(os.WriteFile(dir+"a", []byte("other"), 0o644),
			os.Remove(dir+"d/b"), os.Mkdir(dir+"new", 0o755))
	}))
	s.wantMounts("the changes", a.Mounts(), fstree.Show{},
		"file a 0644 other\ndir d 0755\nlink l -> a\ndir new 0755\n")
	if err := a.Commit(s.Context(), "a"); err == nil {
		s.Error("Commit is no error")
	}
	s.check(a.Discard())
	s.wantMounts("the directory", []mount.Mount{{Type: mount.Bind, Source: host}}, fstree.Show{},
		"file a 0644 one\ndir d 0755\nfile d/b 0600 two\nlink l -> a\n")
	if _, err := s.Over(s.Context(), host+"/none"); err == nil {
		s.Error("a directory that does not exist is no error")
	}
	s.empty()
}

// deep makes n directories in one another.
func deep(dir string, n int) error {
	for range n {
		dir += "/deep"
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// race commits equal snapshots at the same time.
func (s *suite) race() {
	s.make("base", "", tree("file base 0644 x\n"))
	var actives []*snapshot.Active
	for range 8 {
		actives = append(actives, s.begin("base", tree("file one 0644 1\n")))
	}
	var g errgroup.Group
	for _, a := range actives {
		g.Go(func() error { return a.Commit(context.Background(), "same") })
	}
	s.check(g.Wait())
	s.want("same", "file base 0644 x\nfile one 0644 1\n")
	for _, a := range actives {
		want, err := s.Changes(s.Context(), "same")
		s.check(err)
		if diff := cmp.Diff(want, a.Changes()); diff != "" {
			s.Errorf("Changes of one that lost: -want +got\n%s", diff)
		}
	}
	s.empty()
}

func (s *suite) parallel() {
	s.make("base", "", tree("file base 0644 x\n"))
	var g errgroup.Group
	for i := range 16 {
		g.Go(func() error {
			ctx := context.Background()
			a, err := s.Prepare(ctx, "base")
			if err != nil {
				return err
			}
			defer a.Discard()
			if err := see(a.Mounts(), tree(fmt.Sprintf("file own 0644 %d\n", i))); err != nil {
				return err
			}
			return a.Commit(ctx, snapshot.ID(fmt.Sprintf("s%d", i)))
		})
	}
	s.check(g.Wait())
	for i := range 16 {
		s.want(snapshot.ID(fmt.Sprintf("s%d", i)),
			fmt.Sprintf("file base 0644 x\nfile own 0644 %d\n", i))
	}
	s.empty()
}

func (s *suite) remove() {
	ctx := s.Context()
	s.make("a", "", tree("file one 0644 1\n"))
	s.make("b", "a", tree("file two 0644 2\n"))
	if err := s.Remove(ctx, "a"); !errors.Is(err, snapshot.ErrInUse) {
		s.Errorf("Remove of a parent = %v, want ErrInUse", err)
	}
	active := s.begin("b", tree("file three 0644 3\n"))
	// Another process sees it too.
	for _, store := range []*snapshot.Store{s.Store, s.open(s.T, s.root)} {
		if err := store.Remove(ctx, "b"); !errors.Is(err, snapshot.ErrInUse) {
			s.Errorf("Remove of an active's parent = %v, want ErrInUse", err)
		}
	}
	s.check(active.Discard())
	s.check(s.Remove(ctx, "b"))
	s.check(s.Remove(ctx, "a"))
	for _, id := range []snapshot.ID{"a", "b", "none"} {
		if err := s.Remove(ctx, id); !errors.Is(err, snapshot.ErrNotExist) {
			s.Errorf("Remove of %s, which is not there = %v, want ErrNotExist", id, err)
		}
		if _, err := s.Prepare(ctx, id); !errors.Is(err, snapshot.ErrNotExist) {
			s.Errorf("Prepare on %s, which is removed = %v, want ErrNotExist", id, err)
		}
	}
	s.make("a", "", tree("file again 0644 x\n"))
	s.want("a", "file again 0644 x\n")
	s.empty()
}

func (s *suite) all() {
	start := time.Now()
	s.make("a", "", tree("file one 0644 1\n"))
	s.make("c.d_e-F", "a", tree("file two 0644 2\n"))
	s.make("b", "c.d_e-F", tree("file two 0644 2\n"))
	active := s.begin("b", tree("file three 0644 3\n"))
	defer active.Discard()
	var got []string
	for info, err := range s.All() {
		s.check(err)
		got = append(got, string(info.ID+" on "+info.Parent))
		if info.Created.Before(start.Add(-time.Second)) ||
			info.Created.After(time.Now().Add(time.Second)) {
			s.Errorf("%s: Created = %v, which is not now", info.ID, info.Created)
		}
		if info.Driver != s.Driver() || info.Suspect {
			s.Errorf("Info = %+v, want driver %s and not suspect", info, s.Driver())
		}
		same, err := s.Stat(s.Context(), info.ID)
		s.check(err)
		if diff := cmp.Diff(info, same); diff != "" {
			s.Errorf("All and Stat differ: %s", diff)
		}
	}
	if want := []string{"a on ", "b on c.d_e-F", "c.d_e-F on a"}; !slices.Equal(got, want) {
		s.Errorf("All = %q, want %q", got, want)
	}
	for range s.All() {
		break
	}
}

func (s *suite) twoStores() {
	other := s.open(s.T, s.root)
	s.make("a", "", tree("file one 0644 1\n"))
	if _, err := other.Stat(s.Context(), "a"); err != nil {
		s.Errorf("another store does not see a snapshot: %v", err)
	}
	s.check(other.Remove(s.Context(), "a"))
	if _, err := s.Stat(s.Context(), "a"); !errors.Is(err, snapshot.ErrNotExist) {
		s.Errorf("Stat of what another store has removed = %v, want ErrNotExist", err)
	}
	if _, err := s.View(s.Context(), "a"); !errors.Is(err, snapshot.ErrNotExist) {
		s.Errorf("View of what another store has removed = %v, want ErrNotExist", err)
	}
}

// leftOverVariable is set in the process that is to be killed, to the directory of its store.
const leftOverVariable = "SNAPSHOTTEST_LEFT_OVER"

// IsChild reports whether this process was started by a test of the suite. It runs the test that
// called Run a second time. In such a process the test must not make anything that has to be
// removed.
func IsChild() bool { return os.Getenv(leftOverVariable) != "" }

// killed kills this process while it makes a snapshot.
func (s *suite) killed() {
	store := s.open(s.T, os.Getenv(leftOverVariable))
	a, err := store.Prepare(s.Context(), "base")
	s.check(err)
	s.check(see(a.Mounts(), tree("file d/left 0644 x\n")))
	s.check(unix.Kill(unix.Getpid(), unix.SIGKILL))
}

// leftOver opens a store after another process was killed that made a snapshot in it.
func (s *suite) leftOver() {
	s.make("base", "", tree("file one 0644 1\n"))
	alive := s.begin("base", tree("file two 0644 2\n"))
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+
		strings.ReplaceAll(s.Name(), "/", "$/^")+"$")
	// The other process cannot remove the temporary directory of the test that called Run.
	cmd.Env = append(os.Environ(), leftOverVariable+"="+s.root, "TMPDIR="+s.TempDir())
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
		s.Fatalf("the other process was not killed: %v\n%s", err, out)
	}
	if n := s.inTmp(); n != 2 {
		s.Fatalf("%d entries in tmp, want two", n)
	}
	s.open(s.T, s.root)
	if n := s.inTmp(); n != 1 {
		s.Errorf("%d entries in tmp after Open, want that of the living only", n)
	}
	s.check(alive.Commit(s.Context(), "two"))
	s.want("two", "file one 0644 1\nfile two 0644 2\n")
	s.empty()
}

func (s *suite) inTmp() int {
	entries, err := os.ReadDir(filepath.Join(s.root, s.Home(), "tmp"))
	s.check(err)
	return len(entries)
}

func (s *suite) hostileNames() {
	ctx := s.Context()
	for _, id := range []snapshot.ID{
		"", ".", "..", "/", "/etc", "a/b", "../a", "tmp", "lock", "empty", "full", "fuse", "a b",
		"a\x00b", "a\nb", "ä", snapshot.ID(strings.Repeat("x", 300)),
	} {
		a := s.begin("", tree("file one 0644 1\n"))
		if err := a.Commit(ctx, id); err == nil {
			s.Errorf("Commit(%q) is no error", id)
		}
		s.check(a.Discard())
		if id == "" {
			continue // "" means no parent
		}
		for what, err := range map[string]error{
			"Prepare": second(s.Prepare(ctx, id)), "View": second(s.View(ctx, id)),
			"Stat":    second(s.Stat(ctx, id)),
			"Changes": second(s.Changes(ctx, id)), "Remove": s.Remove(ctx, id),
		} {
			if err == nil {
				s.Errorf("%s(%q) is no error", what, id)
			}
		}
	}
	s.empty()
	long := snapshot.ID("sha256-" + strings.Repeat("f", 64) + ".A_z")
	s.make(long, "", tree("file one 0644 1\n"))
	s.want(long, "file one 0644 1\n")
}

func second[T any](_ T, err error) error { return err }

// hostileRoot uses a store in a directory whose name contains the characters that separate mount
// options.
func (s *suite) hostileRoot() {
	name := `a,b:c\d=e f"g\:h\,` + "\n"
	if s.Driver() == mount.FuseOverlay {
		name = strings.ReplaceAll(name, ":", "") // fuse-overlayfs splits paths at every colon
	}
	s.root = filepath.Join(s.TempDir(), name, strings.Repeat("long", 60))
	s.Store = s.open(s.T, s.root)
	s.make("a", "", tree("file one 0644 1\n"))
	s.make("b", "a", tree("file two 0644 2\n"))
	s.want("b", "file one 0644 1\nfile two 0644 2\n")
	s.check(s.Remove(s.Context(), "b"))
	s.empty()
}

func (s *suite) longChain() {
	n := 400
	if s.Layered() {
		s.root = mounttest.TempDir(s.T)
	} else {
		n = 20
		s.root = filepath.Join(s.TempDir(), "snapshots")
	}
	s.Store = s.open(s.T, s.root)
	ctx := s.Context()
	parent := snapshot.ID("")
	for i := range n {
		a, err := s.Prepare(ctx, parent)
		s.check(err)
		s.check(fstree.Make(a.Upper(), fmt.Sprintf("file f%d 0644 %d\nfile last 0644 %d\n", i, i,
			i)))
		parent = snapshot.ID(fmt.Sprintf("s%d", i))
		s.check(a.Commit(ctx, parent))
	}
	s.make("top", parent, func(dir string) error {
		names, err := os.ReadDir(dir)
		if err != nil || len(names) != n+1 {
			s.Errorf("%d names, %v, want %d", len(names), err, n+1)
		}
		return errors.Join(os.Remove(dir+"f0"), os.WriteFile(dir+"last", []byte("top"), 0o644))
	})
	// A newly opened store reads the whole chain.
	mounts, err := s.open(s.T, s.root).View(ctx, "top")
	s.check(err)
	s.check(see(mounts, func(dir string) error {
		last, err := os.ReadFile(dir + "last")
		if string(last) != "top" {
			s.Errorf("last = %q, want top", last)
		}
		if _, err := os.Lstat(dir + "f0"); !os.IsNotExist(err) {
			s.Errorf("f0 is there, or %v", err)
		}
		return err
	}))
	dirs, err := s.Dirs(s.Context(), "top")
	s.check(err)
	if s.Layered() && len(dirs) != n+1 {
		s.Errorf("%d directories, want %d", len(dirs), n+1)
	}
}
