package parser

import (
	"github.com/layerbuild/layerbuild/internal/platform"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// HostPlatform returns the platform of this machine.
func HostPlatform() ocispec.Platform { return platform.Host() }

// ParsePlatform parses os, arch, os/arch or os/arch/variant: see platform.Parse.
func ParsePlatform(s string) (ocispec.Platform, error) { return platform.Parse(s) }

// NormalizePlatform returns the usual spelling of a platform.
func NormalizePlatform(p ocispec.Platform) ocispec.Platform { return platform.Normalize(p) }

// FormatPlatform formats a platform as os/arch[/variant], with version and features of the
// operating system in parentheses.
func FormatPlatform(p ocispec.Platform) string { return platform.Format(p) }

func isZeroPlatform(p ocispec.Platform) bool {
	return p.OS == "" && p.Architecture == "" && p.Variant == "" && p.OSVersion == ""
}
