package main

import (
	"testing"

	"github.com/layerbuild/layerbuild/internal/units"
)

// FuzzFlags checks that values of flags are accepted or refused without a panic, and that sizes are
// never negative.
func FuzzFlags(f *testing.F) {
	for _, s := range []string{"", "64m", "-1", "1e9", "9999999999g", "nofile=1:2", "a=b",
		"host:1.2.3.4", "host=::1", "id=s,src=f", "id=,env=", "linux/arm/v7", "index:a=b",
		"manifest[linux/amd64]:a=b", "10g,5h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := units.ParseDocker(s); err == nil && n < 0 {
			t.Errorf("units.ParseDocker(%q) = %d", s, n)
		}
		parseUlimit(s)
		parseHost(s)
		parseSecret(s, func(string) string { return "" })
		parseAnnotation(s)
		parsePlatform(s)
		parsePolicy(s)
	})
}
