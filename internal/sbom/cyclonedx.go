package sbom

import (
	"crypto/sha256"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The structs below are those parts of the CycloneDX 1.6 JSON format that a Document needs
// (https://cyclonedx.org/docs/1.6/json).

type cdxMetadata struct {
	Timestamp string       `json:"timestamp"`
	Tools     cdxTools     `json:"tools"`
	Component cdxComponent `json:"component"`
}

type cdxTools struct {
	Components []cdxComponent `json:"components"`
}

type cdxComponent struct {
	Ref        string        `json:"bom-ref,omitempty"`
	Type       string        `json:"type"`
	Supplier   *cdxName      `json:"supplier,omitempty"`
	Group      string        `json:"group,omitempty"`
	Name       string        `json:"name"`
	Version    string        `json:"version,omitempty"`
	Text       string        `json:"description,omitempty"`
	Licenses   []cdxLicense  `json:"licenses,omitempty"`
	PURL       string        `json:"purl,omitempty"`
	Properties []cdxProperty `json:"properties,omitempty"`
	Evidence   *cdxEvidence  `json:"evidence,omitempty"`
}

type cdxName struct {
	Name string `json:"name"`
}

// cdxLicense is either one license or, alone in its list, an expression.
type cdxLicense struct {
	License    *cdxLicenseName `json:"license,omitempty"`
	Expression string          `json:"expression,omitempty"`
}

type cdxLicenseName struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
}

type cdxProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type cdxEvidence struct {
	Occurrences []cdxOccurrence `json:"occurrences"`
}

type cdxOccurrence struct {
	Location string `json:"location"`
	Context  string `json:"additionalContext,omitempty"`
}

// CycloneDX writes the document as CycloneDX 1.6 JSON. Its component is the image, whose properties
// list the layers. The properties of each package name the layer that brought it, and the
// instruction that made the layer.
func (d *Document) CycloneDX(w io.Writer) error {
	return writeDocument(w, cdxDocument{d}, func(u [sha256.Size]byte) string {
		u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80 // version 8 of RFC 9562
		return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:16])
	})
}

// cdxDocument writes a Document in the format CycloneDX.
type cdxDocument struct{ *Document }

func (d cdxDocument) write(o *object, id string) {
	image := cdxComponent{Type: "container", Name: d.name(), Version: string(d.Image.Digest),
		PURL: d.imagePURL(), Ref: "image"}
	for i := range d.Image.Layers {
		image.Properties = append(image.Properties, d.layerProperties(i)...)
	}
	o.field("$schema", "http://cyclonedx.org/schema/bom-1.6.schema.json")
	o.field("bomFormat", "CycloneDX")
	o.field("specVersion", "1.6")
	if id != "" {
		o.field("serialNumber", id)
	}
	o.field("version", 1)
	o.field("metadata", cdxMetadata{Timestamp: d.created(), Component: image,
		Tools: cdxTools{[]cdxComponent{{Type: "application", Name: "layerbuild",
			Version: d.Image.Tool}}}})
	o.list("components", d.components)
}

func (d cdxDocument) components(add func(any)) {
	if d.Distro.ID != "" {
		add(cdxComponent{Type: "operating-system", Name: d.Distro.ID, Version: d.Distro.Version,
			Text: d.Distro.Name, Ref: "operating-system"})
	}
	for i := range d.Packages {
		add(d.cdxPackage(&d.Packages[i]))
	}
}

func (d *Document) cdxPackage(p *Package) cdxComponent {
	c := cdxComponent{Ref: p.PURL, Type: "library", Group: p.group, Name: p.Name,
		Version: p.Version, PURL: p.PURL, Licenses: cdxLicenses(licensesOf(p)),
		Properties: d.layerProperties(p.Layer()), Evidence: &cdxEvidence{}}
	if p.Supplier != "" {
		c.Supplier = &cdxName{p.Supplier}
	}
	for _, l := range p.Found {
		c.Evidence.Occurrences = append(c.Evidence.Occurrences, cdxOccurrence{
			Location: "/" + l.Path, Context: "brought by " + d.source(l.Layer)})
	}
	return c
}

// layerProperties describes a layer.
func (d *Document) layerProperties(layer int) []cdxProperty {
	l := &d.Image.Layers[layer]
	var list []cdxProperty
	add := func(name, value string) {
		if value != "" {
			list = append(list, cdxProperty{"layerbuild:layer:" + name, value})
		}
	}
	add("number", strconv.Itoa(layer+1))
	add("diffID", string(l.DiffID))
	add("digest", string(l.Digest))
	if l.Origin.Base {
		add("base", "true")
	}
	add("instruction", l.Origin.Instruction)
	add("place", l.Origin.Place())
	add("stage", l.Origin.Stage)
	return list
}

// cdxLicenses returns licenses as a list, or as one expression if one of them is an expression: the
// format does not mix the two.
func cdxLicenses(licenses []license) []cdxLicense {
	var list []cdxLicense
	for _, l := range licenses {
		switch {
		case strings.ContainsAny(l.expr, " +"):
			return []cdxLicense{{Expression: joined(licenses)}}
		case l.expr != "":
			list = append(list, cdxLicense{License: &cdxLicenseName{ID: l.expr}})
		default:
			list = append(list, cdxLicense{License: &cdxLicenseName{Name: l.text}})
		}
	}
	return list
}
