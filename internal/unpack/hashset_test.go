package unpack

import (
	"math/rand/v2"
	"testing"
)

// TestHashSet compares a hashSet with a map.
func TestHashSet(t *testing.T) {
	var none *hashSet
	if none.has(0) || none.has(1) {
		t.Error("a nil set has hashes")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	s, want := &hashSet{}, map[uint64]bool{}
	for range 20_000 {
		// Few different low bits make many hashes want the same slots.
		h := rng.Uint64() & 0xffff_0000_0000_00ff
		if got := s.has(h); got != want[h] {
			t.Fatalf("has(%#x) = %t before it is added, want %t", h, got, want[h])
		}
		if rng.IntN(2) == 0 {
			s.add(h)
			want[h] = true
		}
	}
	s.add(0)
	want[0] = true
	for h := range want {
		if !s.has(h) {
			t.Errorf("has(%#x) = false after it was added", h)
		}
	}
	if used := len(want) - 1; s.n != used {
		t.Errorf("n = %d, want %d", s.n, used)
	}
}
