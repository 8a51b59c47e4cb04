package platform

import "testing"

// FuzzPlatform checks that Format prints a parsed platform in a form that Parse reads as the same
// platform.
func FuzzPlatform(f *testing.F) {
	for _, s := range []string{"linux/amd64", "linux", "arm64", "linux/arm/v7", "linux/arm64/v8",
		"windows(10.0.17763)/amd64",
		"windows(10.0.17763+win32k)/amd64", "darwin/x86_64", "macos/aarch64", "linux/386", "local",
		"a/b/c/d", "linux(+b+a)/arm", "/", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(s)
		if err != nil {
			return
		}
		if p.OS == "" || p.Architecture == "" {
			t.Fatalf("Parse(%q) = %+v, want an operating system and an architecture", s, p)
		}
		again, err := Parse(Format(p))
		if err != nil {
			t.Fatalf("Parse(%q) = %+v, printed as %q: %v", s, p, Format(p), err)
		}
		if Format(Normalize(again)) != Format(Normalize(p)) {
			t.Errorf("Parse(%q) = %+v, and printed and parsed again %+v", s, p, again)
		}
	})
}
