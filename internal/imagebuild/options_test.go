package imagebuild

import (
	"testing"
	"time"
)

func TestEpoch(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int64
		fail bool
	}{{"", 0, false}, {"0", 0, false}, {"1700000000", 1700000000, false},
		{"yesterday", 0, true}, {"1.5", 0, true}} {
		got, err := Epoch(c.in)
		if (err != nil) != c.fail {
			t.Errorf("Epoch(%q): error %v", c.in, err)
		}
		if err == nil && c.in != "" && (got == nil || got.Unix() != c.want ||
			got.Location() != time.UTC) {
			t.Errorf("Epoch(%q) = %v, want %d", c.in, got, c.want)
		}
		if c.in == "" && got != nil {
			t.Errorf("Epoch of nothing = %v, want nil", got)
		}
	}
}
