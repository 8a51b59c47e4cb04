package source

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerbuild/layerbuild/internal/fileentry"
)

// All returns what was added, and entries that are added later do not change lists that were
// returned before.
func TestEntries(t *testing.T) {
	var want []fileentry.Entry
	for i := range 5000 {
		want = append(want,
			fileentry.Entry{Path: strings.Repeat("d", i%300) + "/\xff", Size: int64(i),
				MtimeNs: int64(i) * 1e18, Mode: uint32(i)},
			fileentry.Entry{Path: strings.Repeat("d", i%300), Size: math.MaxInt64,
				MtimeNs: math.MinInt64, Mode: math.MaxUint32},
			fileentry.Entry{Path: "."},
		)
	}
	want = append(want, fileentry.Entry{Path: strings.Repeat("x/", lastChunk),
		MtimeNs: math.MaxInt64}, fileentry.Entry{})
	var list Entries
	for i, e := range want {
		if i == 7 {
			if diff := cmp.Diff(want[:7], slices.Collect(list.All())); diff != "" {
				t.Errorf("seven entries (-want +got):\n%s", diff)
			}
		}
		list.add([]byte(e.Path), e)
	}
	got := slices.Collect(list.All())
	if list.Len() != len(want) || len(got) != len(want) {
		t.Fatalf("%d entries came out, Len is %d, want %d", len(got), list.Len(), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("entry %d is %+v, want %+v", i, got[i], want[i])
		}
	}
	for range list.All() {
		break
	}
	if !slices.Equal(list.List(), want) {
		t.Error("List returns other entries than All")
	}
	if n := len(slices.Collect(new(Entries).All())); n != 0 {
		t.Errorf("an empty list has %d entries", n)
	}
	if l := new(Entries).List(); l == nil || len(l) != 0 {
		t.Errorf("List of an empty list is %#v, want an empty slice", l)
	}
}
