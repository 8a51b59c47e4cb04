package reference

import (
	"strings"
	"testing"

	"github.com/distribution/reference"
)

const (
	hex64  = "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa"
	sha256 = "sha256:" + hex64
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		in   string
		want Name
	}{
		{"busybox", Name{Domain: "docker.io", Path: "library/busybox"}},
		{"busybox:1.37", Name{Domain: "docker.io", Path: "library/busybox", Tag: "1.37"}},
		{"user/app", Name{Domain: "docker.io", Path: "user/app"}},
		{"index.docker.io/busybox", Name{Domain: "docker.io", Path: "library/busybox"}},
		{"localhost/app", Name{Domain: "localhost", Path: "app"}},
		{"localhost:5000/a/b:t@" + sha256, Name{Domain: "localhost:5000", Path: "a/b",
			Tag: "t", Digest: sha256}},
		{"[::1]:5000/a__b/c--d", Name{Domain: "[::1]:5000", Path: "a__b/c--d"}},
		{"Host/app", Name{Domain: "Host", Path: "app"}},
		{"a_b.c/d", Name{Path: "a_b.c/d"}},
	} {
		got, err := Parse(test.in)
		if err != nil || got != test.want {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", test.in, got, err, test.want)
		}
	}
}

func TestFull(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"busybox", "docker.io/library/busybox:latest"},
		{"busybox:1", "docker.io/library/busybox:1"},
		{"a/b", "docker.io/a/b:latest"},
		{"localhost/b", "localhost/b:latest"},
		{"localhost:5000/b:x", "localhost:5000/b:x"},
		{"index.docker.io/a", "docker.io/library/a:latest"},
		{"[::1]:5000/b", "[::1]:5000/b:latest"},
		{"a@" + sha256, "docker.io/library/a@" + sha256},
		{"a:1@" + sha256, "docker.io/library/a@" + sha256},
		{"", ""}, {"A", ""}, {"a:b:c", ""}, {"a@sha256:1", ""}, {hex64, ""},
	} {
		got, err := Full(test.in)
		if got.String() != test.want || (err == nil) != (test.want != "") {
			t.Errorf("Full(%q) = %q, %v, want %q", test.in, got, err, test.want)
		}
	}
}

// names are valid and invalid names of all kinds.
var names = []string{
	"", "/", ":", "@", "a", "a:", "a:b", "a:-b", "a:.b", "a:_b", "a:b:c", "a@", "a@b", "a/",
	"/a", "a//b", "a/b/c",
	"A", "a/B", "A/b", "A.b/c", "a:B", "a.b/c", "a.b:80/c", "a.b:/c", "a.b:x/c", "a..b/c", "a-.b/c",
	"-a.b/c", "a--b.c/d",
	"a_b", "a__b", "a___b", "a.b", "a..b", "a-b", "a--b", "a_.b", "_a", "a_", "a-", ".a", "a b",
	"a\nb", "a\n", "é", "K", "aK/b",
	"localhost/a", "localhost:5000/a", "LOCALHOST/a", "docker.io/a", "docker.io/a/b",
	"docker.io/library/a", "docker.io/library/a/b",
	"index.docker.io/a", "index.docker.io/library/a:b", "[::1]/a", "[::1]:80/a", "[]:80/a",
	"[:80/a", "::1/a", "[g]/a", "[::1]:/a", "[::1]x/a",
	"a_b.c/d", "a_b:80/c", "a_b.c/d:e@" + sha256, "x:" + strings.Repeat("t", 128),
	"x:" + strings.Repeat("t", 129),
	strings.Repeat("a", 255), strings.Repeat("a", 247), strings.Repeat("a", 248),
	"h.i/" + strings.Repeat("a", 255), "h.i/" + strings.Repeat("a", 256),
	hex64, hex64 + ":a", hex64[1:], strings.ToUpper(hex64), "a/" + hex64,
	"a@" + sha256, "a:b@" + sha256, "a@" + sha256 + "@" + sha256, "a@" + sha256 + ":b",
	"a@" + sha256[:20], "a@sha256:" + strings.ToUpper(hex64),
	"a@SHA256:" + hex64, "h.i/a:t@SHA256:" + hex64, "a:t@sha512:" + hex64, "a@md5:" + hex64[:32],
	"a@md5:" + hex64[:31], "a@a+b:" + hex64, "a@a++b:" + hex64, "a@a.1:" + hex64,
	"a@1a:" + hex64, "a@a-b_c.d+e:" + hex64, "a@a-:" + hex64, "a@:" + hex64, "a@é:" + hex64,
	"a@sha256:" + hex64 + "\n", "\xff", "a/\xff", "h.i/a:T\xff",
}

func TestSame(t *testing.T) {
	for _, s := range names {
		same(t, s)
	}
}

func FuzzSame(f *testing.F) {
	for _, s := range names {
		f.Add(s)
	}
	f.Fuzz(same)
}

// same compares all results for a name with those of distribution/reference.
func same(t *testing.T, s string) {
	t.Helper()
	got, err := Parse(s)
	want, wantErr := reference.ParseNormalizedNamed(s)
	if text(err) != text(wantErr) {
		t.Fatalf("Parse(%q): %v, want %v", s, err, wantErr)
	}
	if err == nil {
		var n Name
		n.Domain, n.Path = reference.Domain(want), reference.Path(want)
		if tagged, ok := want.(reference.Tagged); ok {
			n.Tag = tagged.Tag()
		}
		if digested, ok := want.(reference.Digested); ok {
			n.Digest = digested.Digest()
		}
		if got != n {
			t.Errorf("Parse(%q) = %+v, want %+v", s, got, n)
		}
		for _, form := range []struct{ what, got, want string }{
			{"String", got.String(), want.String()},
			{"Repository", got.Repository(), reference.TrimNamed(want).String()},
			{"Familiar", got.Familiar(), reference.FamiliarString(want)},
			{"OrLatest", got.OrLatest().String(), reference.TagNameOnly(want).String()},
		} {
			if form.got != form.want {
				t.Errorf("%s of %q = %q, want %q", form.what, s, form.got, form.want)
			}
		}
	}
	_, err = ParseCanonical(s)
	_, wantErr = reference.ParseNamed(s)
	if text(err) != text(wantErr) {
		t.Errorf("ParseCanonical(%q): %v, want %v", s, err, wantErr)
	}
	_, wantErr = reference.WithName(s)
	if err := CheckRepository(s); text(err) != text(wantErr) {
		t.Errorf("CheckRepository(%q): %v, want %v", s, err, wantErr)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Parse("docker.io/library/busybox:latest")
	}
}
