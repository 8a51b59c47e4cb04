package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/state/ledger"
	"github.com/layerbuild/layerbuild/internal/workertest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func openTest(t testing.TB, dir, boot string) *Cache {
	t.Helper()
	c, err := Open(dir, ledger.OpenBoot(dir, boot), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRecords(t *testing.T) {
	c := openTest(t, t.TempDir(), "boot")
	tests := []struct {
		key Key
		rec Record
	}{
		{"4ac2", Record{Snapshot: "snap", Created: time.Unix(12, 34)}},
		{"with space/and slash", Record{Snapshot: "a.b-c_d", Created: time.Unix(1, 0),
			ContentKey: "x", Inputs: "a b ", NoOp: true}},
		{"", Record{Created: time.Unix(1, 0)}},
		{"odd values", Record{Created: time.Unix(1, 0), ContentKey: "two\nlines",
			Inputs: `"quoted"`, Lazy: &Lazy{Parent: " led by a space", Sealed: "\x00\xff"}}},
		{Key(strings.Repeat("long", 1000)), Record{Created: time.Unix(1, 0),
			Inputs: strings.Repeat("x", 100_000)}},
		{"clamped", Record{Created: time.Unix(1, 0), ClampedTo: new(int64)}},
		{"lazy on nothing", Record{Created: time.Unix(1, 0), Snapshot: "s",
			Lazy: &Lazy{Sealed: " 0"}}},
		{"key\nwith newline", Record{Snapshot: "x", Created: time.Unix(1, 0)}},
	}
	for _, tt := range tests {
		if _, ok := c.Get(tt.key); ok {
			t.Errorf("Get(%.20q) finds something in an empty cache", tt.key)
		}
		if err := c.Put(t.Context(), tt.key, tt.rec); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range tests {
		got, ok := c.Get(tt.key)
		if !ok || !cmp.Equal(got, tt.rec) {
			t.Errorf("Get(%.20q) = %v, %v\n%s", tt.key, got, ok, cmp.Diff(tt.rec, got))
		}
	}
	var keys []Key
	for e, err := range c.All(Steps) {
		if err != nil {
			t.Fatal(err)
		}
		if !e.Trusted || e.Kind != Steps || time.Since(e.Used) > time.Minute {
			t.Errorf("All: %v", e)
		}
		keys = append(keys, Key(e.Key))
	}
	if len(keys) != len(tests) {
		t.Errorf("All lists %d records, want %d", len(keys), len(tests))
	}
	if err := c.Put(t.Context(), "4ac2", Record{Snapshot: "newer"}); err != nil {
		t.Fatal(err)
	}
	if got, _ := c.Get("4ac2"); got.Snapshot != "newer" || time.Since(got.Created) > time.Minute {
		t.Errorf("after a second Put: %v", got)
	}
	if err := c.Delete("4ac2"); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete("4ac2"); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
	if _, ok := c.Get("4ac2"); ok {
		t.Error("found after Delete")
	}
	if _, err := encode(Entry{Kind: Steps, facts: map[string]string{"a b": "c"}}); err == nil {
		t.Error("the name of a fact with a space is accepted")
	}
	if err := c.Put(t.Context(), "bad",
		Record{Inputs: strings.Repeat("x", maxRecord)}); err == nil {
		t.Error("a record of more than a megabyte is taken")
	}
}

// TestUnreadableFacts checks that a fact that cannot be read makes the record unreadable, or is
// omitted if the record is valid without it.
func TestUnreadableFacts(t *testing.T) {
	if r, ok := (Entry{Kind: Steps, facts: map[string]string{factClamped: "x"}}).Step(); ok {
		t.Errorf("a step with an epoch that is no number is read as %+v", r)
	}
	for _, facts := range []map[string]string{
		{factDescriptor: "{", factDiffID: string(digest.FromString("d")), factSize: "1"},
		{factDescriptor: "{}", factDiffID: string(digest.FromString("d")), factSize: "1"},
		{factDescriptor: `{"digest":"` + string(digest.FromString("d")) + `"}`,
			factDiffID: "d", factSize: "1"},
		{factDescriptor: `{"digest":"` + string(digest.FromString("d")) + `"}`,
			factDiffID: string(digest.FromString("d")), factSize: "x"},
	} {
		if _, l, ok := (Entry{Kind: Seals, Key: "s gzip 1", facts: facts}).SealedLayer(); ok {
			t.Errorf("%v is read as %+v", facts, l)
		}
	}
	if f := (Entry{Kind: Remote, facts: map[string]string{factRoot: `{"digest":"x"}`,
		factName: "n"}}).Finding(); f.Root != nil || f.Name != "n" {
		t.Errorf("an image without a digest is read as %+v", f)
	}
}

func TestChainSealedRemote(t *testing.T) {
	c := openTest(t, t.TempDir(), "boot1")
	id := digest.FromString("chain")
	if err := c.PutChain(t.Context(), id, "snap"); err != nil {
		t.Fatal(err)
	}
	if got, ok := c.Chain(id); got != "snap" || !ok {
		t.Errorf("Chain = %q, %v", got, ok)
	}
	want := Layer{
		Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip,
			Digest: digest.FromString("d"), Size: 7, Annotations: map[string]string{"a": "b"}},
		DiffID: digest.FromString("i"), Size: 9,
	}
	if err := c.PutSealed(t.Context(), "snap", "gzip 6", want); err != nil {
		t.Fatal(err)
	}
	if got, ok := c.Sealed("snap", "gzip 6"); !ok || !cmp.Equal(got, want) {
		t.Errorf("Sealed = %v, %v", got, ok)
	}
	if _, ok := c.Sealed("snap", "zstd"); ok {
		t.Error("sealed with other options is taken for the same")
	}
	if err := c.PutRemote(t.Context(), "https://a/b", Finding{Value: `"x"`}); err != nil {
		t.Fatal(err)
	}
	// Only Remote records are trusted after a reboot.
	c = openTest(t, c.dir, "boot2")
	if got, ok := c.Remote("https://a/b"); !ok || got.Value != `"x"` {
		t.Errorf("Remote = %v, %v", got, ok)
	}
	if _, ok := c.Chain(id); ok {
		t.Error("a chain of another boot is trusted")
	}
	if _, ok := c.Sealed("snap", "gzip 6"); ok {
		t.Error("a layer of another boot is trusted")
	}
	c.DeleteChain(id)
	c.DeleteRemote("https://a/b")
	if _, ok := c.Remote("https://a/b"); ok {
		t.Error("found after DeleteRemote")
	}
}

// TestTrust looks up records of an earlier boot. The tests of the ledger have further cases.
func TestTrust(t *testing.T) {
	dir := t.TempDir()
	one := openTest(t, dir, "boot1")
	put := func(c *Cache, k Key) {
		t.Helper()
		if err := c.Put(t.Context(), k, Record{Snapshot: "s"}); err != nil {
			t.Fatal(err)
		}
	}
	trusted := func(c *Cache) []Key {
		var out []Key
		for _, k := range []Key{"before", "during", "after"} {
			if _, ok := c.Get(k); ok {
				out = append(out, k)
			}
		}
		return out
	}
	put(one, "before")
	n, err := one.ledger.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put(one, "during")
	if err := one.ledger.Done(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	put(one, "after")
	if got := trusted(one); len(got) != 3 {
		t.Errorf("in its own boot only %v are trusted", got)
	}
	two := openTest(t, dir, "boot2")
	if got := trusted(two); !slices.Equal(got, []Key{"before"}) {
		t.Errorf("in the next boot %v are trusted, want only what was there before the sync", got)
	}
	put(two, "after")
	if got := trusted(two); !slices.Equal(got, []Key{"before", "after"}) {
		t.Errorf("written anew: %v", got)
	}
}

// TestDamage truncates a record, or fills it with zeros, at every offset. It must be either whole
// or not a record.
func TestDamage(t *testing.T) {
	c := openTest(t, t.TempDir(), "b")
	rec := Record{Snapshot: "snap", Created: time.Unix(5, 5), Inputs: "v"}
	if err := c.Put(t.Context(), "key", rec); err != nil {
		t.Fatal(err)
	}
	path := c.path(Steps, "key")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		for _, bad := range [][]byte{data[:i],
			append(slices.Clone(data[:i]), make([]byte, len(data)-i)...)} {
			if err := os.WriteFile(path, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			if got, ok := c.Get("key"); ok {
				t.Errorf("damaged at %d it is read as %v", i, got)
			}
		}
	}
	// A record in the file of another key is not valid for that key.
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	other := c.path(Steps, "other")
	if err := os.MkdirAll(filepath.Dir(other), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, other); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Get("other"); ok {
		t.Error("a record of one key is found under another")
	}
}

// TestFiles lists good records, a record of another boot and a file that is not a record, and
// removes them all.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	openTest(t, dir, "boot0").Put(t.Context(), "old", Record{Snapshot: "s0"})
	c := openTest(t, dir, "boot1")
	layer := Layer{Descriptor: ocispec.Descriptor{Digest: digest.FromString("d"), Size: 7},
		DiffID: digest.FromString("i"), Size: 9}
	for _, err := range []error{
		c.Put(t.Context(), "new", Record{Snapshot: "s1"}),
		c.PutChain(t.Context(), digest.FromString("c"), "s2"),
		c.PutSealed(t.Context(), "s1", "gzip 1", layer),
		c.PutRemote(t.Context(), "address", Finding{}),
		os.MkdirAll(filepath.Join(dir, "step", "aa", "directory", "x"), 0o755),
		os.WriteFile(filepath.Join(dir, "step", "aa", "garbage"), []byte("garbage"), 0o644),
		os.WriteFile(filepath.Join(dir, "step", "bb"),
			[]byte("a file where a directory is expected"), 0o644),
		os.WriteFile(filepath.Join(dir, "tmp", "new-1-7"), nil, 0o644),
		os.MkdirAll(filepath.Join(dir, "tmp", "new-1-directory", "etc"), 0o755),
		os.WriteFile(filepath.Join(dir, "tmp", "new--7"), nil, 0o644),
		os.WriteFile(filepath.Join(dir, "tmp", "other"), nil, 0o644),
		os.WriteFile(filepath.Join(dir, "tmp", "new-2-7"), nil, 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]int{}
	for e, err := range c.Files() {
		if err != nil {
			t.Fatal(err)
		}
		got[fmt.Sprint(e.Kind, " ", e.Trusted)]++
		if options, l, ok := e.SealedLayer(); ok != (e.Kind == Seals) ||
			ok && (e.Snapshot != "s1" || options != "gzip 1" || l.DiffID != layer.DiffID) {
			t.Errorf("SealedLayer of %q = %q, %v, %v", e.Key, options, l, ok)
		}
		if err := c.Drop(e); err != nil {
			t.Error(err)
		}
	}
	want := map[string]int{"step true": 1, "step false": 1, "chain true": 1, "sealed true": 1,
		"remote true": 1, " false": 3}
	if !maps.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	for e := range c.Files() {
		t.Errorf("after all were removed there is %+v", e)
	}
	if err := c.DropTemporary(map[string]bool{"2": true}); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(left) != 1 ||
		left[0].Name() != "new-2-7" {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
}

func TestConcurrent(t *testing.T) {
	workertest.Run(t, 2, func(dir, _ string) error {
		c, err := Open(dir, ledger.OpenBoot(dir, "boot"), Options{})
		if err != nil {
			return err
		}
		for i := range 60 {
			k := Key(fmt.Sprint(i % 20))
			if err := c.Put(t.Context(), k, Record{Snapshot: "s",
				Inputs: strings.Repeat("x", 3000)}); err != nil {
				return err
			}
			if r, ok := c.Get(k); !ok || len(r.Inputs) != 3000 {
				return fmt.Errorf("record %s is not whole: %v", k, ok)
			}
		}
		return nil
	})
}

func FuzzDecode(f *testing.F) {
	data, err := encode(Entry{Kind: Steps, Key: "k", Snapshot: "s", Created: time.Unix(1, 1),
		facts: map[string]string{"a": "b\nc"}, mark: ledger.Mark{Boot: "b", Syncs: 3}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(data))
	f.Add("layerbuild-record 1\nkind step\nmeta.x \"\\n\"\nend\n")
	f.Fuzz(func(t *testing.T, data string) {
		e, ok := decode(data)
		if !ok {
			return
		}
		out, err := encode(e)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, ok := decode(string(out))
		if !ok || again.mark != e.mark || again.Key != e.Key || !maps.Equal(again.facts, e.facts) ||
			again.Snapshot != e.Snapshot {
			t.Errorf("%q became %q", data, out)
		}
	})
}

// TestLeaseFails checks that a record that cannot be leased is not written.
func TestLeaseFails(t *testing.T) {
	c := openTest(t, t.TempDir(), "boot")
	failed := errors.New("not leased")
	c.o.Lease = func(context.Context, string, string) error { return failed }
	if err := c.Put(t.Context(), "key", Record{Snapshot: "s"}); !errors.Is(err, failed) {
		t.Errorf("Put = %v, want the error of Lease", err)
	}
	if _, ok := c.Get("key"); ok {
		t.Error("the record was written")
	}
}

func BenchmarkGet(b *testing.B) {
	c := openTest(b, b.TempDir(), "boot")
	if err := c.Put(b.Context(), "key", Record{Snapshot: strings.Repeat("s", 64),
		ContentKey: Key(strings.Repeat("c", 64))}); err != nil {
		b.Fatal(err)
	}
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := c.Get("key"); !ok {
				b.Fatal("miss")
			}
		}
	})
	b.Run("miss", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := c.Get("other"); ok {
				b.Fatal("hit")
			}
		}
	})
	b.Run("touch", func(b *testing.B) {
		for b.Loop() {
			c.Touch("key")
		}
	})
	b.Run("put", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if err := c.Put(b.Context(), Key(fmt.Sprint("put", i)),
				Record{Snapshot: "s"}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
