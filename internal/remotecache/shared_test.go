package remotecache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/store"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// memory is a Store in memory. Like a registry it cannot change a document only if it is still the
// one that was read.
type memory struct {
	mu         sync.Mutex
	docs       map[string][]byte
	blobs      map[digest.Digest]bool
	gets, puts int
	getErr     error
	putErr     error
	deleteErr  error
	pause      func() // before each operation
}

func newMemory() *memory {
	return &memory{docs: map[string][]byte{}, blobs: map[digest.Digest]bool{}, pause: func() {}}
}

func (m *memory) Get(ctx context.Context, name string) ([]byte, *image.Artifact, error) {
	m.pause()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gets++
	if m.getErr != nil {
		return nil, nil, m.getErr
	}
	data, ok := m.docs[name]
	if !ok {
		return nil, nil, fmt.Errorf("%s: %w", name, ErrNoDocument)
	}
	return data, &image.Artifact{Name: "memory"}, nil
}

func (m *memory) Put(_ context.Context, name string, data []byte,
	blobs []ocispec.Descriptor) error {
	m.pause()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.puts++
	for _, d := range blobs {
		if !m.blobs[d.Digest] {
			return fmt.Errorf("blob %s is missing", d.Digest)
		}
	}
	if m.putErr == nil {
		m.docs[name] = data
	}
	return m.putErr
}

func (m *memory) Send(_ context.Context, d ocispec.Descriptor) error {
	m.pause()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs[d.Digest] = true
	return m.putErr
}

// result returns a record of a step on parent ("" is the empty file system).
func result(key, parent, diff string, at int) Record {
	l := &Layer{DiffID: digest.FromString(diff), Sealed: "gzip"}
	l.Descriptor = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip,
		Digest: digest.FromString("blob of " + diff), Size: 3}
	if parent != "" {
		l.Parent = digest.FromString(parent)
	}
	return Record{Key: cache.Key(key), Created: time.Unix(int64(at), 0).UTC(), Layer: l}
}

// shared returns a Shared of a test, with the warnings that it sends.
func shared(m *memory, place string) (*Shared, *[]string) {
	p, err := ParseShared(place)
	if err != nil {
		panic(err)
	}
	var mu sync.Mutex
	var warnings []string
	return NewShared(p, m, "app", func(e event.Event) {
		if w, ok := e.(event.Warning); ok {
			mu.Lock()
			defer mu.Unlock()
			warnings = append(warnings, w.Message)
		}
	}), &warnings
}

func publish(t *testing.T, s *Shared, list ...Record) {
	t.Helper()
	for _, r := range list {
		s.Publish(t.Context(), func(context.Context) (Record, error) { return r, nil })
	}
}

func keys(list []Found) (out []string) {
	for _, f := range list {
		out = append(out, string(f.Layer.DiffID.Encoded()[:6]))
	}
	return out
}

func TestParseShared(t *testing.T) {
	for _, tt := range []struct {
		in, want, err string
	}{
		{"r.example.com/a/b", "r.example.com/a/b", ""},
		{"r.example.com/a/b,ro", "r.example.com/a/b,ro", ""},
		{"r.example.com/a/b,rw", "", `option "rw": ro is expected`},
		{"r.example.com/a/b,", "", `option "": ro is expected`},
		{"", "", "the name of a repository is expected"},
		{"https://c.example.com/a?b=c,ro", "https://c.example.com/a?b=c,ro", ""},
		{"https://me:secret@c.example.com/a", "https://me:xxxxx@c.example.com/a", ""},
		{"https://me:sec,ret@c.example.com/a", "", "the comma of a password"},
		{"https://me:%zz@c.example.com/a", "https://xxxxx@c.example.com/a", ""},
		{"https://token@c.example.com/a@b", "https://xxxxx@c.example.com/a@b", ""},
		{"https://c.example.com/a:b@c", "https://c.example.com/a:b@c", ""},
		{"s3://bucket/prefix?region=x,rw", "", `option "rw": ro is expected`},
		{"gha", "gha", ""},
		{"gha:main,ro", "gha:main,ro", ""},
		{"type=registry,ref=x", "", "the name of a repository is expected"},
	} {
		p, err := ParseShared(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: error %v, want %q", tt.in, err, tt.err)
			}
			continue
		}
		if err != nil || p.String() != tt.want {
			t.Errorf("%q: %q, %v", tt.in, p, err)
		}
	}
}

// TestSharedResults checks that what one build has published is found by another one: by the hint
// in one request, and without the hint by the key.
func TestSharedResults(t *testing.T) {
	m := newMemory()
	one, warnings := shared(m, "r/c")
	a, b := result("a", "", "a", 1), result("b", "a", "b", 2)
	times := Record{Key: "env", Created: time.Unix(3, 0).UTC()}
	publish(t, one, a, b, times)
	one.Finish(t.Context())
	if n := len(m.docs); n != 3 {
		t.Errorf("%d documents, want those of two keys and the hint", n)
	}
	for _, hint := range []bool{true, false} {
		m.gets, m.puts = 0, 0
		if !hint {
			delete(m.docs, one.hint)
		}
		two, _ := shared(m, "r/c")
		im := (*Imports)(nil).Ask(t.Context(), []*Shared{two})
		for range 2 {
			for _, r := range []Record{a, b} {
				got := im.Find(t.Context(), r.Key)
				if len(got) != 1 || !r.same(got[0].Record) || got[0].From.Name != "memory" {
					t.Errorf("hint %v: %s is %+v", hint, r.Key, got)
				}
			}
			if got := im.Find(t.Context(), "unknown"); len(got) != 0 {
				t.Errorf("hint %v: an unknown key has %+v", hint, got)
			}
		}
		at, ok := im.Created("env")
		if ok != hint || ok && !at.Equal(times.Created) {
			t.Errorf("hint %v: the time of an instruction is %v, %v", hint, at, ok)
		}
		if want := map[bool]int{true: 2, false: 4}[hint]; m.gets != want {
			t.Errorf("hint %v: %d requests, want %d", hint, m.gets, want)
		}
		publish(t, two, a, b, times)
		two.Finish(t.Context())
		if want := map[bool]int{true: 0, false: 1}[hint]; m.puts != want {
			t.Errorf("hint %v: %d documents written, want %d", hint, m.puts, want)
		}
		if m.gets > 4 {
			t.Errorf("hint %v: what was found was read again: %d requests", hint, m.gets)
		}
	}
	if len(*warnings) > 0 {
		t.Error(*warnings)
	}
}

// TestSharedTogether checks that builds that write the same keys at the same time lose no result.
func TestSharedTogether(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) { writeTogether(t, seed) })
	}
}

// writeTogether lets four builds write results of the same three keys, to a store whose operations
// take up to 20 ms.
func writeTogether(t *testing.T, seed uint64) {
	m := newMemory()
	rnd := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex
	m.pause = func() {
		mu.Lock()
		d := time.Duration(rnd.IntN(20_000)) * time.Microsecond
		mu.Unlock()
		time.Sleep(d)
	}
	var all []Record
	var wg sync.WaitGroup
	for i := range 4 {
		s, warnings := shared(m, "r/c")
		var list []Record
		for k := range 3 {
			list = append(list, result(fmt.Sprint("key ", k), "base",
				fmt.Sprint(k, " of ", i), i))
		}
		all = append(all, list...)
		wg.Go(func() {
			publish(t, s, list...)
			s.Finish(t.Context())
			if len(*warnings) > 0 {
				t.Error(*warnings)
			}
		})
	}
	wg.Wait()
	delete(m.docs, hintName(m))
	last, _ := shared(m, "r/c,ro")
	for _, r := range all {
		if !slices.ContainsFunc(last.find(t.Context(), r.Key),
			func(f Found) bool { return r.same(f.Record) }) {
			t.Errorf("seed %d: the result of %s at %v is lost", seed, r.Key, r.Created)
		}
	}
}

func hintName(m *memory) string {
	for name := range m.docs {
		if strings.HasPrefix(name, hintPrefix) {
			return name
		}
	}
	return ""
}

// TestSharedOrder checks which of several results of a step is tried first: that on which the most
// later steps have results, and of equal ones the latest.
func TestSharedOrder(t *testing.T) {
	m := newMemory()
	short, long := result("a", "", "short", 9), result("a", "", "long", 1)
	next := result("b", "", "next", 2)
	next.Layer.Parent = chainOf(long.Layer)
	after := result("c", "", "after", 2)
	after.Layer.Parent = chainOf(next.Layer)
	s, _ := shared(m, "r/c")
	publish(t, s, short, long, next, after)
	s.Finish(t.Context())
	two, _ := shared(m, "r/c")
	two.ReadHint(t.Context())
	want := keys([]Found{{Record: long}, {Record: short}})
	if got := keys(two.find(t.Context(), "a")); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	delete(m.docs, s.hint)
	three, _ := shared(m, "r/c")
	three.ReadHint(t.Context())
	slices.Reverse(want)
	if got := keys(three.find(t.Context(), "a")); !slices.Equal(got, want) {
		t.Errorf("without a hint %v, want %v", got, want)
	}
}

// TestSharedKeepsTheLatest checks that a key keeps a limited number of results.
func TestSharedKeepsTheLatest(t *testing.T) {
	m := newMemory()
	for i := range maxResults + 3 {
		s, _ := shared(m, "r/c")
		publish(t, s, result("a", "", fmt.Sprint(i), i))
		s.Finish(t.Context())
	}
	delete(m.docs, hintName(m))
	s, _ := shared(m, "r/c")
	got := s.find(t.Context(), "a")
	if len(got) != maxResults || got[0].Layer.DiffID != digest.FromString(
		fmt.Sprint(maxResults+2)) {
		t.Errorf("%d results, first %v", len(got), got[0].Layer.DiffID)
	}
}

// TestSharedReadOnly checks that nothing is written to a cache with the option ro.
func TestSharedReadOnly(t *testing.T) {
	m := newMemory()
	s, _ := shared(m, "r/c,ro")
	publish(t, s, result("a", "", "a", 1))
	s.Finish(t.Context())
	if m.puts != 0 || len(m.blobs) != 0 {
		t.Errorf("%d documents and %d blobs were written", m.puts, len(m.blobs))
	}
}

// TestSharedErrors checks that a cache that fails results in one warning, and is not asked again.
func TestSharedErrors(t *testing.T) {
	for _, tt := range []struct {
		name       string
		get, put   error
		gets, puts int
		warnings   []string
	}{
		{"reading", errors.New("broken"), nil, 2, 0, []string{
			"the cache at r/c is not read: broken",
			"no more steps are written to the cache at r/c: broken"}},
		{"writing", nil, errors.New("denied"), 4, 0, []string{
			"no more steps are written to the cache at r/c: denied"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMemory()
			m.getErr, m.putErr = tt.get, tt.put
			s, warnings := shared(m, "r/c")
			s.ReadHint(t.Context())
			for _, key := range []cache.Key{"a", "b", "c"} {
				if got := s.find(t.Context(), key); len(got) != 0 {
					t.Errorf("%s: %+v", key, got)
				}
			}
			publish(t, s, result("a", "", "a", 1))
			s.wg.Wait()
			publish(t, s, result("b", "a", "b", 1))
			s.Finish(t.Context())
			if !slices.Equal(*warnings, tt.warnings) {
				t.Errorf("warnings %q, want %q", *warnings, tt.warnings)
			}
			if m.gets != tt.gets || m.puts != tt.puts {
				t.Errorf("%d reads and %d writes, want %d and %d", m.gets, m.puts, tt.gets,
					tt.puts)
			}
		})
	}
}

// TestSharedDamaged checks documents that are not what their name promises: a build does not use
// them, and writes its own result in their place.
func TestSharedDamaged(t *testing.T) {
	other, err := json.Marshal(Document{Records: []Record{result("other", "", "x", 1),
		{Key: "a", Created: time.Now()}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"no JSON": "x", "a list": "[]", "no records": "{}", "records of another key": string(other),
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			m.docs[nameOf("a")] = []byte(data)
			s, _ := shared(m, "r/c")
			for _, f := range s.find(t.Context(), "a") {
				if f.Layer != nil {
					t.Errorf("found %+v", f.Record)
				}
			}
			r := result("a", "", "a", 1)
			publish(t, s, r)
			s.Finish(t.Context())
			delete(m.docs, s.hint)
			two, _ := shared(m, "r/c")
			if got := two.find(t.Context(), "a"); len(got) != 1 || !r.same(got[0].Record) {
				t.Errorf("afterwards it has %+v", got)
			}
		})
	}
}

// TestSharedFailedLayer checks that a layer that cannot be made is not published.
func TestSharedFailedLayer(t *testing.T) {
	m := newMemory()
	s, warnings := shared(m, "r/c")
	s.Publish(t.Context(), func(context.Context) (Record, error) {
		return Record{}, errors.New("no space left")
	})
	s.Finish(t.Context())
	if len(m.docs) != 0 || len(*warnings) != 0 {
		t.Errorf("documents %v, warnings %q", m.docs, *warnings)
	}
}

// FuzzHint reads hostile hints.
func FuzzHint(f *testing.F) {
	data, err := json.Marshal(Document{Records: []Record{result("a", "", "a", 1),
		result("b", "a", "b", 2), {Key: "a"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		m := newMemory()
		s, _ := shared(m, "r/c")
		m.docs[s.hint] = data
		s.ReadHint(t.Context())
		for _, r := range s.find(t.Context(), "a") {
			if r.Key != "a" {
				t.Errorf("key %q", r.Key)
			}
		}
		if err := s.merge(t.Context(), Record{Key: "a", Layer: &Layer{}}); err == nil {
			t.Error("a layer that was not sent was written")
		}
	})
}

// TestSharedReject checks that a result whose layer cannot be used is not found again, and that the
// next result of the step takes its place.
func TestSharedReject(t *testing.T) {
	m := newMemory()
	bad, good := result("a", "", "bad", 1), result("a", "", "good", 2)
	one, _ := shared(m, "r/c")
	publish(t, one, bad)
	one.Finish(t.Context())
	two, _ := shared(m, "r/c")
	two.ReadHint(t.Context())
	if got := two.find(t.Context(), "a"); len(got) != 1 {
		t.Fatalf("found %v", keys(got))
	}
	two.Reject(bad.Layer.Descriptor.Digest)
	if got := two.find(t.Context(), "a"); len(got) != 0 {
		t.Errorf("after Reject %v", keys(got))
	}
	publish(t, two, good)
	two.Finish(t.Context())
	for _, hint := range []bool{true, false} {
		three, _ := shared(m, "r/c")
		if hint {
			three.ReadHint(t.Context())
		}
		got := three.find(t.Context(), "a")
		if want := keys([]Found{{Record: good}}); !slices.Equal(keys(got), want) {
			t.Errorf("another machine, hint %v: %v, want %v", hint, keys(got), want)
		}
	}
}

// TestSharedMissingLayer checks that a layer that a registry has lost is sent again by a build that
// has made the same result.
func TestSharedMissingLayer(t *testing.T) {
	m := newMemory()
	r := result("a", "", "same", 1)
	one, _ := shared(m, "r/c")
	publish(t, one, r)
	one.Finish(t.Context())
	lost := r.Layer.Descriptor.Digest
	delete(m.blobs, lost)
	two, warnings := shared(m, "r/c")
	two.ReadHint(t.Context())
	two.find(t.Context(), "a")
	two.Reject(lost)
	m.puts = 0
	publish(t, two, r)
	two.Finish(t.Context())
	if !m.blobs[lost] || m.puts > 0 || len(*warnings) > 0 {
		t.Errorf("sent %v, %d documents written, warnings %q", m.blobs[lost], m.puts, *warnings)
	}
}

// hintStore is a memory that is a HintStore.
type hintStore struct{ *memory }

func (hintStore) HintsOnly() {}

// TestSharedHintStore checks that a store of few documents gets only hints, and that a build that
// ends early takes none of their records away.
func TestSharedHintStore(t *testing.T) {
	m := newMemory()
	open := func() *Shared {
		return NewShared(SharedPlace{Ref: "gha"}, hintStore{m}, "app", event.Discard)
	}
	now := int(time.Now().Unix())
	a, b, c := result("a", "", "a", now), result("b", "a", "b", now), result("c", "b", "c", now)
	one := open()
	one.ReadHint(t.Context())
	publish(t, one, a, b)
	one.Finish(t.Context())
	if len(m.docs) != 1 || len(m.blobs) != 2 || m.docs[one.hint] == nil {
		t.Errorf("%d documents and %d blobs", len(m.docs), len(m.blobs))
	}
	two := open() // ends after a
	im := (*Imports)(nil).Ask(t.Context(), []*Shared{two})
	if got := im.Find(t.Context(), "a"); len(got) != 1 {
		t.Errorf("a is %+v", got)
	}
	m.gets = 0
	if got := im.Find(t.Context(), "c"); len(got) != 0 || m.gets != 0 {
		t.Errorf("c is %+v, %d requests", got, m.gets)
	}
	publish(t, two, a, c)
	two.Finish(t.Context())
	im = (*Imports)(nil).Ask(t.Context(), []*Shared{open()})
	for _, r := range []Record{a, b, c} {
		if got := im.Find(t.Context(), r.Key); len(got) != 1 || !r.same(got[0].Record) {
			t.Errorf("%s is %+v", r.Key, got)
		}
	}
	m.puts = 0
	three := open()
	im = (*Imports)(nil).Ask(t.Context(), []*Shared{three})
	im.Find(t.Context(), "a")
	three.Finish(t.Context())
	if m.puts != 0 {
		t.Error("a hint that has all records was written again")
	}
}

// lacking is a memory of a machine that lacks a blob.
type lacking struct {
	*memory
	blob digest.Digest
}

func (l lacking) Send(ctx context.Context, d ocispec.Descriptor) error {
	if d.Digest == l.blob {
		return fmt.Errorf("blob %s: %w", d.Digest, store.ErrNotFound)
	}
	return l.memory.Send(ctx, d)
}

// TestSharedLostLayer checks that a build goes on to write results if a layer of a result that it
// has found is missing in the cache, and so on this machine.
func TestSharedLostLayer(t *testing.T) {
	m := newMemory()
	lost, next := result("a", "", "a", 1), result("b", "a", "b", 2)
	var warnings []event.Event
	s := NewShared(SharedPlace{Ref: "r/c"}, lacking{m, lost.Layer.Descriptor.Digest}, "app",
		func(e event.Event) {
			if _, ok := e.(event.Warning); ok {
				warnings = append(warnings, e)
			}
		})
	publish(t, s, lost)
	s.wg.Wait()
	publish(t, s, next)
	s.Finish(t.Context())
	if len(warnings) > 0 || m.docs[nameOf("b")] == nil || m.docs[nameOf("a")] != nil {
		t.Errorf("warnings %v, %d documents", warnings, len(m.docs))
	}
}
