package ns

import (
	"strings"
	"testing"
)

// FuzzSubIDs checks that the ranges read from /etc/subuid are consecutive from 1 on, and that none
// exceeds the largest id.
func FuzzSubIDs(f *testing.F) {
	for _, text := range []string{"u:100000:65536\n", "1000:1:1\nu:5:0\nu:x:y\n",
		"u:4294967295:1\nu:4294967294:5\n", "u:1:4294967294\nu:1:4294967294\n",
		":::\nu:1\n", "u:-1:5\n"} {
		f.Add(text, "u", 1000)
	}
	f.Fuzz(func(t *testing.T, text, name string, uid int) {
		next := uint64(1)
		for _, r := range parseSubIDs(strings.NewReader(text), name, uid) {
			if uint64(r.Inside) != next || r.Count == 0 ||
				uint64(r.Outside)+uint64(r.Count) > 1<<32-1 {
				t.Errorf("%q: range %+v, next is %d", text, r, next)
			}
			next += uint64(r.Count)
		}
		if next > 1<<32-1 {
			t.Errorf("%q: ids up to %d", text, next)
		}
	})
}
