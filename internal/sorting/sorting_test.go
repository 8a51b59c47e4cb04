package sorting

import (
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

type pair struct{ key, place int }

func byKey(a, b pair) int { return cmp.Compare(a.key, b.key) }

// The order is that of package slices; for a stable sort, also among equal elements.
func TestSorted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []pair
		for i, key := range rapid.SliceOfN(rapid.IntRange(0, 9), 0, 100).Draw(t, "keys") {
			list = append(list, pair{key, i})
		}
		want := slices.Clone(list)
		slices.SortStableFunc(want, byKey)
		got := slices.Clone(list)
		StableFunc(got, byKey)
		if !slices.Equal(got, want) {
			t.Errorf("StableFunc gives %v, want %v", got, want)
		}
		got = slices.Clone(list)
		Func(got, byKey)
		if !slices.IsSortedFunc(got, byKey) {
			t.Errorf("Func gives %v", got)
		}
		slices.SortFunc(got, func(a, b pair) int { return cmp.Compare(a.place, b.place) })
		if !slices.Equal(got, list) {
			t.Errorf("Func changes the elements of %v to %v", list, got)
		}
	})
}
