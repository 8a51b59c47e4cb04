package state

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/lock"
	"github.com/layerbuild/layerbuild/snapshot"
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
			m.check(m.Cache.Put("made", cache.Record{Snapshot: "superseded"}))
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
		{"a cache mount", func(m *maker) { m.LeaseMount("mount-old") }, "l-named l-new mount-old"},
		{"a cache mount that is missing", func(m *maker) { m.LeaseMount("mount-none") }, left},
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
	m.check(other.Cache.Put("gone", cache.Record{Snapshot: "gone"}))
	_, err := m.Prune(t.Context(), PruneOptions{All: true})
	m.check(err)
	if _, ok := other.LazyLayer(rec); !ok {
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
