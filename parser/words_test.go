package parser

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParsePlatform(t *testing.T) {
	h := HostPlatform()
	tests := []struct {
		in   string
		want ocispec.Platform
		text string
	}{
		{"linux/amd64", ocispec.Platform{OS: "linux", Architecture: "amd64"}, "linux/amd64"},
		{"linux/x86_64", ocispec.Platform{OS: "linux", Architecture: "amd64"}, "linux/amd64"},
		{"Linux/AArch64", ocispec.Platform{OS: "linux", Architecture: "arm64"}, "linux/arm64"},
		{"linux/arm64/v8", ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"},
			"linux/arm64/v8"},
		{"linux/arm", ocispec.Platform{OS: "linux", Architecture: "arm"}, "linux/arm"},
		{"linux/arm/7", ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"},
			"linux/arm/v7"},
		{"linux/armel", ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"},
			"linux/arm/v6"},
		{"linux/amd64/v2", ocispec.Platform{OS: "linux", Architecture: "amd64", Variant: "v2"},
			"linux/amd64/v2"},
		{"macos/arm64", ocispec.Platform{OS: "darwin", Architecture: "arm64"}, "darwin/arm64"},
		{"windows(10.0.17763)/amd64", ocispec.Platform{OS: "windows", OSVersion: "10.0.17763",
			Architecture: "amd64"}, "windows(10.0.17763)/amd64"},
		{"windows(10.0+win32k+a)/amd64", ocispec.Platform{OS: "windows", OSVersion: "10.0",
			OSFeatures: []string{"a", "win32k"}, Architecture: "amd64"},
			"windows(10.0+a+win32k)/amd64"},
		{"386", ocispec.Platform{OS: h.OS, Architecture: "386"}, h.OS + "/386"},
		{"freebsd", ocispec.Platform{OS: "freebsd", Architecture: h.Architecture},
			"freebsd/" + h.Architecture},
		{"local", h, FormatPlatform(h)},
	}
	for _, tt := range tests {
		got, err := ParsePlatform(tt.in)
		if err != nil {
			t.Errorf("ParsePlatform(%q): %v", tt.in, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("ParsePlatform(%q) (-want +got):\n%s", tt.in, diff)
		}
		if text := FormatPlatform(got); text != tt.text {
			t.Errorf("FormatPlatform(%q) = %q, want %q", tt.in, text, tt.text)
		}
	}
	for _, bad := range []string{"", "linx", "linux/", "linux/a b", "a/b/c/d",
		"*/amd64", "linux(/amd64"} {
		if p, err := ParsePlatform(bad); err == nil {
			t.Errorf("ParsePlatform(%q) = %v, want an error", bad, p)
		}
	}
	if got := NormalizePlatform(ocispec.Platform{OS: "linux",
		Architecture: "arm"}).Variant; got != "v7" {
		t.Errorf("variant of linux/arm = %q, want v7", got)
	}
	if got := NormalizePlatform(ocispec.Platform{OS: "linux", Architecture: "arm64",
		Variant: "v8"}).Variant; got != "" {
		t.Errorf("variant of linux/arm64/v8 = %q, want none", got)
	}
}

func TestSourceKind(t *testing.T) {
	tests := []struct {
		in   string
		want Kind
		bad  bool
	}{
		{"a/b", Local, false},
		{"./x.git", Local, false},
		{"github.com/a/b", Local, false},
		{"file:///x", Local, false},
		{"s3://bucket/x.git", Local, false},
		{"http://h/x", HTTP, false},
		{"https://h/x.git/y", HTTP, false},
		{"https://h/x.git", Git, false},
		{"https://h/x.git#main:sub", Git, false},
		{"http://h/x.git?ref=v1", Git, false},
		{"git://h/x", Git, false},
		{"ssh://git@h/x.git", Git, false},
		{"git@h:a/b.git", Git, false},
		{"user@h:a?branch=b#refs/heads/b", Git, false},
		{"https://h/x.git?subdir=a#main:b", Git, true},
		{"https://h/x.git?ref=a#b", Git, true},
		{"https://h/x.git?tag=a&branch=b", Git, true},
		{"https://h/x.git?ref=a&ref=b", Git, true},
		{"https://h/x.git?submodules=maybe", Git, true},
		{"https://h/x.git?mtime=now", Git, true},
		{"https://h/x.git?commit=", Git, true},
	}
	for _, tt := range tests {
		got, err := SourceKind(tt.in)
		if got != tt.want || (err != nil) != tt.bad {
			t.Errorf("SourceKind(%q) = %v, %v, want %v, error %v", tt.in, got, err, tt.want, tt.bad)
		}
	}
}

func TestCheckChmod(t *testing.T) {
	for _, ok := range []string{"0", "755", "0644", "7777", "u=rwx", "u=rwX,go=rX", "+x",
		"a+rw,o-w", "g=u", "ug+s,+t", "u+r-w"} {
		if err := checkChmod(ok); err != nil {
			t.Errorf("checkChmod(%q) = %v", ok, err)
		}
	}
	for _, bad := range []string{"8", "10000", "-1", "rwx", "u=q", "u=rw,", "x+u", "0x1ff", "u"} {
		if checkChmod(bad) == nil {
			t.Errorf("checkChmod(%q) = nil", bad)
		}
	}
}

func TestCheckSignal(t *testing.T) {
	for _, ok := range []string{"SIGTERM", "term", "Kill", "9", "64", "-3", "SIGRTMIN",
		"RTMIN+15", "sigrtmax-14"} {
		if err := checkSignal(ok); err != nil {
			t.Errorf("checkSignal(%q) = %v", ok, err)
		}
	}
	for _, bad := range []string{"", "0", "SIG", "NOPE", "RTMIN+0", "RTMIN+16",
		"RTMAX-15", "TERM KILL", " "} {
		if checkSignal(bad) == nil {
			t.Errorf("checkSignal(%q) = nil", bad)
		}
	}
}

func TestResolvePath(t *testing.T) {
	tests := []struct {
		dir, p, os string
		keep       bool
		want       string
	}{
		{"/w", "a", "linux", true, "/w/a"},
		{"/w", "a/", "linux", true, "/w/a/"},
		{"/w", "./", "linux", true, "/w/"},
		{"/w", "../a/.", "linux", true, "/a/."},
		{"/w", "/b/../c", "linux", true, "/b/../c"},
		{"/w", "", "linux", false, "/w"},
		{"", "x", "linux", false, "/x"},
		{"rel", "x", "linux", false, "/rel/x"},
		{`\w`, `a\b\`, "windows", true, "/w/a/b/"},
		{`C:\w`, `c:\x`, "windows", false, "/x"},
	}
	for _, tt := range tests {
		got, err := resolvePath(tt.dir, tt.p, tt.os, tt.keep)
		if err != nil || got != tt.want {
			t.Errorf("resolvePath(%q, %q, %s) = %q, %v, want %q", tt.dir, tt.p,
				tt.os, got, err, tt.want)
		}
	}
	for _, bad := range []string{"D:", `D:\x`, `\\server\x`} {
		if got, err := resolvePath("/", bad, "windows", false); err == nil {
			t.Errorf("resolvePath(%q, windows) = %q, want an error", bad, got)
		}
	}
	for in, want := range map[string]string{"/a/../b/": "/b/", "/./.": "/.", "/": "/",
		"//a//b": "/a/b", "/x/.": "/x/."} {
		if got := cleanDest(in); got != want {
			t.Errorf("cleanDest(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestEnvOrder(t *testing.T) {
	e := newEnv([]string{"A=1", "B=2", "AB=3"})
	next := e.set("A", "x=y").set("C", "")
	if want := []string{"B=2", "AB=3", "A=x=y", "C="}; !cmp.Equal(next.kv, want) {
		t.Errorf("env = %q, want %q: what is set last is last", next.kv, want)
	}
	if v, ok := e.Get("A"); v != "1" || !ok {
		t.Errorf("the first env has A=%q, want it unchanged", v)
	}
	if _, ok := next.del("A").Get("A"); ok {
		t.Error("A is still there after del")
	}
	if got, want := replaceEnv([]string{"A=1", "B=2"}, "A", "A=3"),
		[]string{"A=3", "B=2"}; !cmp.Equal(got, want) {
		t.Errorf("replaceEnv = %q, want %q: a configuration keeps its order", got, want)
	}
}
