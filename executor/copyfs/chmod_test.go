package copyfs

import "testing"

func TestModeChange(t *testing.T) {
	tests := []struct {
		change string
		mode   uint32
		dir    bool
		want   uint32
	}{
		{"755", 0, false, 0o755}, {"0644", 0o4777, false, 0o644}, {"4755", 0o644, false, 0o4755},
		{"0", 0o777, false, 0},
		{"u+x", 0o644, false, 0o744}, {"+x", 0o644, false, 0o755}, {"a-w", 0o666, false, 0o444},
		{"go=", 0o755, false, 0o700},
		{"u=rwx,go=rX", 0o600, false, 0o755}, {"u=rw,go=rX", 0o640, false, 0o644},
		{"go=rX", 0o600, true, 0o655}, {"a+X", 0o644, false, 0o644}, {"a+X", 0o654, false, 0o755},
		{"g=u", 0o740, false, 0o770}, {"o=g", 0o750, false, 0o755}, {"u+s", 0o755, false, 0o4755},
		{"g+s", 0o755, true, 0o2755}, {"ug-s", 0o6755, false, 0o755}, {"+t", 0o777, true, 0o1777},
		{"o+t", 0o777, true, 0o1777},
		{"u=rwx", 0o4644, false, 0o744}, {"u=rwx", 0o4644, true, 0o4744},
		{"u+x-w", 0o644, false, 0o544}, {"a=", 0o7777, false, 0},
	}
	for _, tt := range tests {
		c, err := parseMode(tt.change)
		if err != nil {
			t.Errorf("parseMode(%q): %v", tt.change, err)
			continue
		}
		if got := c.apply(tt.mode, tt.dir); got != tt.want {
			t.Errorf("%s of %o (directory %v) = %o, want %o", tt.change, tt.mode,
				tt.dir, got, tt.want)
		}
	}
	for _, bad := range []string{"", "64a", "10000", "99", "u", "u+z", "x+r", "u+x,", ",", "rwx"} {
		if _, err := parseMode(bad); err == nil {
			t.Errorf("parseMode(%q): no error", bad)
		}
	}
}
