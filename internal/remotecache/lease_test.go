package remotecache_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/remotecache/remotecachetest"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// builder is a build that uses a cache.
type builder struct {
	t       *testing.T
	shared  *remotecache.Shared
	imports *remotecache.Imports

	mu     sync.Mutex
	events []string
}

// anyBlob has all blobs.
type anyBlob struct{}

func (anyBlob) Fetch(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(d.Digest.String())), nil
}

func newBuilder(t *testing.T, store remotecache.Store, readOnly bool) *builder {
	b := &builder{t: t}
	place := remotecache.SharedPlace{Ref: "s3://bucket", ReadOnly: readOnly}
	b.shared = remotecache.NewShared(place, store, "app", func(e event.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := e.(type) {
		case event.Start:
			b.events = append(b.events, e.Name)
		case event.Done:
			b.events = append(b.events, e.Note)
		case event.Warning:
			b.events = append(b.events, "warning: "+e.Message)
		}
	})
	b.imports = (*remotecache.Imports)(nil).Ask(t.Context(), []*remotecache.Shared{b.shared})
	b.events = nil
	return b
}

// step makes the result of a key in some time, unless a machine has it already, and reports whether
// it was made here.
func (b *builder) step(key cache.Key, takes time.Duration) (here bool) {
	if len(b.imports.Find(b.t.Context(), key)) > 0 {
		return false
	}
	if b.imports.Lease(b.t.Context(), key, "step "+string(key)) {
		if len(b.imports.Find(b.t.Context(), key)) == 0 {
			b.t.Errorf("%s: the result is not found", key)
		}
		return false
	}
	time.Sleep(takes)
	b.publish(key)
	return true
}

// publish writes a result of a key.
func (b *builder) publish(key cache.Key) {
	b.shared.Publish(b.t.Context(), func(context.Context) (remotecache.Record, error) {
		return remotecache.Record{Key: key, Created: time.Now(), Layer: &remotecache.Layer{
			DiffID: digest.FromString(string(key)), Descriptor: ocispec.Descriptor{
				MediaType: ocispec.MediaTypeImageLayer,
				Digest:    digest.FromString("b " + string(key))},
		}}, nil
	})
}

// end ends a build.
func (b *builder) end() {
	b.shared.Finish(b.t.Context())
	b.shared.Close()
}

// has checks the progress.
func (b *builder) has(want ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range want {
		if !slices.ContainsFunc(b.events, func(e string) bool { return strings.Contains(e, w) }) {
			b.t.Errorf("the progress is %q, want %q", b.events, w)
		}
	}
	if len(want) == 0 && len(b.events) > 0 {
		b.t.Errorf("the progress is %q", b.events)
	}
}

func count(m *remotecachetest.Memory, operation string) (n int) {
	for _, l := range m.Log() {
		if strings.HasPrefix(l, operation+" ") {
			n++
		}
	}
	return n
}

// TestLease lets two machines build at the same time: each step runs on one of them, the other one
// waits for its result, and at the end no machine has a lease.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m remotecachetest.Memory
		one, two := newBuilder(t, m.On(anyBlob{}), false), newBuilder(t, m.On(anyBlob{}), false)
		began := time.Now()
		made := make([]int, 3)
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, b := range []*builder{one, two} {
			wg.Go(func() {
				for i := range made {
					if b.step(cache.Key(fmt.Sprint(i)), 30*time.Second) {
						mu.Lock()
						made[i]++
						mu.Unlock()
					}
				}
				b.end()
			})
		}
		wg.Wait()
		if !slices.Equal(made, []int{1, 1, 1}) {
			t.Errorf("the steps ran %d times", made)
		}
		if took := time.Since(began); took < 90*time.Second || took > 110*time.Second {
			t.Errorf("it took %v", took)
		}
		waits := append(one.events, two.events...)
		if !slices.Contains(waits, "waiting for the machine that runs step 0") ||
			!slices.Contains(waits, "it has made the result") {
			t.Errorf("the progress is %q", waits)
		}
		if n := count(&m, "lease"); n > 60 {
			t.Errorf("%d requests for leases", n)
		}
		for i := range made {
			third := newBuilder(t, m.On(anyBlob{}), false)
			if third.step(cache.Key(fmt.Sprint(i)), 0) {
				t.Errorf("a third machine runs step %d", i)
			}
			third.end()
		}
	})
}

// TestLeaseEnds checks that a machine waits no longer for one that fails, stops, or whose step ends
// after its build.
func TestLeaseEnds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		stops  bool
		ends   func(b *builder)
		at     time.Duration // after this time
		within time.Duration
	}{
		{"the step fails", false, func(b *builder) { b.imports.Release("k") }, 10 * time.Second,
			15 * time.Second},
		{"the build ends", false, func(b *builder) { b.shared.Close() }, 10 * time.Second,
			15 * time.Second},
		{"the machine stops", true, func(*builder) {}, 0, remotecache.LeaseTime + 5*time.Second},
		{"the step takes long", false, func(b *builder) { b.publish("k") }, 30 * time.Minute,
			30*time.Minute + 5*time.Second},
		{"the step does not end", false, func(b *builder) { b.imports.Release("k") },
			100 * time.Minute, time.Hour + 5*time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := remotecachetest.Memory{Stopped: tt.stops}
				one, two := newBuilder(t, m.On(anyBlob{}), false),
					newBuilder(t, m.On(anyBlob{}), false)
				if one.imports.Lease(t.Context(), "k", "k") {
					t.Fatal("a result is found")
				}
				time.AfterFunc(tt.at, func() { tt.ends(one) })
				began := time.Now()
				found := two.imports.Lease(t.Context(), "k", "k")
				if took := time.Since(began); took > tt.within {
					t.Errorf("the other machine waits %v, want at most %v", took, tt.within)
				}
				if want := tt.name == "the step takes long"; found != want {
					t.Errorf("a result is found: %v", found)
				}
				two.has("waiting for the machine that runs k")
				asked := count(&m, "lease")
				two.imports.Lease(t.Context(), "another", "another")
				if got := count(&m, "lease") > asked; got != (tt.name != "the step does not end") {
					t.Errorf("the next step takes a lease: %v", got)
				}
				time.Sleep(2 * time.Hour)
				one.end()
				two.end()
			})
		})
	}
}

// TestLeasesOfTwo checks that two builds whose stages wait for each other end: while a step has a
// lease, it waits for no other one.
func TestLeasesOfTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m remotecachetest.Memory
		one, two := newBuilder(t, m.On(anyBlob{}), false), newBuilder(t, m.On(anyBlob{}), false)
		began := time.Now()
		var wg sync.WaitGroup
		for _, o := range []struct {
			b    *builder
			keys []cache.Key
		}{{one, []cache.Key{"a", "b"}}, {two, []cache.Key{"b", "a"}}} {
			var stages sync.WaitGroup
			stages.Go(func() { o.b.step(o.keys[0], 20*time.Second) })
			stages.Go(func() {
				time.Sleep(time.Second)
				o.b.step(o.keys[1], 20*time.Second)
			})
			wg.Go(func() {
				stages.Wait()
				o.b.end()
			})
		}
		wg.Wait()
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// noLeases is a store whose leases fail.
type noLeases struct{ remotecache.Store }

func (noLeases) Lease(context.Context, string) (io.Closer, error) {
	return nil, errors.New("501 Not Implemented")
}

// TestLeaseNot checks when no lease is taken.
func TestLeaseNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m remotecachetest.Memory
		readOnly := newBuilder(t, m.On(anyBlob{}), true)
		if readOnly.imports.Lease(t.Context(), "k", "k") || count(&m, "lease") != 0 {
			t.Error("a build that writes nothing takes a lease")
		}
		apart := newBuilder(t, m.On(anyBlob{}), false)
		apart.imports.Apart()
		if apart.imports.Lease(t.Context(), "k", "k") || count(&m, "lease") != 0 {
			t.Error("a build with other layers takes a lease")
		}
		first := newBuilder(t, m.On(anyBlob{}), false)
		first.step("k", 0)
		first.end()
		known := newBuilder(t, m.On(anyBlob{}), false)
		n := count(&m, "lease")
		if known.imports.Lease(t.Context(), "k", "k") || count(&m, "lease") != n {
			t.Error("a lease is taken although there are results")
		}
		known.shared.Reject(digest.FromString("b k")) // the layer is missing
		if known.imports.Lease(t.Context(), "k", "k") || count(&m, "lease") != n+1 {
			t.Error("no lease is taken if the result cannot be used")
		}
		known.end()
		broken := newBuilder(t, noLeases{m.On(anyBlob{})}, false)
		for _, key := range []cache.Key{"x", "y"} {
			if broken.imports.Lease(t.Context(), key, "k") {
				t.Error("a result is found")
			}
		}
		broken.has("warning: the cache at s3://bucket has no leases")
		if len(broken.events) != 1 {
			t.Errorf("the progress is %q", broken.events)
		}
		canceled, cancel := context.WithCancel(t.Context())
		holder, waiter := newBuilder(t, m.On(anyBlob{}), false),
			newBuilder(t, m.On(anyBlob{}), false)
		holder.imports.Lease(t.Context(), "z", "z")
		time.AfterFunc(time.Second, cancel)
		if waiter.imports.Lease(canceled, "z", "z") {
			t.Error("a result is found")
		}
		holder.end()
		waiter.end()
		if (*remotecache.Imports)(nil).Lease(t.Context(), "k", "k") {
			t.Error("a result is found without a cache")
		}
	})
}

// TestLeaseLateResult checks that a result is used that a machine has written, and whose lease it
// has ended, after this one has looked for it.
func TestLeaseLateResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m remotecachetest.Memory
		one, two := newBuilder(t, m.On(anyBlob{}), false), newBuilder(t, m.On(anyBlob{}), false)
		if len(two.imports.Find(t.Context(), "k")) > 0 {
			t.Fatal("a result is found")
		}
		one.step("k", 0)
		one.end()
		if !two.imports.Lease(t.Context(), "k", "k") ||
			len(two.imports.Find(t.Context(), "k")) != 1 {
			t.Error("the result is not found")
		}
		two.has()
		if n, r := count(&m, "lease"), count(&m, "release"); n != r {
			t.Errorf("%d leases, %d ended", n, r)
		}
	})
}
