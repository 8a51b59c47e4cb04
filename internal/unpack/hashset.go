package unpack

// hashSet is a set of hashes. A map[uint64]struct{} takes 16 bytes a slot, and 5,000,000 names of a
// layer took 341 MiB with it.
type hashSet struct {
	slots []uint64 // 0 is an empty slot
	n     int      // the number of used slots
	zero  bool     // the set has the hash 0
}

// add adds h, which is random in its low bits.
func (s *hashSet) add(h uint64) {
	if h == 0 {
		s.zero = true
		return
	}
	if 4*s.n >= 3*len(s.slots) {
		s.grow()
	}
	if s.insert(h) {
		s.n++
	}
}

// has reports whether the set has h. It is false for a nil set.
func (s *hashSet) has(h uint64) bool {
	if s == nil || h == 0 {
		return s != nil && s.zero
	}
	if len(s.slots) == 0 {
		return false
	}
	return s.slots[s.find(h)] == h
}

// empty reports whether the set has no hash. It is true for a nil set.
func (s *hashSet) empty() bool { return s == nil || s.n == 0 && !s.zero }

// find returns the slot with h, or the empty slot in which to put it.
func (s *hashSet) find(h uint64) int {
	mask := len(s.slots) - 1
	i := int(h) & mask
	for s.slots[i] != 0 && s.slots[i] != h {
		i = (i + 1) & mask
	}
	return i
}

// insert puts h into its slot, and reports whether the set did not have it.
func (s *hashSet) insert(h uint64) bool {
	i := s.find(h)
	if s.slots[i] == h {
		return false
	}
	s.slots[i] = h
	return true
}

// grow doubles the number of slots, which stays a power of two.
func (s *hashSet) grow() {
	old := s.slots
	s.slots = make([]uint64, max(64, 2*len(old)))
	for _, h := range old {
		if h != 0 {
			s.insert(h)
		}
	}
}
