package state

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/lock"
	"github.com/layerbuild/layerbuild/internal/lock/locktest"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestLeases uses data in one process and collects in another one: the used data are kept, and are
// removed after the first process has ended, in whatever way.
func TestLeases(t *testing.T) {
	blob := func(m *maker, content string) ocispec.Descriptor {
		m.t.Helper()
		blobs, err := m.Store.Blobs()
		m.check(err)
		for d, n := range blobs {
			data, err := os.ReadFile(m.Store.Path(d))
			m.check(err)
			if strings.HasPrefix(string(data), content) {
				return ocispec.Descriptor{Digest: d, Size: n}
			}
		}
		m.t.Fatalf("there is no blob %s", content)
		return ocispec.Descriptor{}
	}
	const left = "l-named l-new"
	tests := []struct {
		name string
		use  func(m *maker)
		want string
	}{
		{"nothing", func(m *maker) {}, left},
		{"a snapshot that is looked up", func(m *maker) {
			_, err := m.Snapshots.Stat(t.Context(), "old2")
			m.check(err)
		}, "base l-named l-new old old2"},
		{"a snapshot that no record names", func(m *maker) {
			_, err := m.Snapshots.Stat(t.Context(), "on-superseded")
			m.check(err)
		}, "base l-named l-new on-superseded superseded"},
		{"a lazy snapshot", func(m *maker) {
			_, err := m.Snapshots.Stat(t.Context(), "lazy")
			if err == nil {
				m.t.Error("the lazy snapshot exists")
			}
		}, "base l-lazy l-named l-new new"},
		{"the parent of a new snapshot", func(m *maker) {
			_, err := m.Snapshots.Prepare(m.t.Context(), "new")
			m.check(err)
		}, "base l-named l-new new"},
		{"a view", func(m *maker) {
			_, err := m.Snapshots.View(m.t.Context(), "again")
			m.check(err)
		}, "again base l-named l-new"},
		{"a new snapshot without a record", func(m *maker) { m.snapshot("made", "new") },
			"base l-named l-new made new"},
		{"a new record", func(m *maker) {
			m.check(m.Cache.Put(m.t.Context(), "made", cache.Record{Snapshot: "superseded"}))
		}, "base l-named l-new superseded"},
		{"a blob that exists", func(m *maker) {
			_, err := m.Store.Exists(m.t.Context(), blob(m, "l-garbage"))
			m.check(err)
		}, "l-garbage l-named l-new"},
		{"a blob that is read", func(m *maker) {
			r, err := m.Store.Fetch(m.t.Context(), blob(m, "l-lazy"))
			m.check(err)
			m.check(r.Close())
		}, "l-lazy l-named l-new"},
		{"a new blob", func(m *maker) { m.blob("l-made") }, "l-made l-named l-new"},
		{"an image that is read", func(m *maker) {
			entries, err := m.Store.Names(t.Context())
			m.check(err)
			_, err = m.Store.Read(m.t.Context(), entries[0].Descriptor) // the one without a name
			m.check(err)
		}, "l-named l-new l-unnamed"},
		{"a new image", func(m *maker) { m.image("", m.blob("l-made")) }, "l-made l-named l-new"},
		{"a cache mount", func(m *maker) {
			m.check(m.LeaseMount(m.t.Context(), "mount-old"))
		}, "l-named l-new mount-old"},
		{"a cache mount that is missing", func(m *maker) {
			m.check(m.LeaseMount(m.t.Context(), "mount-none"))
		}, left},
	}
	for _, o := range []PruneOptions{{All: true}, {Keep: 1},
		{Keep: 1, Since: time.Now().Add(time.Hour)}} {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				m := newMaker(t)
				defer m.Close()
				m.fill()
				m.check(m.Close())
				m = &maker{State: openTest(t, m.Root), t: t}
				other := &maker{State: openTest(t, m.Root), t: t, now: time.Now()}
				test.use(other)
				dry := o
				dry.DryRun = true
				foretold, err := m.Prune(t.Context(), dry)
				m.check(err)
				done, err := m.Prune(t.Context(), o)
				m.check(err)
				if done != foretold || done.Others != 1 {
					t.Errorf("removed %+v, foretold %+v", done, foretold)
				}
				if got := m.left(); got != test.want {
					t.Errorf("there is  %s\nand not   %s", got, test.want)
				}
				// As if it was killed: the locks are gone and the files are there.
				m.check(other.leases.file.Close())
				if done, err = m.Prune(t.Context(), o); err != nil || done.Others != 0 {
					t.Errorf("after the other process has ended: %+v, %v", done, err)
				}
				if got := names(runningDir(m.Root)); len(got) != 1 || got[0] != m.leases.id {
					t.Errorf("running/ has %q, and this process is %s", got, m.leases.id)
				}
			})
		}
	}
}

// TestLeasedRecords checks that the records of a snapshot that a build has found are kept, and that
// a record that it has written, of any kind, is not removed.
func TestLeasedRecords(t *testing.T) {
	m := newMaker(t)
	defer m.Close()
	m.fill()
	m.check(m.Close())
	m = &maker{State: openTest(t, m.Root), t: t}
	other := openTest(t, m.Root)
	defer other.Close()
	rec, ok := other.Cache.Get("lazy")
	if !ok {
		t.Fatal("there is no record of the lazy snapshot")
	}
	if _, err := other.Snapshots.Stat(t.Context(), snapshot.ID(rec.Snapshot)); err == nil {
		t.Fatal("the lazy snapshot is there")
	}
	m.check(other.Cache.Put(m.t.Context(), "gone", cache.Record{Snapshot: "gone"}))
	_, err := m.Prune(t.Context(), PruneOptions{All: true})
	m.check(err)
	if _, ok := other.LazyLayer(t.Context(), rec); !ok {
		t.Error("the layer of a lazy snapshot that a build has found is gone")
	}
	for key, want := range map[cache.Key]bool{"lazy": true, "gone": true, "again": false} {
		if _, ok := other.Cache.Get(key); ok != want {
			t.Errorf("there is a record %s: %v", key, ok)
		}
	}
}

// TestLeasesOrder checks that a part that is leased while another process collects is leased when
// the collection is over, and is then found as the collection has left it.
func TestLeasesOrder(t *testing.T) {
	m := newMaker(t)
	defer m.Close()
	m.fill()
	other := openTest(t, m.Root)
	defer other.Close()
	release, err := m.leases.collecting(t.Context(), 0)
	m.check(err)
	found := make(chan error)
	go func() {
		_, err := other.Snapshots.Stat(t.Context(), "new")
		found <- err
	}()
	finish, err := m.Snapshots.RemoveAll(t.Context(), []snapshot.ID{"new"})
	m.check(err)
	select {
	case err := <-found:
		t.Fatalf("looked up during a collection: %v", err)
	case <-time.After(50 * time.Millisecond):
		// it waits; a fault may be missed, but there are no false alarms
	}
	m.check(release())
	if err := <-found; err == nil {
		t.Error("a snapshot that was removed is found")
	}
	m.check(finish())
}

// TestLeasesCanceled cancels what waits while a collector of another process has the gate: nothing
// was leased, looked up or written, and the next call does it.
func TestLeasesCanceled(t *testing.T) {
	second := func(_ any, err error) error { return err }
	for _, test := range []struct {
		name string
		call func(ctx context.Context, m *maker) error
		want string // a line of the leases after the call that succeeds
	}{
		{"Open", func(ctx context.Context, m *maker) error {
			s, err := Open(ctx, Options{Root: m.Root, Driver: "copy"})
			if err != nil {
				return err
			}
			return s.Close()
		}, ""},
		{"a snapshot that is looked up", func(ctx context.Context, m *maker) error {
			return second(m.Snapshots.Stat(ctx, "new"))
		}, "snapshot new"},
		{"the parent of a snapshot", func(ctx context.Context, m *maker) error {
			a, err := m.Snapshots.Prepare(ctx, "new")
			if err != nil {
				return err
			}
			return a.Discard()
		}, "snapshot new"},
		{"a blob that is looked up", func(ctx context.Context, m *maker) error {
			return second(m.Store.Exists(ctx, ocispec.Descriptor{Digest: digest.FromString("x")}))
		}, "blob " + digest.FromString("x").String()},
		{"a blob that is stored", func(ctx context.Context, m *maker) error {
			return second(m.Store.Ingest(ctx, "x", func(w io.Writer) error {
				return second(io.WriteString(w, "x"))
			}))
		}, "blob " + digest.FromString("x").String()},
		{"a document", func(ctx context.Context, m *maker) error {
			return second(m.Store.Write(ctx, "x", []byte("x")))
		}, "image " + digest.FromString("x").String()},
		{"a record", func(ctx context.Context, m *maker) error {
			if _, ok := m.Cache.Get("made"); ok {
				m.t.Error("the canceled call has written the record")
			}
			return m.Cache.Put(ctx, "made", cache.Record{Snapshot: "made"})
		}, "snapshot made"},
		{"a lazy snapshot", func(ctx context.Context, m *maker) error {
			rec, ok := m.Cache.Get("lazy")
			if !ok {
				m.t.Error("there is no record of the lazy snapshot")
			}
			if _, ok := m.LazyLayer(ctx, rec); ok != (ctx.Err() == nil) {
				m.t.Errorf("LazyLayer found a layer: %v", ok)
			}
			return context.Cause(ctx)
		}, ""},
		{"a cache mount", func(ctx context.Context, m *maker) error {
			return m.LeaseMount(ctx, "mount")
		}, "mount mount"},
		{"a collection", func(ctx context.Context, m *maker) error {
			return second(m.Prune(ctx, PruneOptions{}))
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMaker(t)
			m.fill()
			m.check(m.Close())
			m = &maker{State: openTest(t, m.Root), t: t}
			defer m.Close()
			locktest.Canceled(t, filepath.Join(m.Root, "lock"), func(ctx context.Context) error {
				if len(m.leases.held) > 0 {
					t.Errorf("the canceled call has leased %v", m.leases.held)
				}
				return test.call(ctx, m)
			})
			if test.want != "" && !m.leases.held[test.want] {
				t.Errorf("leased is %v, want %s", m.leases.held, test.want)
			}
			data, err := os.ReadFile(m.leases.file.File().Name())
			if got := strings.Count(string(data), "\n"); err != nil || got != len(m.leases.held) {
				t.Errorf("the file of leases has %d lines, %v, want %d", got, err,
					len(m.leases.held))
			}
			for _, dir := range []string{"snapshots/full/tmp", "oci/tmp", "cache/tmp"} {
				if left := names(filepath.Join(m.Root, dir)); len(left) > 0 {
					t.Errorf("left in %s: %q", dir, left)
				}
			}
			if got := names(runningDir(m.Root)); len(got) != 1 {
				t.Errorf("running/ has %q", got)
			}
			_, err = m.Prune(t.Context(), PruneOptions{})
			m.check(err)
		})
	}
}

// TestLeasesTurn cancels a goroutine that waits for another one of its process, which waits for the
// gate.
func TestLeasesTurn(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, dir)
		defer s.Close()
		release := locktest.Hold(t, filepath.Join(dir, "lock"))
		lease := func(ctx context.Context, name string) chan error {
			done := make(chan error, 1)
			go func() { done <- s.LeaseMount(ctx, name) }()
			synctest.Wait()
			return done
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		first, second := lease(t.Context(), "first"), lease(ctx, "second")
		canceled := errors.New("canceled")
		cancel(canceled)
		if err := <-second; !errors.Is(err, canceled) {
			t.Errorf("the canceled goroutine: %v, want the cause", err)
		}
		select {
		case err := <-first:
			t.Errorf("the other one has ended too: %v", err)
		default:
		}
		release()
		if err := errors.Join(<-first, <-lease(t.Context(), "second")); err != nil {
			t.Error(err)
		}
		if !s.leases.held["mount first"] || !s.leases.held["mount second"] {
			t.Errorf("leased: %v", s.leases.held)
		}
	})
}

// TestLeasesLost cancels a collection of a process whose leases cannot be written, while another
// process has the gate that replaces them: nothing can be leased any more.
func TestLeasesLost(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, dir)
		defer s.Close()
		if err := s.leases.file.Close(); err != nil { // each write fails now
			t.Fatal(err)
		}
		if err := s.LeaseMount(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		other, err := lock.Try(filepath.Join(dir, "lock"), false)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := s.leases.collecting(ctx, 0)
			done <- err
		}()
		synctest.Wait()
		if err := other.Convert(true); err != nil {
			t.Fatal(err)
		}
		canceled := errors.New("canceled")
		cancel(canceled)
		if err := <-done; !errors.Is(err, canceled) {
			t.Errorf("the collection: %v, want the cause", err)
		}
		if err := other.Unlock(); err != nil {
			t.Fatal(err)
		}
		if err := s.LeaseMount(t.Context(), "b"); !errors.Is(err, canceled) {
			t.Errorf("LeaseMount after the leases are lost: %v, want the cause", err)
		}
		if _, err := s.leases.collecting(t.Context(), 0); !errors.Is(err, canceled) {
			t.Errorf("a collection after the leases are lost: %v, want the cause", err)
		}
	})
}

// TestLeasesUnwritable checks that while the leases of a process cannot be written, no process
// collects: a build skips it, a prune waits.
func TestLeasesUnwritable(t *testing.T) {
	m := newMaker(t)
	m.fill()
	other := openTest(t, m.Root)
	m.check(other.leases.file.Close()) // each write fails now
	if _, err := other.Snapshots.Stat(t.Context(), "new"); err != nil {
		t.Fatal(err)
	}
	before := m.left()
	m.NoteUnsynced(t.Context())
	m.check(m.Collect(t.Context(), Policy{Limit: 1}, time.Now()))
	if got := m.left(); got != before {
		t.Errorf("there is %s", got)
	}
	pruned := make(chan error)
	go func() {
		_, err := m.Prune(t.Context(), PruneOptions{All: true})
		pruned <- err
	}()
	m.check(other.leases.gate.Close()) // as when it ends
	m.check(<-pruned)
	if got := m.left(); got == before {
		t.Error("the prune has removed nothing")
	}
	m.check(m.Close())
}

// TestLeasesTemporary checks that the temporary files of a running process are kept, and those of
// others are removed.
func TestLeasesTemporary(t *testing.T) {
	m := newMaker(t)
	defer m.Close()
	file := filepath.Join(m.Root, "cache", "context", "index")
	for name, write := range map[string]func(s *State, during func() error) error{
		"a blob": func(s *State, during func() error) error {
			_, err := s.Store.Ingest(t.Context(), "", func(w io.Writer) error {
				_, err := io.WriteString(w, "content")
				m.check(err)
				return during()
			})
			return err
		},
		"a file of the cache": func(s *State, during func() error) error {
			return s.Cache.Temp().Replace(file, func(*os.File) error { return during() })
		},
		"a directory of the cache": func(s *State, during func() error) error {
			temp := s.Cache.Temp()
			dir, err := os.MkdirTemp(temp.Dir, temp.Prefix)
			m.check(errors.Join(err, os.Mkdir(filepath.Join(dir, "etc"), 0o700), during()))
			return os.Rename(dir, filepath.Join(m.Root, "cache", "points"))
		},
	} {
		other, ended := openTest(t, m.Root), openTest(t, m.Root)
		for _, s := range []*State{other, ended} {
			err := write(s, func() error {
				if s == ended {
					m.check(s.leases.close())
				}
				_, err := m.Prune(t.Context(), PruneOptions{All: true})
				return err
			})
			if (err == nil) != (s == other) {
				t.Errorf("%s, written by a process that has ended (%v): %v", name, s == ended, err)
			}
		}
		m.check(other.Close())
		for _, dir := range []string{"oci/tmp", "cache/tmp"} {
			if left := names(filepath.Join(m.Root, dir)); len(left) > 0 {
				t.Errorf("after %s was written, %s has %q", name, dir, left)
			}
		}
	}
}

// TestLeasesDamaged checks that files in running/ that are not lists of leases do not prevent a
// collection.
func TestLeasesDamaged(t *testing.T) {
	m := newMaker(t)
	defer m.Close()
	m.fill()
	m.check(m.Close())
	dir := runningDir(m.Root)
	m.check(os.MkdirAll(filepath.Join(dir, "directory", "sub"), 0o700))
	m.check(os.Symlink("nowhere", filepath.Join(dir, "link")))
	m.check(os.WriteFile(filepath.Join(dir, "garbage"),
		[]byte("\x00\nblob\nimage x\nsnapshot new"), 0o600))
	held, err := lock.TryExisting(filepath.Join(dir, "garbage"))
	m.check(err)
	defer held.Close()
	m = &maker{State: openTest(t, m.Root), t: t}
	_, err = m.Prune(t.Context(), PruneOptions{All: true})
	m.check(err)
	if got, want := m.left(), "base l-named l-new new"; got != want {
		t.Errorf("there is %s, want %s", got, want)
	}
	if got := names(dir); len(got) != 2 {
		t.Errorf("running/ has %q", got)
	}
}
