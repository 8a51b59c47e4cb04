package remotecache

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/cache"
	digest "github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

func TestDocumentIsSorted(t *testing.T) {
	a, b := Record{Key: "a"}, Record{Key: "b", Layer: &Layer{Parent: "p", DiffID: "x"}}
	other := Record{Key: "b", Layer: &Layer{Parent: "q", DiffID: "x"}}
	plain, late := Record{Key: "b"}, Record{Key: "b", Created: time.Unix(9, 0)}
	for range 2 {
		one := Document{Records: []Record{other, late, b, a, plain, b, a, late}}
		one.Sort()
		if diff := cmp.Diff([]Record{a, plain, b, other}, one.Records); diff != "" {
			t.Errorf("sorted: %s", diff)
		}
	}
}

// TestDocumentOfAnyOrder adds the same records in two orders: stages run at the same time, and
// their steps end in any order.
func TestDocumentOfAnyOrder(t *testing.T) {
	word := rapid.SampledFrom([]string{"x", "y"})
	record := rapid.Custom(func(t *rapid.T) Record {
		r := Record{Key: cache.Key(word.Draw(t, "key")),
			Content: cache.Key(word.Draw(t, "content")),
			Created: time.Unix(rapid.Int64Range(1, 2).Draw(t, "created"), 0)}
		if rapid.Bool().Draw(t, "has a layer") {
			r.Layer = &Layer{Parent: digest.Digest(word.Draw(t, "parent")),
				DiffID: digest.Digest(word.Draw(t, "diffID")), Sealed: word.Draw(t, "sealed")}
			r.Layer.Descriptor.Digest = digest.Digest(word.Draw(t, "blob"))
		}
		return r
	})
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(record, 1, 8).Draw(t, "records")
		one := Document{Records: slices.Clone(list)}
		other := Document{Records: rapid.Permutation(list).Draw(t, "other order")}
		one.Sort()
		other.Sort()
		if diff := cmp.Diff(one, other); diff != "" {
			t.Fatalf("the documents differ: %s", diff)
		}
		type result struct {
			key    cache.Key
			parent digest.Digest
			diffID digest.Digest
		}
		resultOf := func(r Record) (id result) {
			id.key = r.Key
			if r.Layer != nil {
				id.parent, id.diffID = r.Layer.Parent, r.Layer.DiffID
			}
			return id
		}
		first, have := map[result]time.Time{}, map[result]bool{}
		for _, r := range list {
			if at, ok := first[resultOf(r)]; !ok || r.Created.Before(at) {
				first[resultOf(r)] = r.Created
			}
		}
		for _, r := range one.Records {
			id := resultOf(r)
			if at, ok := first[id]; have[id] || !ok || !r.Created.Equal(at) {
				t.Fatalf("the record %+v is there twice, is none of the list, or is not the first",
					r)
			}
			have[id] = true
		}
		if len(have) != len(first) {
			t.Fatalf("%d results, want %d", len(have), len(first))
		}
	})
}
