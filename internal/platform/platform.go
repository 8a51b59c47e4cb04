package platform

import (
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	osPattern   = pattern(`^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.-]*)((?:\+[A-Za-z0-9_.-]+)*)\))?$`)
	wordPattern = pattern(`^[A-Za-z0-9_.-]+$`)

	knownOS = []string{"aix", "android", "darwin", "dragonfly", "freebsd", "hurd",
		"illumos", "ios", "js",
		"linux", "nacl", "netbsd", "openbsd", "plan9", "solaris", "windows", "zos"}
	knownArch = []string{"386", "amd64", "amd64p32", "arm", "armbe", "arm64",
		"arm64be", "loong64", "mips",
		"mipsle", "mips64", "mips64le", "mips64p32", "mips64p32le", "ppc",
		"ppc64", "ppc64le", "riscv",
		"riscv64", "s390", "s390x", "sparc", "sparc64", "wasm"}
)

// Host returns the platform of this machine.
func Host() ocispec.Platform {
	return Normalize(ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH})
}

// Parse reads os, arch, os/arch or os/arch/variant, where os may have a version and features as in
// "windows(10.0.17763)". Missing parts are taken from the host's platform. Other usual spellings
// (x86_64, aarch64, macos) are accepted.
func Parse(s string) (ocispec.Platform, error) {
	if s == "local" {
		return Host(), nil
	}
	parts := strings.Split(s, "/")
	m := osPattern().FindStringSubmatch(parts[0])
	if m == nil {
		return ocispec.Platform{},
			fmt.Errorf("%q is an invalid OS component of %q: OSAndVersion specifier component "+
				"must match %q", parts[0], s, osPattern())
	}
	for _, p := range parts[1:] {
		if !wordPattern().MatchString(p) {
			return ocispec.Platform{},
				fmt.Errorf(
					"%q is an invalid component of %q: platform specifier component must match %q",
					p, s, wordPattern())
		}
	}
	p := ocispec.Platform{OS: normalOS(m[1]), OSVersion: m[2]}
	if m[3] != "" {
		p.OSFeatures = strings.Split(m[3][1:], "+")
		slices.Sort(p.OSFeatures)
	}
	switch len(parts) {
	case 1:
		if slices.Contains(knownOS, p.OS) {
			p.Architecture, p.Variant = shortArch(runtime.GOARCH)
			return p, nil
		}
		p.Architecture, p.Variant = shortArch(parts[0])
		if !slices.Contains(knownArch, p.Architecture) {
			return ocispec.Platform{}, fmt.Errorf("%q: unknown operating system or architecture", s)
		}
		p.OS, p.OSVersion, p.OSFeatures = runtime.GOOS, "", nil
	case 2:
		p.Architecture, p.Variant = shortArch(parts[1])
	case 3:
		p.Architecture, p.Variant = normalArch(parts[1], parts[2])
		if p.Architecture == "arm64" && p.Variant == "" {
			p.Variant = DefaultVariant(p.Architecture)
		}
	default:
		return ocispec.Platform{}, fmt.Errorf("%q: cannot parse platform specifier", s)
	}
	return p, nil
}

// Normalize returns the usual spelling of a platform: the architecture has the spelling of GOARCH,
// and a variant only if there are several.
func Normalize(p ocispec.Platform) ocispec.Platform {
	p.OS = normalOS(p.OS)
	p.Architecture, p.Variant = normalArch(p.Architecture, p.Variant)
	return p
}

// Complete is like Normalize. A missing architecture is the one of this machine, like a missing
// operating system.
func Complete(p ocispec.Platform) ocispec.Platform {
	if p.Architecture == "" {
		p.Architecture = runtime.GOARCH
	}
	return Normalize(p)
}

// DefaultVariant returns the variant of an architecture (as GOARCH spells it) that a platform
// without a variant means; "" if the architecture has no variants.
func DefaultVariant(arch string) string {
	switch arch {
	case "amd64":
		return "v1"
	case "arm":
		return "v7"
	case "arm64":
		return "v8"
	}
	return ""
}

// Format writes a platform as os/arch[/variant], with version and
// features of the operating system in parentheses.
func Format(p ocispec.Platform) string {
	if p.OS == "" {
		return "unknown"
	}
	var b strings.Builder
	b.WriteString(p.OS)
	if p.OSVersion != "" || len(p.OSFeatures) > 0 {
		b.WriteString("(" + p.OSVersion)
		features := slices.Clone(p.OSFeatures)
		slices.Sort(features)
		for _, f := range features {
			b.WriteString("+" + f)
		}
		b.WriteByte(')')
	}
	b.WriteString(tail(p))
	return b.String()
}

// Short is like Format, without the version and the features of the operating system.
func Short(p ocispec.Platform) string {
	if p.OS == "" {
		return "unknown"
	}
	return p.OS + tail(p)
}

// Same reports whether two platforms are the same, whatever their spelling.
func Same(a, b ocispec.Platform) bool { return Format(Normalize(a)) == Format(Normalize(b)) }

// Predecessor returns the 32-bit architecture whose programs machines of a 64-bit one run as well;
// "" for none.
func Predecessor(arch string) string {
	switch arch {
	case "amd64":
		return "386"
	case "arm64":
		return "arm"
	}
	return ""
}

func tail(p ocispec.Platform) string {
	var s string
	for _, part := range []string{p.Architecture, p.Variant} {
		if part != "" {
			s += "/" + part
		}
	}
	return s
}

// pattern compiles a regular expression when it is first used.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

func normalOS(os string) string {
	switch os = strings.ToLower(os); os {
	case "":
		return runtime.GOOS
	case "macos":
		return "darwin"
	default:
		return os
	}
}

// shortArch is like normalArch for an architecture without a variant. It leaves out the default
// variant of arm too, as containerd does when it parses a platform.
func shortArch(arch string) (string, string) {
	arch, variant := normalArch(arch, "")
	return arch, unlessDefault(arch, variant)
}

func unlessDefault(arch, variant string) string {
	if variant == DefaultVariant(arch) {
		return ""
	}
	return variant
}

func normalArch(arch, variant string) (string, string) {
	arch, variant = strings.ToLower(arch), strings.ToLower(variant)
	switch arch {
	case "i386", "i686", "x86":
		return "386", ""
	case "x86_64", "x86-64", "amd64":
		return "amd64", unlessDefault("amd64", variant)
	case "aarch64", "arm64":
		switch variant {
		case "8", "v8.0":
			variant = "v8"
		case "9", "9.0", "v9.0":
			variant = "v9"
		}
		return "arm64", unlessDefault("arm64", variant)
	case "armhf":
		return "arm", DefaultVariant("arm")
	case "armel":
		return "arm", "v6"
	case "arm":
		switch variant {
		case "":
			variant = DefaultVariant(arch)
		case "5", "6", "7", "8":
			variant = "v" + variant
		}
	}
	return arch, variant
}
