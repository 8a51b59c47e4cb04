package main

import (
	"testing"
	"time"
)

// small is a simulation whose results can be checked by hand.
func small() *simulation {
	return &simulation{machines: 4, images: 2, packages: 20, touch: 0.1, commits: 10,
		interval: 10 * time.Minute, latency: 20 * time.Millisecond, bandwidth: 1e9, link: 1e8,
		rate: 1000, seed: 1}
}

// TestSimulate checks the simulation against numbers that follow from its description.
func TestSimulate(t *testing.T) {
	plain := small().run()
	if len(plain.times) != 20 || plain.steps != 200 {
		t.Errorf("%d builds with %d steps, want 20 with 200", len(plain.times), plain.steps)
	}
	for key, n := range plain.everRan {
		// Two builds begin at once. They have the first two stages in common.
		if n > 2 {
			t.Errorf("%s ran %d times", key, n)
		}
	}
	leased := small()
	leased.lease = true
	for key, n := range leased.run().everRan {
		if n != 1 {
			t.Errorf("with leases %s ran %d times", key, n)
		}
	}
	without := small()
	without.noCache = true
	w := without.run()
	if w.hits != 0 || w.up != 0 {
		t.Errorf("without a cache there are %d hits, and %.0f bytes are written", w.hits, w.up)
	}
	if sum(plain.times) >= sum(w.times) {
		t.Errorf("builds take %.0f s with a cache, and %.0f s without", sum(plain.times),
			sum(w.times))
	}
	// A build of an image that has not changed reads the hint, and moves nothing else.
	same := small()
	same.touch, same.commits = 0, 2
	w = same.run()
	if last := w.times[len(w.times)-2:]; last[0] > 1 || last[1] > 1 {
		t.Errorf("builds without changes take %v s", last)
	}
}

func sum(list []float64) (all float64) {
	for _, v := range list {
		all += v
	}
	return all
}

// TestSharedBandwidth checks the time of transfers that share a link.
func TestSharedBandwidth(t *testing.T) {
	w := &world{s: &simulation{bandwidth: 100, link: 80}}
	var ends []float64
	for _, bytes := range []float64{100, 200} {
		w.begin(func(yield func(wait) bool) { yield(wait{bytes: bytes}) },
			func() { ends = append(ends, w.now) })
	}
	for len(w.timers)+len(w.transfers) > 0 {
		w.advance()
	}
	// Both get 50 bytes a second for 2 s. Then the second one gets 80 for the other 100 bytes.
	if len(ends) != 2 || ends[0] != 2 || ends[1] != 3.25 {
		t.Errorf("the transfers end at %v, want 2 and 3.25", ends)
	}
}
