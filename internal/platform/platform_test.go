package platform

import (
	"runtime"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// spellings are lists of spellings of one platform each.
var spellings = [][]string{
	{"linux/arm64", "linux/arm64/v8", "linux/arm64/8", "linux/aarch64",
		"LINUX/ARM64", "linux/arm64/v8.0"},
	{"linux/arm64/v9", "linux/arm64/9"},
	{"linux/arm", "linux/arm/v7", "linux/arm/7", "linux/armhf"},
	{"linux/arm/v6", "linux/arm/6", "linux/armel"},
	{"linux/amd64", "linux/x86_64", "linux/x86-64", "linux/amd64/v1"},
	{"linux/amd64/v2"},
	{"linux/386", "linux/i386", "linux/i686", "linux/x86"},
	{"darwin/arm64", "macos/arm64"},
	{"windows/amd64"},
	{"windows(10.0.17763)/amd64"},
	{"windows(10.0.17763+b+a)/amd64", "windows(10.0.17763+a+b)/amd64"},
}

func TestSame(t *testing.T) {
	type spelling struct {
		text string
		of   int
		p    ocispec.Platform
	}
	var all []spelling
	for i, list := range spellings {
		for _, text := range list {
			p, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, spelling{text, i, p})
			if p = Normalize(p); !Same(p, Normalize(p)) || Format(p) != Format(Normalize(p)) {
				t.Errorf("%s: Normalize of its result gives another", text)
			}
		}
	}
	for _, a := range all {
		for _, b := range all {
			if got := Same(a.p, b.p); got != (a.of == b.of) {
				t.Errorf("Same(%s, %s) = %t", a.text, b.text, got)
			}
		}
	}
	if host := Host(); host.OS != runtime.GOOS || Format(host) != Format(Normalize(host)) {
		t.Errorf("Host = %v", host)
	}
}

// asContainerd has platforms as containerd's package platforms (v1.0.0-rc.5) prints them after its
// Parse, and after its Normalize of that.
var asContainerd = []struct{ text, parsed, normalized string }{
	{"linux/amd64", "linux/amd64", "linux/amd64"},
	{"linux/x86_64", "linux/amd64", "linux/amd64"},
	{"linux/amd64/v1", "linux/amd64", "linux/amd64"},
	{"linux/amd64/v2", "linux/amd64/v2", "linux/amd64/v2"},
	{"linux/arm", "linux/arm", "linux/arm/v7"},
	{"linux/arm/v7", "linux/arm/v7", "linux/arm/v7"},
	{"linux/arm/7", "linux/arm/v7", "linux/arm/v7"},
	{"linux/armhf", "linux/arm", "linux/arm/v7"},
	{"linux/armel", "linux/arm/v6", "linux/arm/v6"},
	{"linux/arm/v6", "linux/arm/v6", "linux/arm/v6"},
	{"linux/arm/v5", "linux/arm/v5", "linux/arm/v5"},
	{"linux/arm/v8", "linux/arm/v8", "linux/arm/v8"},
	{"linux/arm/8", "linux/arm/v8", "linux/arm/v8"},
	{"linux/arm64", "linux/arm64", "linux/arm64"},
	{"linux/aarch64", "linux/arm64", "linux/arm64"},
	{"linux/arm64/v8", "linux/arm64/v8", "linux/arm64"},
	{"linux/arm64/8", "linux/arm64/v8", "linux/arm64"},
	{"linux/arm64/v8.1", "linux/arm64/v8.1", "linux/arm64/v8.1"},
	{"linux/arm64/v9", "linux/arm64/v9", "linux/arm64/v9"},
	{"linux/arm64/9.0", "linux/arm64/v9", "linux/arm64/v9"},
	{"linux/386", "linux/386", "linux/386"},
	{"linux/i386", "linux/386", "linux/386"},
	{"linux/i386/x", "linux/386", "linux/386"},
	{"linux/ppc64le", "linux/ppc64le", "linux/ppc64le"},
	{"linux/riscv64", "linux/riscv64", "linux/riscv64"},
	{"arm", "linux/arm", "linux/arm/v7"},
	{"armhf", "linux/arm", "linux/arm/v7"},
	{"armel", "linux/arm/v6", "linux/arm/v6"},
	{"aarch64", "linux/arm64", "linux/arm64"},
	{"s390x", "linux/s390x", "linux/s390x"},
	{"macos/aarch64", "darwin/arm64", "darwin/arm64"},
	{"linux(+b+a)/arm", "linux(+a+b)/arm", "linux(+a+b)/arm/v7"},
	{"windows/amd64", "windows/amd64", "windows/amd64"},
	{"Windows(10.0.17763)/AMD64", "windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"},
	{"windows(10.0.17763+win32k)/amd64", "windows(10.0.17763+win32k)/amd64",
		"windows(10.0.17763+win32k)/amd64"},
}

func TestAsContainerd(t *testing.T) {
	for _, tt := range asContainerd {
		p, err := Parse(tt.text)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.text, err)
			continue
		}
		if parsed, normal := Format(p), Format(Normalize(p)); parsed != tt.parsed ||
			normal != tt.normalized {
			t.Errorf("Parse(%q) is %s, normalized %s, want %s and %s", tt.text, parsed, normal,
				tt.parsed, tt.normalized)
		}
	}
}

// TestDefaultVariant checks that an architecture and its default variant are the same platform, and
// that a missing architecture is this machine's only for Complete.
func TestDefaultVariant(t *testing.T) {
	variants := map[string]string{"amd64": "v1", "arm": "v7", "arm64": "v8", "386": ""}
	for arch, want := range variants {
		got := DefaultVariant(arch)
		with := ocispec.Platform{OS: "linux", Architecture: arch, Variant: got}
		if got != want || !Same(with, ocispec.Platform{OS: "linux", Architecture: arch}) {
			t.Errorf("DefaultVariant(%q) = %q, want %q", arch, got, want)
		}
	}
	if got := Complete(ocispec.Platform{}); Format(got) != Format(Host()) {
		t.Errorf("Complete of nothing: %s, want %s", Format(got), Format(Host()))
	}
	if got := Normalize(ocispec.Platform{OS: "linux"}).Architecture; got != "" {
		t.Errorf("Normalize has added the architecture %s", got)
	}
}
