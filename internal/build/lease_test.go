package build_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/remotecache/remotecachetest"
)

// leasing returns options for a build that uses a cache.
func leasing(b *bench, m *remotecachetest.Memory) imagebuild.Options {
	at := int64(1_000_000_000)
	return imagebuild.Options{Image: imagebuild.ImageOptions{Epoch: &at},
		Cache: imagebuild.CacheOptions{Shared: []imagebuild.SharedCache{{
			Place: remotecache.SharedPlace{Ref: "s3://bucket"}, Store: m.On(b.state.Store)}}}}
}

// TestLeases builds a Dockerfile on four machines at the same time. Each command runs on one of
// them, and the images are equal.
func TestLeases(t *testing.T) {
	const dockerfile = "FROM scratch AS one\nRUN write a 1\nRUN write b 2\n" +
		"FROM scratch\nCOPY --from=one /a /a\nRUN write c 3\nRUN write d 4\n"
	var m remotecachetest.Memory
	var mu sync.Mutex
	var all []string
	digests := map[string]bool{}
	var wg sync.WaitGroup
	for range 4 {
		b := newBench(t, "copy")
		b.real()
		b.exec.fail = func(string) error { // a step takes some time
			time.Sleep(100 * time.Millisecond)
			return nil
		}
		wg.Go(func() {
			res, ran, err := b.build(t.Context(), dockerfile, leasing(b, &m))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			if w := b.warnings(); len(w) > 0 {
				t.Errorf("warnings %q", w)
			}
			all = append(all, ran...)
			digests[res.Root.Digest.String()] = true
		})
	}
	wg.Wait()
	all = slices.DeleteFunc(all, func(s string) bool { return s[0] != 'w' })
	slices.Sort(all)
	if want := []string{"write a 1", "write b 2", "write c 3", "write d 4"}; !slices.Equal(all,
		want) {
		t.Errorf("ran %q, want each once", all)
	}
	if len(digests) != 1 {
		t.Errorf("the images are %v", digests)
	}
	checkLeases(t, &m)
}

// checkLeases checks that no lease is left.
func checkLeases(t *testing.T, m *remotecachetest.Memory) {
	t.Helper()
	b := newBench(t, "copy")
	for _, line := range m.Log() {
		if name, ok := cutLease(line); ok {
			l, err := m.On(b.state.Store).(remotecache.Leaser).Lease(t.Context(), name)
			if l == nil || err != nil {
				t.Errorf("the lease %s is left: %v", name, err)
				continue
			}
			l.Close()
		}
	}
}

func cutLease(line string) (string, bool) {
	const operation = "lease "
	if len(line) < len(operation) || line[:len(operation)] != operation {
		return "", false
	}
	return line[len(operation):], true
}

// TestLeaseOfFailure builds a Dockerfile whose step fails on one machine, while another one waits
// for it, and whose build is canceled on a third one. The leases end with the step or the build.
func TestLeaseOfFailure(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"fails", "mark x; write a 1; fail 3"}, {"is canceled", "mark x; wait"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dockerfile := "FROM scratch\nRUN " + tt.script + "\n"
			var m remotecachetest.Memory
			first, second := newBench(t, "copy"), newBench(t, "copy")
			first.real()
			second.real()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			hold := make(chan struct{})
			first.exec.fail = func(string) error {
				<-hold
				return nil
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, _, err := first.build(ctx, dockerfile, leasing(first, &m)); err == nil {
					t.Error("the build succeeded")
				}
			})
			for !slices.ContainsFunc(m.Log(), func(l string) bool {
				_, ok := cutLease(l)
				return ok
			}) {
				time.Sleep(time.Millisecond)
			}
			second.exec.fail = func(string) error { return context.Canceled }
			wg.Go(func() {
				if _, _, err := second.build(t.Context(), dockerfile,
					leasing(second, &m)); err == nil {
					t.Error("the other build succeeded")
				}
			})
			for waits := false; !waits; time.Sleep(time.Millisecond) {
				second.mu.Lock()
				waits = slices.ContainsFunc(second.events, func(e event.Event) bool {
					s, ok := e.(event.Start)
					return ok && len(s.Name) > 12 && s.Name[:12] == "waiting for "
				})
				second.mu.Unlock()
			}
			close(hold)
			if tt.name == "is canceled" {
				<-first.exec.began("x")
				cancel()
			}
			wg.Wait()
			checkLeases(t, &m)
		})
	}
}

// TestLeaseOfOtherLayers lets a machine wait for another one that has other layers below the step.
// The result cannot be used, the step runs, and the later steps do not wait.
func TestLeaseOfOtherLayers(t *testing.T) {
	const base = "FROM scratch\nRUN write a 1\n"
	const dockerfile = base + "RUN write b 2\nRUN write c 3\n"
	var m remotecachetest.Memory
	first, second := newBench(t, "copy"), newBench(t, "copy")
	first.real()
	second.real()
	for _, b := range []*bench{first, second} {
		// Without the cache each machine makes its own layer, with another time.
		at := int64(1_000_000_000)
		if b == second {
			at++
		}
		o := imagebuild.Options{Image: imagebuild.ImageOptions{Epoch: &at}}
		b.must(base, o)
	}
	running := make(chan struct{})
	first.exec.fail = func(name string) error {
		if name == "write b 2" {
			close(running)
			time.Sleep(300 * time.Millisecond)
		}
		return nil
	}
	epoch := func(b *bench, at int64) imagebuild.Options {
		o := leasing(b, &m)
		o.Image.Epoch = &at
		return o
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, _, err := first.build(t.Context(), dockerfile,
			epoch(first, 1_000_000_000)); err != nil {
			t.Error(err)
		}
	})
	<-running
	_, ran := second.must(dockerfile, epoch(second, 1_000_000_001))
	second.want("the other machine", ran, "write b 2", "write c 3")
	wg.Wait()
	checkLeases(t, &m)
}
