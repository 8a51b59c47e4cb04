package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maker fills a state for tests of collection. Each blob and each mount has 100 kB. A snapshot has
// 100 kB more than its parent, since it contains a copy of it.
type maker struct {
	*State
	t   testing.TB
	now time.Time // of records
}

const size = 100 << 10

// forget ends the leases of this process, as if another had filled the state.
func (m *maker) forget() { clear(m.leases.held) }

func (m *maker) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *maker) snapshot(id, parent string) {
	m.t.Helper()
	a, err := m.Snapshots.Prepare(m.t.Context(), snapshot.ID(parent))
	m.check(err)
	m.check(os.WriteFile(filepath.Join(a.Upper(), id), bytes.Repeat([]byte{1}, size), 0o644))
	m.check(a.Commit(m.t.Context(), snapshot.ID(id)))
}

// fileTime returns the time that a file gets now. It may be behind time.Now by a tick of the
// kernel's timer, which is late on a busy virtual machine.
func (m *maker) fileTime() time.Time {
	m.t.Helper()
	path := filepath.Join(m.t.TempDir(), "now")
	m.check(os.WriteFile(path, nil, 0o600))
	fi, err := os.Stat(path)
	m.check(err)
	return fi.ModTime()
}

// step makes a record that was last used the given number of days ago. Its key is key followed by
// the snapshot's name.
func (m *maker) step(key, id string, days int, lazy *cache.Lazy) {
	m.t.Helper()
	m.check(m.Cache.Put(m.t.Context(), cache.Key(key), cache.Record{Snapshot: id, Lazy: lazy}))
	used := m.now.Add(-time.Duration(days) * 24 * time.Hour)
	for e, err := range m.Cache.All(cache.Steps) {
		m.check(err)
		if e.Key == key {
			m.check(m.Cache.SetUsed(e, used))
		}
	}
}

func (m *maker) blob(content string) ocispec.Descriptor {
	m.t.Helper()
	d, err := m.Store.Ingest(m.t.Context(), ocispec.MediaTypeImageLayer, func(w io.Writer) error {
		_, err := w.Write(append([]byte(content), make([]byte, size)...))
		return err
	})
	m.check(err)
	return d
}

func (m *maker) sealed(id string, d ocispec.Descriptor) {
	m.t.Helper()
	m.check(m.Cache.PutSealed(m.t.Context(), id, "gzip 0",
		cache.Layer{Descriptor: d, DiffID: d.Digest, Size: d.Size}))
}

// image stores an image with these layers, with or without a name.
func (m *maker) image(name string, layers ...ocispec.Descriptor) digest.Digest {
	m.t.Helper()
	var config ocispec.Image
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.Digest)
	}
	c := m.json(ocispec.MediaTypeImageConfig, config)
	d := m.json(ocispec.MediaTypeImageManifest,
		ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: c, Layers: layers})
	m.check(m.Store.Tag(m.t.Context(), name, d))
	return d.Digest
}

func (m *maker) json(mediaType string, v any) ocispec.Descriptor {
	m.t.Helper()
	data, err := json.Marshal(v)
	m.check(err)
	d, err := m.Store.Write(m.t.Context(), mediaType, data)
	m.check(err)
	return d
}

func (m *maker) mount(name string, days int) {
	m.t.Helper()
	dir := filepath.Join(m.Root, "cache", "mounts", name)
	m.check(os.MkdirAll(filepath.Join(dir, "fs"), 0o755))
	m.check(os.WriteFile(filepath.Join(dir, "fs", "f"), make([]byte, 1), 0o644))
	m.check(os.WriteFile(filepath.Join(dir, "fs", "f"), bytes.Repeat([]byte{1}, size), 0o644))
	m.check(os.WriteFile(filepath.Join(dir, "id"), nil, 0o644))
	at := m.now.Add(-time.Duration(days) * 24 * time.Hour)
	m.check(os.Chtimes(filepath.Join(dir, "id"), at, at))
}

// left returns the contents of the state: snapshots, blobs of layers by their first word, mounts.
func (m *maker) left() string {
	m.t.Helper()
	var list []string
	for _, id := range m.Snapshots.IDs() {
		list = append(list, string(id))
	}
	blobs, err := m.Store.Blobs()
	m.check(err)
	for d, n := range blobs {
		if n < size {
			continue
		}
		data, err := os.ReadFile(m.Store.Path(d))
		m.check(err)
		name, _, _ := strings.Cut(string(data), "\x00")
		list = append(list, name)
	}
	for _, name := range names(filepath.Join(m.Root, "cache", "mounts")) {
		list = append(list, name)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// TestPruneOtherDrivers prunes with one kind of drivers the snapshots of the other kind. A snapshot
// with a record is kept as long as the record, and the others are removed.
func TestPruneOtherDrivers(t *testing.T) {
	for _, test := range []struct {
		name         string
		made, pruned string // drivers
		o            PruneOptions
		want         string // drivers of the snapshots
	}{
		{"copies, nothing asked", "copy", "overlay", PruneOptions{}, "base both child"},
		{"copies, old ones", "copy", "overlay",
			PruneOptions{Unused: 6 * 24 * time.Hour}, "base both"},
		{"copies, a size", "copy", "overlay", PruneOptions{Keep: 3*size + size/2}, "base both"},
		{"copies, all", "copy", "overlay", PruneOptions{All: true}, ""},
		{"layers, nothing asked", "overlay", "copy", PruneOptions{}, "base both child"},
		{"layers, old ones", "overlay", "copy",
			PruneOptions{Unused: 6 * 24 * time.Hour}, "base both"},
		{"layers, all", "overlay", "copy", PruneOptions{All: true}, ""},
		{"fuse, nothing asked", "fuse-overlayfs", "overlay", PruneOptions{}, "base both child"},
		{"fuse, all", "fuse-overlayfs", "overlay", PruneOptions{All: true}, ""},
		{"fuse, all, by copy", "fuse-overlayfs", "copy", PruneOptions{All: true}, ""},
		{"overlay, all, by fuse", "overlay", "fuse-overlayfs", PruneOptions{All: true}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			open := func(driver string) *maker {
				s, err := Open(t.Context(), Options{Root: dir, Driver: driver})
				if err != nil {
					t.Skip(err)
				}
				return &maker{State: s, t: t, now: time.Now().Add(-time.Hour)}
			}
			m := open(test.made)
			m.snapshot("base", "")
			m.step("base", "base", 2, nil)
			m.snapshot("child", "base")
			m.step("child", "child", 9, nil)
			m.snapshot("unheld", "base")
			m.snapshot("both", "")
			m.step("both", "both", 2, nil)
			left := filepath.Join(m.Snapshots.Dir("base"), "..", "tmp", "left by a killed build")
			m.check(os.Mkdir(left, 0o700))
			m.check(m.Close())
			m = open(test.pruned)
			m.snapshot("both", "")
			m.forget()
			dry := test.o
			dry.DryRun = true
			foretold, err := m.Prune(t.Context(), dry)
			m.check(err)
			done, err := m.Prune(t.Context(), test.o)
			m.check(err)
			if done != foretold {
				t.Errorf("removed %+v, foretold %+v", done, foretold)
			}
			if m.readUsage().after != m.readUsage().total() {
				t.Errorf("after the prune the state has %d bytes, and %d were noted",
					m.readUsage().total(), m.readUsage().after)
			}
			if _, err := os.Lstat(left); err == nil {
				t.Error("the files of a killed build were not removed")
			}
			_, err = m.Snapshots.Stat(t.Context(), "both")
			if there := err == nil; there == test.o.All {
				t.Errorf("the driver in use has its own snapshot: %v", there)
			}
			m.check(m.Close())
			m = open(test.made)
			defer m.Close()
			var ids []string
			for _, id := range m.Snapshots.IDs() {
				ids = append(ids, string(id))
			}
			slices.Sort(ids)
			if got := strings.Join(ids, " "); got != test.want {
				t.Errorf("there is %q, want %q", got, test.want)
			}
			for _, in := range m.snapshotStores() {
				if left := names(filepath.Join(m.Root, "snapshots", in.Home(),
					"tmp")); len(left) > 0 {
					t.Errorf("left in the tmp of %q: %q", in.Home(), left)
				}
			}
		})
	}
}

func newMaker(t testing.TB) *maker {
	return &maker{State: openTest(t, t.TempDir()), t: t, now: time.Now().Add(-time.Hour)}
}

// fill makes a state with all kinds of data: old and new steps, a superseded one, a lazy one,
// images, garbage.
func (m *maker) fill() {
	m.snapshot("base", "")
	m.step("base", "base", 9, nil)
	m.snapshot("old", "base")
	m.step("old", "old", 8, nil)
	m.step("old-content", "old", 8, nil)
	m.snapshot("old2", "old")
	m.step("old2", "old2", 8, nil)
	m.snapshot("new", "base")
	m.step("new", "new", 1, nil)

	// The step of "superseded" was run again: its record now names another snapshot.
	m.snapshot("superseded", "base")
	m.step("again", "superseded", 6, nil)
	m.snapshot("on-superseded", "superseded")
	m.step("on-superseded", "on-superseded", 6, nil)
	m.snapshot("again", "base")
	m.step("again", "again", 2, nil)
	m.check(m.Cache.PutChain(m.t.Context(), digest.FromString("an image that is gone"),
		"superseded"))

	lazy := m.blob("l-lazy")
	m.sealed("lazy", lazy)
	m.step("lazy", "lazy", 4, &cache.Lazy{Parent: "new", Sealed: "gzip 0"})

	sealed := m.blob("l-new")
	m.sealed("new", sealed)
	m.image("named", m.blob("l-named"), sealed)
	m.image("", m.blob("l-unnamed"))
	m.blob("l-garbage")
	m.mount("mount-old", 7)
	m.mount("mount-new", 1)
	m.check(m.Cache.Put(m.t.Context(), "gone", cache.Record{Snapshot: "gone"}))
}

// TestPruneLazy checks that a collection keeps the records of steps on an image that is not
// unpacked, and removes those on a snapshot that is gone.
func TestPruneLazy(t *testing.T) {
	m := newMaker(t)
	defer m.Close()
	image := digest.FromString("layers").Encoded()
	for _, step := range []struct{ id, on string }{
		{"first", image}, {"second", "first"}, {"lost", "gone"},
	} {
		m.sealed(step.id, m.blob("l-"+step.id))
		m.step(step.id, step.id, 1, &cache.Lazy{Parent: step.on, Sealed: "gzip 0"})
	}
	for _, on := range []string{image, "second", "gone"} {
		m.check(m.Cache.Put(m.t.Context(), cache.Key("no-op on "+on),
			cache.Record{Snapshot: on, NoOp: true}))
	}
	m.forget()
	_, err := m.Prune(t.Context(), PruneOptions{})
	m.check(err)
	if got, want := m.left(), "l-first l-second"; got != want {
		t.Errorf("there is %q, want %q", got, want)
	}
	for key, want := range map[string]bool{"first": true, "second": true, "lost": false,
		"no-op on " + image: true, "no-op on second": true, "no-op on gone": false} {
		if _, got := m.Cache.Get(cache.Key(key)); got != want {
			t.Errorf("the record of %q is there: %t, want %t", key, got, want)
		}
	}
}

func TestPrune(t *testing.T) {
	const all = "again base l-garbage l-lazy l-named l-new l-unnamed mount-new mount-old new old old2 on-superseded superseded"
	tests := []struct {
		name string
		o    PruneOptions
		want string
	}{
		{"what is of no use", PruneOptions{},
			"again base l-lazy l-named l-new mount-new mount-old new old old2"},
		{"what is old", PruneOptions{Unused: 6*24*time.Hour + time.Hour},
			"again base l-lazy l-named l-new mount-new new"},
		{"all", PruneOptions{All: true}, "l-named l-new"},
		{"a size", PruneOptions{Keep: 7*size + size/2},
			"again base l-lazy l-named l-new mount-new new"},
		{"a smaller size", PruneOptions{Keep: 5*size + size/2}, "base l-named l-new mount-new new"},
		{"all of a size", PruneOptions{All: true, Keep: 7*size + size/2},
			"again base l-lazy l-named l-new mount-new new"},
		{"the largest size", PruneOptions{MaxUsed: 7*size + size/2, Keep: size},
			"again base l-lazy l-named l-new mount-new new"},
		{"more than the largest size", PruneOptions{MaxUsed: 1, Keep: 7*size + size/2},
			"again base l-lazy l-named l-new mount-new new"},
		{"a full disk", PruneOptions{MinFree: 1 << 60}, "l-named l-new"},
		{"a full disk, and a size", PruneOptions{MinFree: 1 << 60, Keep: 7*size + size/2},
			"again base l-lazy l-named l-new mount-new new"},
		{"a free disk", PruneOptions{MinFree: 1},
			"again base l-lazy l-named l-new mount-new mount-old new old old2"},
		{"old, of a size", PruneOptions{Unused: time.Hour, Keep: 7*size + size/2},
			"again base l-lazy l-named l-new mount-new new"},
		{"too new, of a size", PruneOptions{Unused: 30 * 24 * time.Hour, Keep: 1},
			"again base l-lazy l-named l-new mount-new mount-old new old old2"},
		{"only mounts", PruneOptions{Only: func(p Part) bool { return p.Kind == PartMount }},
			"again base l-garbage l-lazy l-named l-new l-unnamed new old old2 on-superseded " +
				"superseded"},
		{"only images", PruneOptions{Only: func(p Part) bool { return p.Kind == PartImage }},
			"again base l-garbage l-lazy l-named l-new mount-new mount-old new old old2 " +
				"on-superseded superseded"},
		{"only blobs", PruneOptions{Only: func(p Part) bool { return p.Kind == PartBlob }},
			"again base l-lazy l-named l-new l-unnamed mount-new mount-old new old old2 " +
				"on-superseded superseded"},
		{"only old data", PruneOptions{Only: func(p Part) bool {
			return time.Since(p.LastUsed) > 7*24*time.Hour
		}}, "again base l-garbage l-lazy l-named l-new l-unnamed mount-new new on-superseded " +
			"superseded"},
		{"only one", PruneOptions{Only: func(p Part) bool { return p.ID == "old2" }},
			"again base l-garbage l-lazy l-named l-new l-unnamed mount-new mount-old new old " +
				"on-superseded superseded"},
		{"no images", PruneOptions{KeepImages: true},
			"again base l-lazy l-named l-new l-unnamed mount-new mount-old new old old2"},
		{"all but images", PruneOptions{KeepImages: true, All: true}, "l-named l-new l-unnamed"},
		// A build keeps its image without a name, and the data that it has used.
		{"a build's", PruneOptions{Since: time.Now().Add(-5 * 24 * time.Hour), Keep: 1},
			"again base l-lazy l-named l-new l-unnamed mount-new new"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMaker(t)
			defer m.Close()
			m.fill()
			m.forget()
			if got := m.left(); got != all {
				t.Fatalf("made %s", got)
			}
			dry := test.o
			dry.DryRun = true
			foretold, err := m.Prune(t.Context(), dry)
			m.check(err)
			if got := m.left(); got != all {
				t.Errorf("after a dry run there is %s", got)
			}
			done, err := m.Prune(t.Context(), test.o)
			m.check(err)
			if done != foretold {
				t.Errorf("removed %+v, foretold %+v", done, foretold)
			}
			if got := m.left(); got != test.want {
				t.Errorf("there is  %s\nand not   %s", got, test.want)
			}
			again, err := m.Prune(t.Context(), test.o)
			m.check(err)
			if again != (Pruned{}) {
				t.Errorf("a second time removes %+v", again)
			}
		})
	}
}

// TestCollect runs several builds: the state stays below the limit, and the data of the last build
// are kept.
func TestCollect(t *testing.T) {
	m := newMaker(t)
	limit := Policy{Limit: 20 * size}
	parent := ""
	for i := range 100 {
		began := m.fileTime()
		m.forget()
		id := fmt.Sprintf("s%d", i)
		m.snapshot(id, parent)
		key := id
		if i%2 == 1 { // as with --no-cache: the result replaces an earlier one
			key = fmt.Sprintf("key%d", i%4)
		}
		m.check(m.Cache.Put(m.t.Context(), cache.Key(key), cache.Record{Snapshot: id}))
		if m.image("app", m.blob(fmt.Sprintf("l%d", i))); i%10 == 0 {
			parent = ""
		} else if i%10 == 1 {
			parent = id
		}
		if i == 50 {
			m.NoteUnsynced(t.Context()) // once is enough in one State
		}
		m.wrote.Store(true)
		m.check(m.Collect(t.Context(), limit, began.Add(time.Second))) // Collect subtracts a second
		if _, err := m.Snapshots.Stat(t.Context(), snapshot.ID(id)); err != nil {
			t.Fatalf("build %d: what it has made is gone: %v", i, err)
		}
		if n := m.readUsage().total(); n > 21*size+slack/64 {
			t.Fatalf("build %d leaves %d kB", i, n>>10)
		}
	}
	m.check(m.Close())
}

// TestCollectNothing checks that nothing is removed without a limit, and by a build that has run no
// step.
func TestCollectNothing(t *testing.T) {
	m := newMaker(t)
	m.fill()
	m.NoteUnsynced(t.Context())
	before := m.left()
	m.check(m.Collect(t.Context(), Policy{Limit: NoLimit}, time.Now()))
	if got := m.left(); got != before {
		t.Errorf("there is %s", got)
	}
	m.check(m.Close())

	m = &maker{State: openTest(t, m.Root), t: t}
	m.check(m.Collect(t.Context(), Policy{Limit: 1}, time.Now()))
	if got := m.left(); got != before {
		t.Errorf("a build that has run nothing leaves %s", got)
	}
	m.NoteUnsynced(t.Context())
	m.check(m.Collect(t.Context(), Policy{Limit: 1}, time.Now()))
	if got := m.left(); got != "l-named l-new l-unnamed" && got != "l-named l-new" {
		t.Errorf("a build with the smallest limit leaves %s", got)
	}
	m.check(m.Close())
}

// BenchmarkCollect measures the end of a build that has run a step in a state of 300 snapshots and
// 300 blobs with nothing to remove.
func BenchmarkCollect(b *testing.B) {
	m := newMaker(b)
	defer m.Close()
	for i := range 300 {
		id := fmt.Sprintf("s%d", i)
		m.snapshot(id, "")
		m.check(m.Cache.Put(m.t.Context(), cache.Key(id), cache.Record{Snapshot: id}))
		m.image("app"+id, m.blob(id))
	}
	m.NoteUnsynced(m.t.Context())
	m.check(m.Collect(b.Context(), Policy{Limit: 1 << 40}, time.Now()))
	for b.Loop() {
		m.check(m.Collect(b.Context(), Policy{Limit: 1 << 40}, time.Now()))
	}
}

// TestLimit checks that a file system that does not report its size does not make the limit 0, with
// which nothing would be kept.
func TestLimit(t *testing.T) {
	for dir, test := range map[string]func(n int64) bool{
		"/proc":     func(n int64) bool { return n == defaultLimit },
		t.TempDir(): func(n int64) bool { return n > 0 && n <= defaultLimit },
	} {
		if n, err := (Policy{}).limit(dir); err != nil || !test(n) {
			t.Errorf("limit(%q) = %d, %v", dir, n, err)
		}
	}
	if n, err := (Policy{Limit: 7}).limit("/nonexistent"); err != nil || n != 7 {
		t.Errorf("limit = %d, %v, want 7", n, err)
	}
}

// TestUsageDamaged checks that sizes that cannot be read are measured again.
func TestUsageDamaged(t *testing.T) {
	m := newMaker(t)
	defer m.Close()
	m.fill()
	want := m.readUsage().total()
	for _, content := range []string{"", "snapshot base",
		"snapshot base x\n\x00\x00\nblob -1 -1\n", "snapshot base 1"} {
		m.check(os.WriteFile(m.usageFile(), []byte(content), 0o600))
		if got := m.readUsage().total(); got != want {
			t.Errorf("with %q the state has %d bytes, want %d", content, got, want)
		}
	}
	if out, err := exec.Command("du", "-s", "--block-size=1",
		filepath.Join(m.Root, "snapshots", "full", "base")).Output(); err == nil {
		var n int64
		if _, err := fmt.Sscan(string(out), &n); err != nil ||
			n != treeSize(filepath.Join(m.Root, "snapshots", "full", "base")) {
			t.Errorf("treeSize = %d, du has %s",
				treeSize(filepath.Join(m.Root, "snapshots", "full", "base")), out)
		}
	}
}

// TestCollectLostNames checks that after all versions of index.json are lost, neither a build that
// collects nor a prune removes the images that had names.
func TestCollectLostNames(t *testing.T) {
	m := newMaker(t)
	m.image("app", m.blob("l-named"))
	m.check(m.Close())
	for _, name := range []string{"index.json", "index.json.copy", "index.json.old"} {
		m.check(os.Remove(filepath.Join(m.Root, "oci", name)))
	}
	m = &maker{State: openTest(t, m.Root), t: t}
	defer m.Close()
	m.NoteUnsynced(t.Context())
	m.check(m.Collect(t.Context(), Policy{Limit: 1}, time.Now()))
	if _, err := m.Prune(t.Context(), PruneOptions{All: true}); err != nil {
		t.Error(err)
	}
	if got := m.left(); got != "l-named" {
		t.Errorf("there is %q, want the layer of the image", got)
	}
}

// TestCollectRepairs checks that a collection does not repair damaged blobs, and that the store
// does so afterwards.
func TestCollectRepairs(t *testing.T) {
	m := newMaker(t)
	defer m.Close()
	d := m.image("app", m.blob("l-named"))
	m.check(os.Truncate(m.Store.Path(d), 1))
	repairs := 0
	m.Store.Repair = func(context.Context, ocispec.Descriptor, *store.BlobError) error {
		repairs++
		return errors.New("no")
	}
	m.NoteUnsynced(t.Context())
	m.check(m.Collect(t.Context(), Policy{Limit: 1}, time.Now()))
	if repairs != 0 {
		t.Errorf("the collection has repaired %d blobs", repairs)
	}
	if _, err := m.Store.Read(t.Context(), ocispec.Descriptor{Digest: d}); err == nil ||
		repairs != 1 {
		t.Errorf("after the collection: %d repairs, error %v", repairs, err)
	}
}

func TestCacheLimit(t *testing.T) {
	const none = -1
	for _, test := range []struct {
		keep, maxUsed, minFree, before, free int64
		want                                 int64
	}{
		{0, 0, 0, 100, 10, none},
		{40, 0, 0, 100, 10, 40},
		{0, 40, 0, 100, 10, 40},
		{60, 40, 0, 100, 10, 60},
		{20, 40, 0, 100, 10, 40},
		{0, 0, 30, 100, 10, 80},
		{90, 0, 30, 100, 10, 90},
		{20, 0, 30, 100, 10, 80},
		{0, 40, 30, 100, 10, 40},
		{0, 90, 30, 100, 10, 80},
		{0, 0, 300, 100, 10, 0},
		{0, 40, 5, 100, 10, 40},
		{20, 0, 5, 100, 10, math.MaxInt64},
	} {
		o := PruneOptions{Keep: test.keep, MaxUsed: test.maxUsed, MinFree: test.minFree}
		got, limited := o.cacheLimit(test.before, test.free)
		if !limited {
			got = none
		}
		if got != test.want {
			t.Errorf("%+v: %d, want %d", test, got, test.want)
		}
	}
}

// TestPruneImages checks that a collection of images removes the chosen ones and the blobs that
// nothing needs, and nothing of the cache. An image whose name was given to another one since, and
// an image that another process uses, are kept.
func TestPruneImages(t *testing.T) {
	const cached = "again base l-lazy mount-new mount-old new old old2 on-superseded superseded"
	for _, test := range []struct {
		name   string
		choose func(e store.Entry) bool
		use    string // the image that another process uses
		want   string // besides what is cached
		images int
	}{
		{"none", func(store.Entry) bool { return false }, "", "l-named l-new l-unnamed", 0},
		{"without a name", func(e store.Entry) bool { return e.Name == "" }, "", "l-named l-new", 1},
		{"all", func(store.Entry) bool { return true }, "", "", 2},
		{"all, one in use", func(store.Entry) bool { return true }, "named", "l-named l-new", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMaker(t)
			defer m.Close()
			m.fill()
			entries, err := m.Store.Names(t.Context())
			m.check(err)
			m.forget()
			if test.use != "" {
				other := openTest(t, m.Root)
				defer other.Close()
				d, err := other.Store.Resolve(t.Context(), test.use)
				m.check(err)
				_, err = other.Store.Read(t.Context(), d)
				m.check(err)
			}
			o := PruneOptions{OnlyImages: true}
			for _, e := range entries {
				if test.choose(e) {
					o.Images = append(o.Images, e)
				}
			}
			removed := map[string]int{} // by kind
			o.Removed = func(p Part) { removed[p.Kind]++ }
			done, err := m.Prune(t.Context(), o)
			m.check(err)
			want := strings.Fields(cached + " " + test.want)
			slices.Sort(want)
			if got := m.left(); got != strings.Join(want, " ") {
				t.Errorf("there is  %s\nand not   %s", got, strings.Join(want, " "))
			}
			if done.Images != test.images || removed[PartImage] != test.images ||
				removed[PartBlob] != done.Blobs || done.Snapshots > 0 ||
				done.Mounts > 0 || done.BlobBytes < size {
				t.Errorf("removed %+v: %+v, want %d images", done, removed, test.images)
			}
			left, err := m.Store.Names(t.Context())
			m.check(err)
			if len(left) != len(entries)-test.images {
				t.Errorf("the store has %d images, want %d", len(left), len(entries)-test.images)
			}
		})
	}
}

// TestPruneMovedName checks that an image is kept whose name was chosen for another image.
func TestPruneMovedName(t *testing.T) {
	m := newMaker(t)
	defer m.Close()
	m.image("app", m.blob("l-old"))
	entries, err := m.Store.Names(t.Context())
	m.check(err)
	m.image("app", m.blob("l-new"))
	m.forget()
	done, err := m.Prune(t.Context(), PruneOptions{OnlyImages: true, Images: entries})
	m.check(err)
	if got := m.left(); got != "l-new" || done.Images != 0 {
		t.Errorf("there is %q, and %d images were removed; want l-new and none", got, done.Images)
	}
}
