package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/lock"
	"github.com/layerbuild/layerbuild/internal/lock/locktest"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
	"github.com/layerbuild/layerbuild/internal/state/ledger"
)

// testStore opens a store with the best driver that works here.
func testStore(t testing.TB, root string) *Store {
	t.Helper()
	s, err := Open(t.Context(), root, Options{UserNS: mounttest.UserNS()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func commit(t testing.TB, s *Store, id, parent ID, text string) {
	t.Helper()
	a, err := s.Prepare(t.Context(), parent)
	check(t, err)
	check(t, fstree.Make(a.Upper(), text))
	check(t, a.Commit(t.Context(), id))
}

func TestValidate(t *testing.T) {
	for id, ok := range map[ID]bool{
		"a": true, "sha256-0a.B_c": true, "...": true, ID(strings.Repeat("x", maxID)): true,
		"": false, ".": false, "..": false, "a/b": false, "tmp": false, "lock": false,
		"ids.new": false, "a\x00": false, "é": false,
		ID(strings.Repeat("x", maxID+1)): false,
	} {
		if err := id.Validate(); (err == nil) != ok {
			t.Errorf("%q.Validate() = %v, want ok %t", string(id), err, ok)
		}
	}
}

// TestCrash checks snapshots that had not been synced when the machine stopped.
func TestCrash(t *testing.T) {
	for _, driver := range []string{"overlay", "copy"} {
		t.Run(driver, func(t *testing.T) {
			root := t.TempDir()
			syncs := ledger.OpenBoot(t.TempDir(), "boot1")
			s, err := Open(t.Context(), root,
				Options{Driver: driver, UserNS: mounttest.UserNS(), Ledger: syncs})
			if err != nil {
				t.Skip(err)
			}
			commit(t, s, "flushed", "", "file a 0644 flushed\n")
			n, err := syncs.Begin(t.Context())
			check(t, err)
			check(t, syncs.Done(t.Context(), n))
			commit(t, s, "lost", "flushed", "file b 0644 before\n")
			commit(t, s, "child", "lost", "file c 0644 before\n")

			next := ledger.OpenBoot(syncs.Dir(), "boot2")
			s, err = Open(t.Context(), root,
				Options{Driver: driver, UserNS: mounttest.UserNS(), Ledger: next})
			check(t, err)
			if _, err := s.Stat(t.Context(), "flushed"); err != nil {
				t.Errorf("what was flushed is not there: %v", err)
			}
			for _, id := range []ID{"lost", "child"} {
				if _, err := s.Stat(t.Context(), id); !errors.Is(err, ErrNotExist) {
					t.Errorf("Stat(%s) = %v, want ErrNotExist", id, err)
				}
			}
			suspect := map[ID]bool{}
			for info, err := range s.All() {
				check(t, err)
				suspect[info.ID] = info.Suspect
			}
			if suspect["flushed"] || !suspect["lost"] || !suspect["child"] {
				t.Errorf("suspect: %v", suspect)
			}
			commit(t, s, "lost", "flushed", "file b 0644 after\n")
			changes, err := s.Changes(t.Context(), "lost")
			check(t, err)
			if got, err := os.ReadFile(changes.Dir + "/b"); string(got) != "after" {
				t.Errorf("b = %q, %v, want what was committed after the crash", got, err)
			}
			check(t, s.Remove(t.Context(), "child"))
			check(t, s.Remove(t.Context(), "lost"))
			if left, err := os.ReadDir(s.tmp()); err != nil || len(left) > 0 {
				t.Errorf("left in tmp: %v, %v", left, err)
			}
		})
	}
}

// TestLeaseUnlocked checks that Lease is not called while the store's lock is held: it may wait for
// a collector, and the collector waits for that lock.
func TestLeaseUnlocked(t *testing.T) {
	mounttest.Need(t)
	for _, driver := range []string{"overlay", "copy"} {
		t.Run(driver, func(t *testing.T) {
			var s *Store
			leased := map[ID]int{}
			o := Options{Driver: driver, UserNS: mounttest.UserNS()}
			o.Lease = func(_ context.Context, id ID) error {
				leased[id]++
				held, err := lock.TryExisting(filepath.Join(s.root, "lock"))
				if errors.Is(err, os.ErrNotExist) {
					return nil
				}
				if err != nil {
					t.Errorf("Lease(%s) is called while the store is locked: %v", id, err)
					return nil
				}
				return held.Close()
			}
			s, err := Open(t.Context(), t.TempDir(), o)
			if err != nil {
				t.Skip(err)
			}
			commit(t, s, "base", "", "file a 0644 x\n")
			commit(t, s, "top", "base", "file b 0644 x\n")
			commit(t, s, "top", "base", "file b 0644 x\n") // it exists
			check(t, os.Remove(filepath.Join(s.dir("top"), infoFile)))
			commit(t, s, "top", "base", "file b 0644 x\n") // it is damaged and is replaced
			if s.Layered() {
				a, err := s.Prepare(t.Context(), "")
				check(t, err)
				check(t, a.CommitOn(t.Context(), "on", "top", false))
			}
			_, err = s.Changes(t.Context(), "top")
			check(t, err)
			if leased["base"] == 0 || leased["top"] == 0 {
				t.Errorf("leased: %v", leased)
			}
		})
	}
}

// TestCanceled cancels the methods that wait for the store's lock. They leave nothing in tmp, and
// snapshots that a later call can commit or remove.
func TestCanceled(t *testing.T) {
	mounttest.Need(t)
	for _, driver := range []string{"overlay", "copy"} {
		t.Run(driver, func(t *testing.T) {
			root := t.TempDir()
			o := Options{Driver: driver, UserNS: mounttest.UserNS()}
			s, err := Open(t.Context(), root, o)
			if err != nil {
				t.Skip(err)
			}
			path := filepath.Join(s.root, "lock")
			for _, id := range []ID{"a", "b", "c"} {
				commit(t, s, id, "", "file f 0644 x\n")
			}
			prepared, err := s.Prepare(t.Context(), "a")
			check(t, err)
			replacing, err := s.Prepare(t.Context(), "a")
			check(t, err)
			tests := []struct {
				name string
				call func(context.Context) error
			}{
				{"Prepare", func(ctx context.Context) error {
					a, err := s.Prepare(ctx, "a")
					if err != nil {
						return err
					}
					return a.Discard()
				}},
				{"Commit", func(ctx context.Context) error { return prepared.Commit(ctx, "new") }},
				{"Commit of an existing one", func(ctx context.Context) error {
					return replacing.Commit(ctx, "new")
				}},
				{"Remove", func(ctx context.Context) error { return s.Remove(ctx, "b") }},
				{"RemoveAll", func(ctx context.Context) error {
					finish, err := s.RemoveAll(ctx, []ID{"c"})
					return errors.Join(err, finish())
				}},
			}
			if s.Layered() {
				alone, err := s.Prepare(t.Context(), "")
				check(t, err)
				tests = append(tests, struct {
					name string
					call func(context.Context) error
				}{"CommitOn", func(ctx context.Context) error {
					return alone.CommitOn(ctx, "on", "a", false)
				}})
			}
			for _, test := range tests {
				t.Run(test.name, func(t *testing.T) { locktest.Canceled(t, path, test.call) })
			}
			if left, err := os.ReadDir(s.tmp()); err != nil || len(left) > 0 {
				t.Errorf("left in tmp: %v, %v", left, err)
			}
		})
	}
	t.Run("Open", func(t *testing.T) {
		root := t.TempDir()
		locktest.Canceled(t, filepath.Join(root, "lock"), func(ctx context.Context) error {
			_, err := Open(ctx, root, Options{Driver: "copy", UserNS: mounttest.UserNS()})
			return err
		})
	})
}

// TestLeaseFails checks that a snapshot that cannot be leased is neither looked up nor committed.
func TestLeaseFails(t *testing.T) {
	s := testStore(t, t.TempDir())
	commit(t, s, "a", "", "file f 0644 x\n")
	a, err := s.Prepare(t.Context(), "a")
	check(t, err)
	failed := errors.New("not leased")
	s.leased = func(context.Context, ID) error { return failed }
	ctx := t.Context()
	for what, err := range map[string]error{
		"Stat": second(s.Stat(ctx, "a")), "Changes": second(s.Changes(ctx, "a")),
		"Dirs": second(s.Dirs(ctx, "a")), "View": second(s.View(ctx, "a")),
		"Prepare": second(s.Prepare(ctx, "a")), "Commit": a.Commit(ctx, "b"),
	} {
		if !errors.Is(err, failed) {
			t.Errorf("%s = %v, want the error of Lease", what, err)
		}
	}
	s.leased = nil
	if _, err := s.Stat(ctx, "b"); !errors.Is(err, ErrNotExist) {
		t.Errorf("Stat of the snapshot that was not leased: %v, want ErrNotExist", err)
	}
	check(t, a.Commit(ctx, "b"))
	if left, err := os.ReadDir(s.tmp()); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestRemoveAllDescriptors removes more snapshots than a process may have open files.
func TestRemoveAllDescriptors(t *testing.T) {
	s := testStore(t, t.TempDir())
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		check(t, err)
		return len(list)
	}
	var ids []ID
	for i := range 3 * maxTrashLocks {
		ids = append(ids, ID(fmt.Sprintf("s%d", i)))
		commit(t, s, ids[i], "", "file f 0644 x")
	}
	before := open()
	finish, err := s.RemoveAll(t.Context(), ids)
	check(t, err)
	if n := open() - before; n > maxTrashLocks {
		t.Errorf("%d snapshots that are being removed have %d open files, want at most %d",
			len(ids), n, maxTrashLocks)
	}
	testStore(t, filepath.Dir(s.tmp())) // Open removes directories that are not locked
	check(t, finish())
	if n := open() - before; n != 0 {
		t.Errorf("%d files are still open", n)
	}
	if left, err := os.ReadDir(s.tmp()); err != nil || len(left) > 0 || len(s.IDs()) > 0 {
		t.Errorf("left: %v, %v, %v", left, s.IDs(), err)
	}
}

// TestDamaged reads snapshots that are incomplete, as after a crash or on a bad disk.
func TestDamaged(t *testing.T) {
	mounttest.Need(t)
	s := testStore(t, t.TempDir())
	info := func() string { return filepath.Join(s.dir("a"), infoFile) }
	write := func(content string) func() error {
		return func() error { return os.WriteFile(info(), []byte(content), 0o600) }
	}
	for name, damage := range map[string]func() error{
		"no info":      func() error { return os.Remove(info()) },
		"empty info":   write(""),
		"cut info":     write(`{"parent":"x","cre`),
		"hostile info": write(`{"parent":"../../etc"}`),
		"directory": func() error {
			return errors.Join(os.Remove(info()), os.Mkdir(info(), 0o700))
		},
		"no tree": func() error { return os.RemoveAll(s.fs("a")) },
		"file as tree": func() error {
			return errors.Join(os.RemoveAll(s.fs("a")), os.WriteFile(s.fs("a"), nil, 0o600))
		},
		"file as a whole": func() error {
			return errors.Join(os.RemoveAll(s.dir("a")), os.WriteFile(s.dir("a"), nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			commit(t, s, "a", "", "file f 0644 old\n")
			check(t, damage())
			s := testStore(t, filepath.Dir(s.tmp()))
			if _, err := s.Stat(t.Context(), "a"); !errors.Is(err, ErrNotExist) {
				t.Errorf("Stat = %v, want ErrNotExist", err)
			}
			bad := 0
			for info, err := range s.All() {
				if info.ID == "a" && err != nil {
					bad++
				}
			}
			if tree := strings.Contains(name, "tree"); bad != 1 && !tree {
				t.Errorf("All has it %d times with an error, want once", bad)
			}
			commit(t, s, "a", "", "file f 0644 new\n")
			if got, err := os.ReadFile(s.fs("a") + "/f"); string(got) != "new" {
				t.Errorf("f = %q, %v, want new", got, err)
			}
			check(t, s.Remove(t.Context(), "a"))
		})
	}
}

func TestOtherIDs(t *testing.T) {
	root := t.TempDir()
	testStore(t, root)
	check(t, os.WriteFile(filepath.Join(root, "ids"), []byte("uid 0 1\ngid 0 7\n"), 0o600))
	_, err := Open(t.Context(), root, Options{UserNS: mounttest.UserNS()})
	if err == nil || !strings.Contains(err.Error(), "with other user ids (a single id)") {
		t.Errorf("Open = %v, want an error that names its ids", err)
	}
}

// TestDamagedIDs checks that the error names the file if it does not contain ids.
func TestDamagedIDs(t *testing.T) {
	root := t.TempDir()
	testStore(t, root)
	path := filepath.Join(root, "ids")
	whole, err := os.ReadFile(path)
	check(t, err)
	for _, text := range []string{"", "x", string(whole[:len(whole)-1]), "\x00" + string(whole[1:]),
		string(whole) + "garbage", "uid 0 1\n", "uid 0 1\nuid 0 1\n", "vid 0 1\n" + string(whole)} {
		check(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := Open(t.Context(), root, Options{UserNS: mounttest.UserNS()})
		if err == nil || !strings.Contains(err.Error(), path+" is damaged") {
			t.Errorf("ids %q: Open = %v, want an error that names %s", text, err, path)
		}
	}
}

func TestUnknownDriver(t *testing.T) {
	if _, err := Open(t.Context(), t.TempDir(), Options{Driver: "zfs"}); err == nil ||
		!strings.Contains(err.Error(), `"zfs"`) {
		t.Errorf("Open = %v, want an error that names the driver", err)
	}
}

// TestProbeOnOverlay probes with the state directory on an overlay, as in a container.
func TestProbeOnOverlay(t *testing.T) {
	mounttest.Need(t)
	s := testStore(t, t.TempDir())
	if s.Driver() != mount.Overlay {
		t.Skip("no overlay here")
	}
	a, err := s.Prepare(t.Context(), "")
	check(t, err)
	defer a.Discard()
	dir := t.TempDir()
	check(t, mount.All(a.Mounts(), dir))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	root := dir + "/state"
	for _, r := range Probe(root, Options{UserNS: mounttest.UserNS()}) {
		if r.Name == mount.Overlay && (r.OK ||
			!strings.Contains(r.Reason,
				"is on overlayfs, which cannot hold an overlay's upper directory")) {
			t.Errorf("overlay: %+v, want a reason", r)
		}
		if r.Name == "copy" && !r.OK {
			t.Errorf("copy: %+v, want OK", r)
		}
	}
	if got := testStore(t, root).Driver(); got == mount.Overlay {
		t.Error("Open has taken overlay")
	}
	if _, err := Open(t.Context(), root, Options{Driver: mount.Overlay,
		UserNS: mounttest.UserNS()}); err == nil {
		t.Error("Open with a driver that does not work is no error")
	}
}

// TestRemembered checks that the second Open of a directory does not probe, and that an Open of
// another directory does.
func TestRemembered(t *testing.T) {
	mounttest.Need(t)
	root := t.TempDir()
	s := testStore(t, root)
	if s.Driver() != mount.Overlay {
		t.Skip("no overlay here")
	}
	o := Options{UserNS: mounttest.UserNS()}
	key := probeKey(root, s.ledger.Boot(), o)
	if _, err := recall(root, key, o); err != nil {
		t.Errorf("not remembered: %v", err)
	}
	if _, err := recall(root, probeKey(root, "another boot", o), o); err == nil {
		t.Error("remembered over a boot")
	}
	other := t.TempDir()
	if probeKey(other, s.ledger.Boot(), o) == key ||
		probeKey(root, s.ledger.Boot(), Options{UserNS: !o.UserNS}) == key {
		t.Error("the key does not tell directories or namespaces apart")
	}
}

func TestInUserNamespace(t *testing.T) {
	for _, kind := range []mounttest.Kind{mounttest.Range, mounttest.Single} {
		t.Run(string(kind), func(t *testing.T) {
			mounttest.Again(t, kind,
				"Test(Crash|Damaged|OtherIDs|ProbeOnOverlay|Remembered|RemoveTree.*|CopyTree.*)")
		})
	}
}

// BenchmarkCommit measures the cost of a snapshot without changes, on chains of several lengths.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 400} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := testStore(b, mounttest.TempDir(b))
			parent := ID("")
			for i := range n {
				id := ID(fmt.Sprintf("base%d", i))
				commit(b, s, id, parent, "")
				parent = id
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				a, err := s.Prepare(b.Context(), parent)
				check(b, err)
				check(b, a.Commit(b.Context(), ID(fmt.Sprintf("s%d", i))))
				i++
			}
		})
	}
}

// BenchmarkOpenStore measures what opening the store adds to the start of each build.
func BenchmarkOpenStore(b *testing.B) {
	mounttest.Need(b)
	root := mounttest.TempDir(b)
	b.Run("remembered", func(b *testing.B) {
		for b.Loop() {
			testStore(b, root)
		}
	})
	b.Run("probed", func(b *testing.B) {
		for b.Loop() {
			os.Remove(filepath.Join(root, probeFile))
			testStore(b, root)
		}
	})
}
