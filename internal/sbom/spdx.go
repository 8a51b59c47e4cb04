package sbom

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// The structs below are those parts of the SPDX 2.3 JSON format that a Document needs
// (https://spdx.github.io/spdx-spec/v2.3).

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	Name             string         `json:"name"`
	ID               string         `json:"SPDXID"`
	Version          string         `json:"versionInfo,omitempty"`
	Supplier         string         `json:"supplier,omitempty"`
	DownloadLocation string         `json:"downloadLocation"`
	FilesAnalyzed    bool           `json:"filesAnalyzed"`
	Checksums        []spdxChecksum `json:"checksums,omitempty"`
	SourceInfo       string         `json:"sourceInfo,omitempty"`
	LicenseConcluded string         `json:"licenseConcluded"`
	LicenseDeclared  string         `json:"licenseDeclared"`
	Copyright        string         `json:"copyrightText"`
	ExternalRefs     []spdxRef      `json:"externalRefs,omitempty"`
	Purpose          string         `json:"primaryPackagePurpose,omitempty"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxLicense struct {
	ID   string `json:"licenseId"`
	Text string `json:"extractedText"`
	Name string `json:"name"`
}

type spdxRelationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

// Constants of the format.
const (
	spdxRoot  = "SPDXRef-DOCUMENT"
	spdxImage = "SPDXRef-Image"
	noneGiven = "NOASSERTION"
	contains  = "CONTAINS"
)

// SPDX writes the document as SPDX 2.3 JSON. It describes one package, the image, which contains
// its layers and the packages found. Each layer contains the packages that it brought.
func (d *Document) SPDX(w io.Writer) error {
	return writeDocument(w, spdxDocument{d}, func(sum [sha256.Size]byte) string {
		return "https://github.com/layerbuild/layerbuild/spdx/" + hex.EncodeToString(sum[:])
	})
}

// spdxDocument writes a Document in the format SPDX.
type spdxDocument struct{ *Document }

func (d spdxDocument) write(o *object, id string) {
	o.field("spdxVersion", "SPDX-2.3")
	o.field("dataLicense", "CC0-1.0")
	o.field("SPDXID", spdxRoot)
	o.field("name", d.name())
	o.field("documentNamespace", id)
	o.field("creationInfo", spdxCreation{Created: d.created(),
		Creators: []string{"Tool: " + d.tool()}})
	o.list("packages", d.packages)
	if licenses := d.licenses(); len(licenses) > 0 {
		o.field("hasExtractedLicensingInfos", licenses)
	}
	o.list("relationships", d.relationships)
}

func (d spdxDocument) packages(add func(any)) {
	add(d.spdxImage())
	for i, l := range d.Image.Layers {
		p := spdxPackage{ID: spdxLayer(i), Name: fmt.Sprintf("layer %d", i+1),
			Version: string(l.DiffID), Purpose: "ARCHIVE", SourceInfo: d.source(i)}
		p.Checksums = spdxChecksums(l.Digest)
		add(p.complete())
	}
	for i := range d.Packages {
		p := &d.Packages[i]
		add(d.spdxPackage(p, spdxID(p), licensesOf(p)))
	}
}

// licenses returns the licenses that are not on the SPDX list.
func (d spdxDocument) licenses() []spdxLicense {
	known := map[string]bool{}
	var list []spdxLicense
	for i := range d.Packages {
		for _, l := range licensesOf(&d.Packages[i]) {
			if l.ref != "" && !known[l.ref] {
				known[l.ref] = true
				list = append(list, spdxLicense{l.ref, l.text, l.text})
			}
		}
	}
	return list
}

func (d spdxDocument) relationships(add func(any)) {
	add(spdxRelationship{spdxRoot, "DESCRIBES", spdxImage})
	for i := range d.Image.Layers {
		add(spdxRelationship{spdxImage, contains, spdxLayer(i)})
	}
	for i := range d.Packages {
		p := &d.Packages[i]
		add(spdxRelationship{spdxImage, contains, spdxID(p)})
		for _, layer := range slices.Compact(p.layers()) {
			add(spdxRelationship{spdxLayer(layer), contains, spdxID(p)})
		}
	}
}

func spdxID(p *Package) string { return fmt.Sprintf("SPDXRef-%s-%s", p.Type, shortHash(p.PURL)) }

func spdxLayer(index int) string { return fmt.Sprintf("SPDXRef-Layer-%d", index+1) }

func (d *Document) spdxImage() spdxPackage {
	p := spdxPackage{ID: spdxImage, Name: d.name(), Version: string(d.Image.Digest),
		Purpose: "CONTAINER", Checksums: spdxChecksums(d.Image.Digest)}
	if purl := d.imagePURL(); purl != "" {
		p.ExternalRefs = []spdxRef{{"PACKAGE-MANAGER", "purl", purl}}
	}
	return p.complete()
}

func (d *Document) spdxPackage(p *Package, id string, licenses []license) spdxPackage {
	out := spdxPackage{ID: id, Name: p.Name, Version: p.Version,
		LicenseDeclared: joined(licenses), SourceInfo: d.found(p),
		ExternalRefs: []spdxRef{{"PACKAGE-MANAGER", "purl", p.PURL}}}
	if p.Supplier != "" {
		out.Supplier = "Organization: " + p.Supplier
	}
	return out.complete()
}

// complete sets the fields that the format requires and that are not known.
func (p spdxPackage) complete() spdxPackage {
	p.DownloadLocation, p.LicenseConcluded, p.Copyright = noneGiven, noneGiven, noneGiven
	p.LicenseDeclared = cmp.Or(p.LicenseDeclared, noneGiven)
	return p
}

func spdxChecksums(d digest.Digest) []spdxChecksum {
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		return nil
	}
	return []spdxChecksum{{"SHA256", d.Encoded()}}
}

// name returns the name of the image for a document.
func (d *Document) name() string { return cmp.Or(d.Image.Name, string(d.Image.Digest), "image") }

// tool returns the name of this program with its version, as the author of a document.
func (d *Document) tool() string {
	if d.Image.Tool == "" {
		return "layerbuild"
	}
	return "layerbuild-" + d.Image.Tool
}

// created returns the time of the document in the form that both formats need.
func (d *Document) created() string {
	t := d.Image.Created
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// imagePURL returns the package URL of the image, or "" if its digest or its name is not known.
func (d *Document) imagePURL() string {
	repository, _, _ := strings.Cut(d.Image.Name, "@")
	if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexByte(repository, '/') {
		repository = repository[:i]
	}
	if repository == "" || d.Image.Digest == "" || strings.HasPrefix(repository, ".") {
		return ""
	}
	var qualifiers []string
	if d.Image.Platform.Architecture != "" {
		qualifiers = []string{"arch=" + escape(d.Image.Platform.Architecture),
			"os=" + escape(d.Image.Platform.OS)}
	}
	name := repository[strings.LastIndexByte(repository, '/')+1:]
	if strings.Contains(repository, "/") {
		qualifiers = append(qualifiers, "repository_url="+escape(repository))
	}
	return joinPURL("oci", "", strings.ToLower(name), string(d.Image.Digest), qualifiers)
}

// source describes where a layer comes from: its number, its digest and its instruction.
func (d *Document) source(layer int) string {
	l := &d.Image.Layers[layer]
	parts := []string{fmt.Sprintf("layer %d of %d", layer+1, len(d.Image.Layers))}
	if l.DiffID != "" {
		parts = append(parts, "diffID "+string(l.DiffID))
	}
	if l.Origin.Base {
		parts = append(parts, "base image")
	}
	if place := l.Origin.Place(); place != "" {
		parts = append(parts, place)
	}
	if l.Origin.Instruction != "" {
		parts = append(parts, l.Origin.Instruction)
	}
	return strings.Join(parts, "; ")
}

// maxPaths limits the paths of a package in the text that describes its source.
const maxPaths = 20

// found describes where a package was found and which layer brought it.
func (d *Document) found(p *Package) string {
	var paths []string
	for i, l := range p.Found {
		if i == maxPaths {
			paths = append(paths, fmt.Sprintf("and %d more", len(p.Found)-i))
			break
		}
		paths = append(paths, "/"+l.Path)
	}
	return "found in " + strings.Join(paths, ", ") + "; brought by " + d.source(p.Layer())
}

// shortHash returns the first digits of a text's hash.
func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}
