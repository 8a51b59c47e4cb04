package main

import (
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/state"
)

// TestRegexpFilters compares parts with regular expressions of du and prune.
func TestRegexpFilters(t *testing.T) {
	parts := []state.Part{{Kind: state.PartMount, ID: "AB12"},
		{Kind: state.PartSnapshot, ID: "00ff"}, {Kind: state.PartBlob, ID: "sha256:00aa"},
		{Kind: state.PartImage, ID: "sha256:11bb", Images: []string{"docker.io/library/app:v1"}}}
	for _, tt := range []struct {
		filters []string
		want    string // the index of each part that matches
	}{
		{[]string{"type~=^exec"}, "0"},
		{[]string{"type~=regular|cachemount"}, "012"},
		{[]string{"type~=^source"}, ""},
		{[]string{"kind~=^[bm]"}, "02"},
		{[]string{"id~=^00"}, "12"},
		{[]string{"id~=^sha256:"}, "23"},
		{[]string{"image~=^app:v"}, "3"},
		{[]string{"image~=^docker.io/.*v1$"}, "3"},
		{[]string{"id~=0", "kind=snapshot", "kind=image"}, "1"},
		{[]string{"id~=0", "id~=f"}, "1"},
		{[]string{"id~=0", "id!=00f"}, "2"},
		{[]string{"kind~=.", "kind=blob"}, "2"},
	} {
		var filters []partFilter
		for _, s := range tt.filters {
			f, err := parsePartFilter(s, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			filters = append(filters, f)
		}
		keep, got := matchesParts(filters), ""
		for i, p := range parts {
			if keep(p) {
				got += string(rune('0' + i))
			}
		}
		if got != tt.want {
			t.Errorf("%q: parts %q, want %q", tt.filters, got, tt.want)
		}
	}
}
