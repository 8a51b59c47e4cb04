package registry

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/ocijson"
	"github.com/layerbuild/layerbuild/internal/platform"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// level orders the variants of an architecture; a machine runs those up to its own.
func level(p ocispec.Platform) int {
	variant := p.Variant
	if variant == "" {
		variant = platform.DefaultVariant(p.Architecture)
	}
	major, minor, _ := strings.Cut(strings.TrimPrefix(variant, "v"), ".")
	n := 0
	for _, d := range []byte(major) {
		if d < '0' || d > '9' || n > 1000 {
			return -1
		}
		n = n*10 + int(d-'0')
	}
	n *= 10
	if len(minor) == 1 && minor[0] >= '0' && minor[0] <= '9' {
		n += int(minor[0] - '0')
	}
	return n
}

// distance returns how well an image for the platform have can be used for want: 0 is the same,
// a higher number is worse, and a negative one means not at all.
func distance(want, have ocispec.Platform) int {
	if want.OS == anyOS {
		return 0
	}
	want, have = platform.Complete(want), platform.Complete(have)
	if want.OS != have.OS {
		return -1
	}
	older, ok := versionDistance(want, have)
	if !ok {
		return -1
	}
	arch := archDistance(want, have)
	if arch < 0 {
		return -1
	}
	const builds = 1 << 16 // the architecture counts more than the version
	return arch*builds + older
}

// archDistance is like distance, for the architecture and its variant alone.
func archDistance(want, have ocispec.Platform) int {
	if want.Architecture == have.Architecture {
		w, h := level(want), level(have)
		switch {
		case want.Variant == have.Variant:
			return 0
		case w < 0 || h < 0 || h > w:
			return -1
		}
		return w - h
	}
	// The 32-bit predecessor is used if there is nothing better.
	if have.Architecture != platform.Predecessor(want.Architecture) {
		return -1
	}
	if have.Architecture != "arm" {
		return 1000
	}
	if level(have) < 50 || level(have) > 80 {
		return -1
	}
	return 1000 + 80 - level(have)
}

// MatchesVersion reports whether an image for the version of an operating system in have can be
// used for that in want.
func MatchesVersion(want, have ocispec.Platform) bool {
	_, ok := versionDistance(want, have)
	return ok
}

// versionDistance returns how much older the version in have is than the one in want, and reports
// whether it can be used. A missing version fits any. An image of Windows names a build and its
// revision (10.0.17763.6893), and any revision of a build is the same. As in containerd, from the
// build of Windows Server 2022 on, a machine also runs images of older builds.
func versionDistance(want, have ocispec.Platform) (int, bool) {
	if want.OSVersion == "" || have.OSVersion == "" || want.OSVersion == have.OSVersion {
		return 0, true
	}
	w, okWant := windowsBuild(want.OSVersion)
	h, okHave := windowsBuild(have.OSVersion)
	if want.OS != "windows" || !okWant || !okHave || w.release != h.release {
		return 0, false
	}
	oldest := w.build
	if w.build >= server2022 {
		oldest = server2022
	}
	return w.build - h.build, oldest <= h.build && h.build <= w.build
}

// server2022 is the build of Windows from which on the images of older builds can be used, down to
// this one.
const server2022 = 20348

// windowsVersion is the part of a version of Windows that decides which images it runs.
type windowsVersion struct {
	release string // 10.0
	build   int
}

// windowsBuild parses MAJOR.MINOR.BUILD[.REVISION].
func windowsBuild(version string) (v windowsVersion, ok bool) {
	parts := strings.Split(version, ".")
	if len(parts) < 3 {
		return v, false
	}
	build, err := strconv.ParseUint(parts[2], 10, 16)
	return windowsVersion{parts[0] + "." + parts[1], int(build)}, err == nil
}

// Any requests the first image of an index, whatever its platform.
func Any() ocispec.Platform { return ocispec.Platform{OS: anyOS, Architecture: anyOS} }

const anyOS = "any"

// Matches reports whether an image for the platform have can be used for want.
func Matches(want, have ocispec.Platform) bool { return distance(want, have) >= 0 }

// FormatPlatform formats a platform as users write it: "linux/arm/v7".
func FormatPlatform(p ocispec.Platform) string { return platform.Short(platform.Complete(p)) }

// maxBare limits how many entries of an index WithPlatforms reads.
const maxBare = 32

// WithPlatforms returns the entries of an index, and adds the missing platforms. The platform of an
// entry is optional (OCI image index v1.1.1, "platform"); the image's configuration has it. read
// reads a manifest or a configuration. Entries for which it fails are returned unchanged.
func WithPlatforms(ctx context.Context, list []ocispec.Descriptor,
	read func(context.Context, ocispec.Descriptor) ([]byte, error)) []ocispec.Descriptor {
	if len(list) < 2 {
		return list // Pick accepts a single entry without a platform
	}
	list = slices.Clone(list)
	bare := 0
	for i := range list {
		d := &list[i]
		if d.Platform != nil || ocidoc.IsIndex(d.MediaType) || !ocidoc.IsImage(*d) {
			continue
		}
		if bare++; bare > maxBare {
			break
		}
		if d.Size > ocidoc.MaxManifest {
			continue
		}
		var m ocispec.Manifest
		data, err := read(ctx, *d)
		if err != nil || ocijson.Unmarshal(data, &m) != nil || m.Config.Digest.Validate() != nil ||
			m.Config.Size > ocidoc.MaxManifest {
			continue
		}
		var c ocispec.Image
		if data, err = read(ctx, m.Config); err != nil || ocijson.Unmarshal(data, &c) != nil ||
			c.Architecture == "" || c.OS == "" {
			continue
		}
		d.Platform = &c.Platform
	}
	return list
}

// Descend returns the documents from root down to the manifest for the platform: root alone if it
// is a manifest, and otherwise one or more indexes and the manifest. next fetches a document to
// which an index refers, and read is as for WithPlatforms.
func Descend(ctx context.Context, root Document, want ocispec.Platform,
	next func(context.Context, ocispec.Descriptor) (Document, error),
	read func(context.Context, ocispec.Descriptor) ([]byte, error)) ([]Document, error) {
	docs := []Document{root}
	for {
		last := docs[len(docs)-1]
		if !ocidoc.IsIndex(last.Descriptor.MediaType) {
			return docs, nil
		}
		if len(docs) == ocidoc.MaxNesting {
			return nil, ocidoc.ErrNesting
		}
		index, err := ocidoc.Parse(last.Data)
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", last.Descriptor.Digest, err)
		}
		d, err := Pick(WithPlatforms(ctx, index.Manifests, read), want)
		if err != nil {
			return nil, err
		}
		if err := d.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("index %s: manifest %q: %w", last.Descriptor.Digest, d.Digest,
				err)
		}
		doc, err := next(ctx, d)
		if err != nil {
			return nil, err
		}
		docs = append(docs, doc)
	}
}

// Pick chooses the manifest of an index that matches the platform best, the first of equal ones.
// The error wraps ErrNoPlatform and lists the available platforms.
func Pick(manifests []ocispec.Descriptor, want ocispec.Platform) (ocispec.Descriptor, error) {
	best, score := -1, 0
	var have []string
	for i, m := range manifests {
		if m.Platform == nil || m.Platform.OS == "unknown" || m.Platform.OS == "" {
			continue // an attestation, or not for a particular platform
		}
		if s := FormatPlatform(*m.Platform); !slices.Contains(have, s) {
			have = append(have, s)
		}
		if d := distance(want, *m.Platform); d >= 0 && (best < 0 || d < score) {
			best, score = i, d
		}
	}
	if best >= 0 {
		return manifests[best], nil
	}
	// Tools that write an index with one entry often omit the platform; the configuration has
	// it.
	var bare []ocispec.Descriptor
	for _, m := range manifests {
		if m.Platform == nil {
			bare = append(bare, m)
		}
	}
	if len(have) == 0 && len(bare) == 1 {
		return bare[0], nil
	}
	if len(have) == 0 {
		return ocispec.Descriptor{}, fmt.Errorf("%w %s: the index names none", ErrNoPlatform,
			FormatPlatform(want))
	}
	return ocispec.Descriptor{}, fmt.Errorf("%w %s: there is %s", ErrNoPlatform,
		FormatPlatform(want), strings.Join(have, ", "))
}
