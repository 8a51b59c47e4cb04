package sbom

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Layers describes an image to Scan.
type Layers struct {
	// Name is the name of the image in the document. It may be empty.
	Name string
	// Digest is the digest of the image's manifest. It may be empty.
	Digest   digest.Digest
	Platform ocispec.Platform
	// Created is the time of the document: the time in the image's configuration, or
	// SOURCE_DATE_EPOCH. The zero time counts as the beginning of 1970.
	Created time.Time
	// Tool is the version of the program, for the document's author.
	Tool string
	// Layers are the layers, the lowest first.
	Layers []Layer
}

// Layer is one layer of an image.
type Layer struct {
	DiffID digest.Digest // of the tar
	Digest digest.Digest // of the blob
	// Read calls use with the layer, a tar with or without compression. Scan calls it once, or
	// again for a layer that contains the targets of hard links from layers above it.
	Read func(ctx context.Context, use func(io.Reader) error) error
	// Origin is the instruction that made the layer. The document has the first 1024 bytes of a
	// long instruction.
	Origin Origin
}

// Origin is the instruction that made a layer. A build fills it in from its plan. For other images
// it is made of the history, which has no lines.
type Origin struct {
	Instruction string // in the form of a Dockerfile; "": not known
	Stage       string // the name of the stage; "": it has none
	Line        int    // in the Dockerfile, from 1; 0: not known
	EndLine     int    // the last line of the instruction
	Base        bool   // the layer belongs to the base image
}

// Place returns the place of the instruction, such as "Dockerfile:3", or "" if it is not known.
func (o Origin) Place() string {
	if o.Line == 0 {
		return ""
	}
	return fmt.Sprintf("Dockerfile:%d", o.Line)
}

// Type is the kind of a package: the type of its package URL.
type Type string

// The types.
const (
	Deb    Type = "deb"
	APK    Type = "apk"
	RPM    Type = "rpm"
	Go     Type = "golang"
	NPM    Type = "npm"
	Python Type = "pypi"
	Gem    Type = "gem"
	Java   Type = "maven"
	Cargo  Type = "cargo"
)

// Package is a package of an image.
type Package struct {
	Type    Type
	Name    string
	Version string // "": not recorded
	Arch    string // of packages of distributions
	// Source is the name of the source package, if it differs from Name. SourceVersion is its
	// version, if that differs from Version.
	Source        string
	SourceVersion string
	// Supplier is the maintainer or vendor. It may be empty.
	Supplier string
	// Licenses are the licenses that the package states, as it writes them.
	Licenses []string
	PURL     string
	// Found are the files that list or contain the package, sorted by path.
	Found []Location

	group string // the namespace of a package URL, as in Maven's groupId
}

// Location is a file in which a package was found.
type Location struct {
	Path string // without a slash at its beginning
	// Layer is the index of the layer that brought the package to this file. It may be a lower one
	// than the last that wrote the file.
	Layer int
}

// Layer returns the index of the layer that brought the package: the lowest of those in Found.
func (p *Package) Layer() int {
	lowest := p.Found[0].Layer
	for _, l := range p.Found {
		lowest = min(lowest, l.Layer)
	}
	return lowest
}

// layers returns the indexes of the layers that brought the package, sorted. One of them may be
// there several times.
func (p *Package) layers() []int {
	list := make([]int, len(p.Found))
	for i, l := range p.Found {
		list[i] = l.Layer
	}
	slices.Sort(list)
	return list
}

// Document is the software bill of materials of an image.
type Document struct {
	Image Layers
	// Distro is the distribution, as far as /etc/os-release describes it.
	Distro Distro
	// Packages are sorted by type, name, version and package URL. Each package URL is there once.
	Packages []Package
	// Warnings name the files that could not be read, and the reasons.
	Warnings []string
}

// Distro identifies a distribution.
type Distro struct {
	ID      string // such as debian
	Version string // such as 13
	Name    string // such as Debian GNU/Linux 13 (trixie)
}

// Scan reads the layers of an image and lists its packages. A file that is damaged does not end the
// scan: it becomes a warning of the document.
func Scan(ctx context.Context, image Layers) (*Document, error) {
	m := newMerger()
	image.Layers = slices.Clone(image.Layers)
	for i := range image.Layers {
		// The documents have it once for each package.
		instruction := &image.Layers[i].Origin.Instruction
		*instruction = shortened(*instruction)
	}
	for i, l := range image.Layers {
		if err := m.layer(ctx, i, l); err != nil {
			return nil, fmt.Errorf("list the packages of layer %s: %w",
				cmp.Or(l.Digest, l.DiffID), err)
		}
	}
	return m.document(image), nil
}

// sortPackages sorts packages and their locations.
func sortPackages(list []Package) {
	slices.SortFunc(list, func(a, b Package) int {
		return cmp.Or(strings.Compare(string(a.Type), string(b.Type)),
			strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version),
			strings.Compare(a.PURL, b.PURL))
	})
	for i := range list {
		slices.SortFunc(list[i].Found, func(a, b Location) int {
			return cmp.Or(strings.Compare(a.Path, b.Path), cmp.Compare(a.Layer, b.Layer))
		})
	}
}
