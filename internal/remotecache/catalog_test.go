package remotecache

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
)

// List implements Catalog.
func (m *memory) List(_ context.Context, f func(string) error) error {
	m.mu.Lock()
	names := slices.Collect(maps.Keys(m.docs))
	m.mu.Unlock()
	for _, name := range names {
		if err := f(name); err != nil {
			return err
		}
	}
	return nil
}

// Delete implements Catalog.
func (m *memory) Delete(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.docs[name]; !ok {
		return ErrNoDocument
	}
	if m.deleteErr != nil {
		return m.deleteErr
	}
	delete(m.docs, name)
	return nil
}

// Sweep implements Catalog. All blobs are old.
func (m *memory) Sweep(_ context.Context, _ time.Time, used func(digest.Digest) bool) (n int,
	bytes int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for d := range m.blobs {
		if !used(d) {
			delete(m.blobs, d)
			n, bytes = n+1, bytes+3
		}
	}
	return n, bytes, nil
}

// store writes a document of an age.
func (m *memory) store(t *testing.T, name string, age time.Duration, list ...Record) {
	t.Helper()
	data, err := json.Marshal(Document{Records: list, Written: time.Now().Add(-age)})
	if err != nil {
		t.Fatal(err)
	}
	m.docs[name] = data
	for _, r := range list {
		if !strings.HasPrefix(name, hintPrefix) {
			m.blobs[r.Layer.Descriptor.Digest] = true
		}
	}
}

func names(list []Listed) (out []string) {
	for _, l := range list {
		out = append(out, strings.TrimPrefix(l.Name, "layerbuild-"))
	}
	slices.Sort(out)
	return out
}

// TestPrune prunes a cache of three steps, two of which have one layer in common, and two hints.
func TestPrune(t *testing.T) {
	const day = 24 * time.Hour
	a, b, c := result("a", "", "same", 1), result("b", "", "same", 2), result("c", "", "other", 3)
	for _, tt := range []struct {
		name    string
		o       PruneOptions
		damaged bool
		pruned  []string
		freed   int64
		blobs   int // that Sweep has deleted
	}{
		{"nothing", PruneOptions{Keep: -1}, false, nil, 0, 0},
		{"by age", PruneOptions{Keep: -1, Before: time.Now().Add(-2 * day)}, false,
			[]string{"1-c", "hint-1-all"}, 3, 1},
		{"by age, a common layer", PruneOptions{Keep: -1, Before: time.Now().Add(-day)}, false,
			[]string{"1-b", "1-c", "hint-1-all"}, 3, 1},
		{"by size", PruneOptions{Keep: 3}, false,
			[]string{"1-b", "1-c", "hint-1-all"}, 3, 1},
		{"all", PruneOptions{}, false,
			[]string{"1-a", "1-b", "1-c", "hint-1-all", "hint-1-one"}, 6, 2},
		{"a trial", PruneOptions{DryRun: true}, false,
			[]string{"1-a", "1-b", "1-c", "hint-1-all", "hint-1-one"}, 6, 0},
		{"a damaged document", PruneOptions{}, true,
			[]string{"1-a", "1-b", "1-c", "hint-1-all", "hint-1-one"}, 6, 0},
	} {
		m := newMemory()
		m.store(t, "layerbuild-1-a", time.Hour, a)
		m.store(t, "layerbuild-1-b", 36*time.Hour, b)
		m.store(t, "layerbuild-1-c", 3*day, c)
		m.store(t, hintPrefix+"all", time.Hour, a, b, c)
		m.store(t, hintPrefix+"one", time.Hour, a)
		if tt.damaged {
			m.docs["layerbuild-1-d"] = []byte("{")
		}
		all := len(m.docs)
		p, err := Prune(t.Context(), m, tt.o)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		left := all - len(tt.pruned)
		if tt.o.DryRun {
			left = all
		}
		if got := names(p.Documents); !slices.Equal(got, tt.pruned) || p.Freed != tt.freed ||
			p.Blobs != tt.blobs || len(m.docs) != left {
			t.Errorf("%s: pruned %q, freed %d, %d blobs, %d documents left", tt.name, got, p.Freed,
				p.Blobs, len(m.docs))
		}
	}
}

// TestPruneFails checks that an error of a store ends Prune, and deletes no blobs.
func TestPruneFails(t *testing.T) {
	m := newMemory()
	m.store(t, "layerbuild-1-a", time.Hour, result("a", "", "x", 1))
	m.deleteErr = errors.New("not permitted")
	if _, err := Prune(t.Context(), m, PruneOptions{}); !errors.Is(err, m.deleteErr) ||
		len(m.blobs) != 1 {
		t.Errorf("error %v, %d blobs left", err, len(m.blobs))
	}
	m.deleteErr, m.getErr = nil, errors.New("no answer")
	if p, err := Prune(t.Context(), m, PruneOptions{}); err != nil || len(m.docs) != 1 ||
		len(m.blobs) != 1 || len(p.Documents) > 0 {
		t.Errorf("a store that cannot be read: error %v, pruned %v", err, p.Documents)
	}
}

// TestRefresh checks that an old record that is used is written again, so that Prune keeps it.
func TestRefresh(t *testing.T) {
	m := newMemory()
	r := result("a", "", "x", 1)
	for _, tt := range []struct {
		age  time.Duration
		puts int
	}{{refreshAge - time.Hour, 0}, {refreshAge + time.Hour, 2}, {0, 0}} {
		if tt.age > 0 {
			old := r
			old.Written = time.Now().Add(-tt.age)
			m.store(t, nameOf("a"), tt.age, old)
			s, _ := shared(m, "r/c")
			m.store(t, s.hint, tt.age, old)
		}
		m.puts = 0
		s, warnings := shared(m, "r/c")
		s.ReadHint(t.Context())
		if len(s.find(t.Context(), "a")) != 1 {
			t.Fatal("the record was not found")
		}
		publish(t, s, r)
		s.Finish(t.Context())
		if m.puts != tt.puts || len(*warnings) > 0 {
			t.Errorf("age %v: %d documents written, want %d; warnings %q", tt.age, m.puts, tt.puts,
				*warnings)
		}
	}
}
