package suggest

import (
	"strings"
	"testing"
)

func TestClosest(t *testing.T) {
	options := []string{"build", "run", "images", "prune", "prune-image"}
	for _, tt := range []struct{ word, want string }{
		{"biuld", "build"}, {"bulid", "build"}, {"buil", "build"}, {"image", "images"},
		{"prun", "run"}, {"prunes", "prune"},
		{"run", ""}, {"nothing", ""}, {"", ""}, {"BUILD", ""}, {strings.Repeat("build", 1000), ""},
	} {
		if got := Closest(tt.word, options); got != tt.want {
			t.Errorf("Closest(%q) = %q, want %q", tt.word, got, tt.want)
		}
	}
	for _, tt := range []struct{ word, want string }{{"BIULD", "build"}, {"Run", ""},
		{"RNU", "run"}, {"", ""}} {
		if got := ClosestFold(tt.word, options); got != tt.want {
			t.Errorf("ClosestFold(%q) = %q, want %q", tt.word, got, tt.want)
		}
	}
}
