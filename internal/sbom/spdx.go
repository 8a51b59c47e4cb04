package sbom

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// The structs below are those parts of the SPDX 2.3 JSON format that a Document needs
// (https://spdx.github.io/spdx-spec/v2.3).

type spdxDocument struct {
	Version       string             `json:"spdxVersion"`
	DataLicense   string             `json:"dataLicense"`
	ID            string             `json:"SPDXID"`
	Name          string             `json:"name"`
	Namespace     string             `json:"documentNamespace"`
	Creation      spdxCreation       `json:"creationInfo"`
	Packages      []spdxPackage      `json:"packages"`
	Licenses      []spdxLicense      `json:"hasExtractedLicensingInfos,omitempty"`
	Relationships []spdxRelationship `json:"relationships"`
}

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

// SPDX returns the document as SPDX 2.3 JSON. It describes one package, the image, which contains
// its layers and the packages found. Each layer contains the packages that it brought.
func (d *Document) SPDX() ([]byte, error) {
	s := spdxDocument{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: spdxRoot, Name: d.name(),
		Creation: spdxCreation{Created: d.created(), Creators: []string{"Tool: " + d.tool()}},
		Packages: []spdxPackage{d.spdxImage()},
		Relationships: []spdxRelationship{
			{spdxRoot, "DESCRIBES", spdxImage},
		},
	}
	for i, l := range d.Image.Layers {
		p := spdxPackage{ID: spdxLayer(i), Name: fmt.Sprintf("layer %d", i+1),
			Version: string(l.DiffID), Purpose: "ARCHIVE", SourceInfo: d.source(i)}
		p.Checksums = spdxChecksums(l.Digest)
		s.Packages = append(s.Packages, p.complete())
		s.relate(spdxImage, p.ID)
	}
	known := map[string]bool{}
	for i := range d.Packages {
		p := &d.Packages[i]
		id := fmt.Sprintf("SPDXRef-%s-%s", p.Type, shortHash(p.PURL))
		list := licensesOf(p)
		s.Packages = append(s.Packages, d.spdxPackage(p, id, list))
		for _, l := range list {
			if l.ref != "" && !known[l.ref] {
				known[l.ref] = true
				s.Licenses = append(s.Licenses, spdxLicense{l.ref, l.text, l.text})
			}
		}
		s.relate(spdxImage, id)
		last := -1
		for _, layer := range p.layers() {
			if layer != last {
				s.relate(spdxLayer(layer), id)
			}
			last = layer
		}
	}
	// The name must be unique to the document's content, and the same for the same content.
	body, err := marshal(s)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	s.Namespace = "https://github.com/layerbuild/layerbuild/spdx/" + hex.EncodeToString(sum[:])
	return marshal(s)
}

func (s *spdxDocument) relate(from, to string) {
	s.Relationships = append(s.Relationships, spdxRelationship{from, contains, to})
}

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

// marshal returns a value as indented JSON that ends with a newline.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(v)
	return b.Bytes(), err
}
