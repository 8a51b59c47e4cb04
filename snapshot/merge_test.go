package snapshot_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
	"github.com/layerbuild/layerbuild/internal/rounds"
	"github.com/layerbuild/layerbuild/snapshot"
)

// openMerging opens a store that merges chains after that number of snapshots.
func openMerging(t *testing.T, root string, after int) *snapshot.Store {
	t.Helper()
	s, err := snapshot.Open(t.Context(), root, snapshot.Options{Driver: mount.Overlay,
		UserNS: mounttest.UserNS(), MergeAfter: after})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const never = 1 << 20

// TestMerge makes random histories and merges their chains. A store that does not merge must show
// the same files.
func TestMerge(t *testing.T) {
	mounttest.Need(t)
	name := "merge"
	if mounttest.UserNS() {
		name += "-user"
	}
	merged := 0
	rounds.Run(t, name, rounds.Options{Fixed: 12, Fresh: 4, Long: 1000},
		func(t *testing.T, seed uint64) {
			h := newHistory(t, seed)
			for i := range 24 {
				h.step(snapshot.ID(fmt.Sprintf("s%02d", i)))
			}
			merged += h.merged
			if err := removeState(t, h.root); err != nil {
				t.Error(err)
			}
		})
	if merged == 0 {
		t.Error("no chain was merged")
	}
}

// TestMergeInUserNamespace is TestMerge with overlay's marks of users.
func TestMergeInUserNamespace(t *testing.T) { mounttest.Again(t, mounttest.Range, "TestMerge$") }

// removeState removes the snapshots of a store.
func removeState(t *testing.T, root string) error {
	s, err := snapshot.Open(t.Context(), root, snapshot.Options{Driver: mount.Overlay,
		UserNS: mounttest.UserNS()})
	if err != nil {
		return err
	}
	finish, err := s.RemoveAll(t.Context(), s.IDs())
	return errors.Join(err, finish())
}

// history is a chain of random snapshots.
type history struct {
	*testing.T
	rnd            *rand.Rand
	root           string
	merging, plain *snapshot.Store
	top            snapshot.ID
	merged         int
}

func newHistory(t *testing.T, seed uint64) *history {
	root := mounttest.TempDir(t)
	return &history{T: t, rnd: rand.New(rand.NewPCG(seed, 7)), root: root,
		merging: openMerging(t, root, 4), plain: openMerging(t, root, never)}
}

func (h *history) check(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// step makes a snapshot on the top and compares it. Sometimes it opens the store again.
func (h *history) step(id snapshot.ID) {
	h.Helper()
	active, err := h.merging.Prepare(h.Context(), h.top)
	h.check(err)
	var log []string
	if h.rnd.IntN(3) > 0 || h.top == "" {
		h.check(inside(h.T, active.Mounts(), func(dir string) error {
			for range 1 + h.rnd.IntN(5) {
				log = append(log, h.change(dir))
			}
			return nil
		}))
	} else {
		log = h.unpack(active.Upper())
	}
	h.check(active.Commit(h.Context(), id))
	h.top = id
	if _, err := h.merging.Stat(h.Context(), id); err != nil {
		h.Fatal(err)
	}
	if h.merging.MergeNeeded(id) {
		h.check(h.merging.Merge(h.Context(), id))
		if !h.merging.MergeNeeded(id) {
			h.merged++
		}
	}
	if h.rnd.IntN(8) == 0 {
		h.merging = openMerging(h.T, h.root, 4)
	}
	if h.compare(id); h.Failed() {
		h.Fatalf("after %s", strings.Join(log, "; "))
	}
}

// tree lists what a command sees of a snapshot.
func (h *history) tree(s *snapshot.Store, id snapshot.ID) []string {
	h.Helper()
	mounts, err := s.View(h.Context(), id)
	h.check(err)
	var all []string
	h.check(inside(h.T, mounts, func(dir string) error {
		return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			rel := strings.TrimPrefix(path, dir)
			if err != nil {
				all = append(all, rel+" "+err.Error())
				return nil
			}
			line, err := describe(path)
			if errors.Is(err, fs.ErrNotExist) {
				// The kernel lists whiteouts of directories that it does not merge.
				all = append(all, rel+" cannot be opened")
				return nil
			}
			all = append(all, rel+" "+line)
			return err
		})
	}))
	return all
}

func describe(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	line := fmt.Sprintf("%o %d:%d %d %s", st.Mode, st.Uid, st.Gid, st.Rdev,
		time.Unix(st.Mtim.Unix()).UTC().Format(time.RFC3339Nano))
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if len(data) > 100 {
			data = fmt.Appendf(nil, "%x", sha256.Sum256(data))
		}
		line += fmt.Sprintf(" %d links %q", st.Nlink, data)
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		return line + " " + target, nil
	}
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return "", &os.PathError{Op: "listxattr", Path: path, Err: err}
	}
	names := strings.Split(string(buf[:n]), "\x00")
	slices.Sort(names)
	for _, name := range names[1:] {
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return "", &os.PathError{Op: "getxattr " + name, Path: path, Err: err}
		}
		line += fmt.Sprintf(" %s=%q", name, buf[:n])
	}
	return line, nil
}

// name returns a random path of one to three parts.
func (h *history) name() string {
	parts := make([]string, 1+h.rnd.IntN(3))
	for i := range parts {
		parts[i] = string(rune('a' + h.rnd.IntN(3)))
	}
	return strings.Join(parts, "/")
}

// defaultACL gives new entries of a directory an ACL.
var defaultACL = []byte("\x02\x00\x00\x00" + // version, then tag, permissions, id
	"\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\x01\x00\x00\x00" +
	"\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" +
	"\x20\x00\x01\x00\xff\xff\xff\xff")

// change changes a mounted directory as a command does, and returns a description. Changes that are
// not possible there are not errors.
func (h *history) change(dir string) string {
	name, other := h.name(), h.name()
	path := dir + "/" + name
	text := fmt.Sprint(h.rnd.Uint32())
	switch op := h.rnd.IntN(13); op {
	case 0, 1, 2:
		_ = os.MkdirAll(filepath.Dir(path), 0o755)
		_ = os.WriteFile(path, []byte(text), fs.FileMode(0o600+h.rnd.IntN(0o200)))
		return "write " + name
	case 3:
		_ = os.MkdirAll(path, 0o755)
		return "mkdir " + name
	case 4, 5:
		_ = os.RemoveAll(path)
		return "rm -r " + name
	case 6:
		_ = os.RemoveAll(path)
		_ = os.MkdirAll(path+"/a", 0o700)
		return "new directory " + name
	case 7:
		_ = os.Rename(path, dir+"/"+other)
		return "mv " + name + " " + other
	case 8:
		_ = os.Symlink(other, path)
		return "ln -s " + name
	case 9:
		_ = os.Link(path, dir+"/"+other)
		return "ln " + name + " " + other
	case 10:
		_ = unix.Lsetxattr(path, "user.x", []byte(text), 0)
		_ = unix.Lsetxattr(path, "user.overlay.y", []byte(text), 0)
		return "setfattr " + name
	case 11:
		_ = unix.Lsetxattr(path, "system.posix_acl_default", defaultACL, 0)
		return "setfacl " + name
	default:
		_ = unix.Fchmodat(unix.AT_FDCWD, path, 0o2550, 0)
		_ = os.Lchown(path, h.rnd.IntN(3), 5)
		return "chmod, chown " + name
	}
}

// unpack writes into an upper directory what the layers of other builders contain: directories
// without marks where lower layers have something else, and whiteouts.
func (h *history) unpack(dir string) (log []string) {
	var below []string // names that the parent shows
	for _, line := range h.tree(h.plain, h.top) {
		name, _, _ := strings.Cut(line, " ")
		below = append(below, strings.TrimPrefix(name, "/"))
	}
	for range 1 + h.rnd.IntN(3) {
		name := h.name()
		path := dir + "/" + name
		_ = os.MkdirAll(filepath.Dir(path), 0o750)
		switch h.rnd.IntN(3) {
		case 0:
			_ = os.Mkdir(path, 0o711)
			log = append(log, "layer: directory "+name)
		case 1:
			if slices.Contains(below, name) {
				_ = unix.Mknod(path, unix.S_IFCHR, 0)
				log = append(log, "layer: whiteout "+name)
			}
		case 2:
			_ = os.WriteFile(path, []byte(name), 0o640)
			log = append(log, "layer: file "+name)
		}
	}
	return log
}

// mergeCase is a chain: the first snapshot has hard links and is not merged, and each of the others
// is made by one of the functions.
type mergeCase struct {
	base  string
	steps []func(dir string) error
	want  bool // the steps can be merged
}

func sh(changes ...func(dir string) error) func(dir string) error {
	return func(dir string) error {
		for _, change := range changes {
			if err := change(dir); err != nil {
				return err
			}
		}
		return nil
	}
}

func write(name, text string) func(dir string) error {
	return func(dir string) error { return os.WriteFile(dir+"/"+name, []byte(text), 0o644) }
}

func mkdir(name string) func(dir string) error {
	return func(dir string) error { return os.Mkdir(dir+"/"+name, 0o755) }
}

func remove(name string) func(dir string) error {
	return func(dir string) error { return os.RemoveAll(dir + "/" + name) }
}

func allocate(name string, size int64) func(dir string) error {
	return func(dir string) error {
		f, err := os.Create(dir + "/" + name)
		if err != nil {
			return err
		}
		return errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, size), f.Close())
	}
}

func link(from, to string) func(dir string) error {
	return func(dir string) error { return os.Link(dir+"/"+from, dir+"/"+to) }
}

var mergeCases = map[string]mergeCase{
	"a directory replaced, and a file in it removed": {
		base: "file d/x\nfile d/e/x",
		steps: []func(string) error{sh(remove("d"), mkdir("d"), write("d/y", "1")),
			remove("d/y"), write("z", "")}, want: true},
	"a file replaced by a directory": {
		base:  "file f\nfile d/x",
		steps: []func(string) error{remove("f"), mkdir("f"), write("f/x", "1")}, want: true},
	"a directory removed in one step and made in another": {
		base:  "file d/x\nfile d/y",
		steps: []func(string) error{remove("d"), mkdir("d"), write("d/x", "1")}, want: true},
	"removed files of the base": {
		base:  "file d/x\nfile d/y",
		steps: []func(string) error{remove("d/x"), write("d/z", "1"), remove("d/z")}, want: true},
	"a new directory with a removed file": {
		base:  "dir d",
		steps: []func(string) error{mkdir("d/n"), write("d/n/x", "1"), remove("d/n/x")},
		want:  true},
	"a removed file in a directory that the base hides": {
		base: "file d/e/x",
		steps: []func(string) error{
			sh(remove("d"), mkdir("d"), write("3", ""), link("3", "4")), mkdir("d/e"),
			write("d/e/y", "1"), remove("d/e/y")}, want: true},
	"hard links, of which one is removed": {
		steps: []func(string) error{write("c", ""), sh(write("a", "1"), link("a", "b")),
			remove("a")}},
	"hard links below others": {
		steps: []func(string) error{sh(write("a", "1"), link("a", "b")), remove("a"),
			write("c", "")}, want: true},
	"too many bytes": {
		steps: []func(string) error{write("c", ""), allocate("a", 40<<20),
			allocate("b", 40<<20)}},
	"too deep": {
		steps: []func(string) error{write("b", ""), func(dir string) error {
			return os.MkdirAll(dir+strings.Repeat("/d", 70), 0o755)
		}, write("c", "")}},
}

func TestMergeCases(t *testing.T) {
	mounttest.Need(t)
	for name, tt := range mergeCases {
		t.Run(name, func(t *testing.T) {
			h := newHistory(t, 0)
			h.merging = openMerging(t, h.root, 3)
			h.begin("base", sh(func(dir string) error { return fstree.Make(dir, tt.base) },
				write("1", ""), link("1", "2")))
			for i, step := range tt.steps {
				h.begin(snapshot.ID(fmt.Sprint("s", i)), step)
			}
			h.check(h.merging.Merge(t.Context(), h.top))
			_, err := os.Lstat(filepath.Join(h.merging.Dir(h.top), "merged", "fs"))
			if (err == nil) != tt.want {
				t.Errorf("merged: %v, want %v", err, tt.want)
			}
			if h.merging.MergeNeeded(h.top) {
				t.Error("Merge tries it again")
			}
			h.compare(h.top)
			h.begin("next", write("own", ""))
			h.compare("next")
			h.check(removeState(t, h.root))
		})
	}
}

// begin makes a snapshot on the top.
func (h *history) begin(id snapshot.ID, change func(dir string) error) {
	h.Helper()
	active, err := h.merging.Prepare(h.Context(), h.top)
	h.check(err)
	h.check(inside(h.T, active.Mounts(), change))
	h.check(active.Commit(h.Context(), id))
	h.top = id
}

func (h *history) compare(id snapshot.ID) {
	h.Helper()
	if diff := cmp.Diff(h.tree(h.plain, id), h.tree(h.merging, id)); diff != "" {
		h.Errorf("%s: -not merged +merged\n%s", id, diff)
	}
}

// lowers returns the number of directories below a snapshot that is made on id.
func lowers(t *testing.T, s *snapshot.Store, id snapshot.ID) int {
	t.Helper()
	active, err := s.Prepare(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if err := active.Discard(); err != nil {
		t.Error(err)
	}
	return len(active.Changes().Lower)
}

// TestMergeStores merges a chain in several stores at once, after a crash, and in a canceled
// context.
func TestMergeStores(t *testing.T) {
	mounttest.Need(t)
	h := newHistory(t, 0)
	for i := range 9 {
		h.begin(snapshot.ID(fmt.Sprint("s", i)), write(fmt.Sprint(i), "x"))
	}
	one, other := openMerging(t, h.root, 8), openMerging(t, h.root, 8)
	h.check(second(one.Stat(t.Context(), h.top)))
	h.check(second(other.Stat(t.Context(), h.top)))
	canceled, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("canceled by the test")
	cancel(cause)
	if err := one.Merge(canceled, h.top); !errors.Is(err, cause) {
		t.Errorf("in a canceled context: %v", err)
	}
	h.check(one.Merge(t.Context(), h.top))
	h.check(other.Merge(t.Context(), h.top)) // it finds the directory that one has made
	for _, s := range []*snapshot.Store{one, other, openMerging(t, h.root, 8)} {
		if n := lowers(t, s, h.top); n != 1 {
			t.Errorf("%d lower directories, want 1", n)
		}
		changes, err := s.Changes(t.Context(), h.top)
		if err != nil || len(changes.Lower) != 8 || changes.Dir != s.Dir(h.top)+"/fs" {
			t.Errorf("Changes = %+v, %v", changes, err)
		}
	}
	// As after a crash: the directory may not have been written to the disk.
	info := filepath.Join(one.Dir(h.top), "merged", "info.json")
	data, err := os.ReadFile(info)
	h.check(err)
	h.check(os.WriteFile(info, []byte(strings.Replace(string(data), `"boot":"`, `"boot":"1`, 1)),
		0o600))
	crashed := openMerging(t, h.root, 8)
	if n := lowers(t, crashed, h.top); n != 9 {
		t.Errorf("after a crash: %d lower directories, want 9", n)
	}
	h.check(crashed.Merge(t.Context(), h.top))
	if n := lowers(t, openMerging(t, h.root, 8), h.top); n != 1 {
		t.Errorf("merged after a crash: %d lower directories, want 1", n)
	}
	if left, err := os.ReadDir(filepath.Join(h.root, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
	h.compare(h.top)
	h.check(one.Remove(t.Context(), h.top))
	h.check(removeState(t, h.root))
}

func second[T any](_ T, err error) error { return err }
