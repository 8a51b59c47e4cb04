package sbom

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schema returns a schema of testdata/schema, which may refer to the others there.
func schema(t testing.TB, url string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for at, name := range map[string]string{
		"http://cyclonedx.org/schema/bom-1.6.schema.json":  "bom-1.6",
		"http://cyclonedx.org/schema/spdx.schema.json":     "spdx",
		"http://cyclonedx.org/schema/jsf-0.82.schema.json": "jsf-0.82",
		"http://spdx.org/rdf/terms/2.3":                    "spdx-2.3",
	} {
		data := fixture(t, "schema/"+name+".schema.json.gz")
		// Schemas of CycloneDX refer to each other with the name that their package gives them.
		data = bytes.ReplaceAll(data, []byte(".SNAPSHOT."), []byte("."))
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err == nil {
			err = c.AddResource(at, doc)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Compile(url)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t testing.TB, s *jsonschema.Schema, data []byte) {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err == nil {
		err = s.Validate(doc)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, data)
	}
}

const (
	spdxSchema = "http://spdx.org/rdf/terms/2.3"
	cdxSchema  = "http://cyclonedx.org/schema/bom-1.6.schema.json"
)

// sampleDocument has packages of each type, with licenses and names of each kind.
func sampleDocument(t testing.TB) *Document {
	t.Helper()
	js := func(name, license string) entry {
		return entry{path: "app/node_modules/" + name + "/package.json", content: fmt.Sprintf(
			`{"name": %q, "version": "1.0.0", "license": %s, "author": {"name": "A"}}`, name,
			license)}
	}
	return scanned(t,
		layerOf(t, entry{path: "etc/os-release", content: debian},
			status(stanza("libc6", "2.41-12"))),
		layerOf(t, js("mit", `"MIT"`), js("@scope/both", `"(MIT OR Apache-2.0)"`),
			js("odd", `"SEE LICENSE IN \"x\" <é>"`),
			js("two", `["MIT", {"type": "GPL-2.0+ WITH x"}]`),
			js("plus", `"EPL-1.0+"`), js("none", "7"),
			entry{path: "lib/apk/db/installed", content: "P:musl\nV:1.2-r0\nA:x86_64\nL:MIT\n\n"},
			entry{path: "x/specifications/a.gemspec", content: "# stub: a 1 ruby lib\n"},
			entry{path: "y/b-1.dist-info/METADATA",
				content: "Name: B_b\nVersion: 1\nLicense: BSD\nAuthor: \xff\n"}),
		layerOf(t, entry{path: "app/again/package.json",
			content: `{"name":"mit","version":"1.0.0"}`}))
}

// TestSchemas validates documents with the published schemas.
func TestSchemas(t *testing.T) {
	full := sampleDocument(t)
	empty := scanned(t)
	bare := &Document{}
	for name, d := range map[string]*Document{"full": full, "empty": empty, "bare": bare} {
		t.Run(name, func(t *testing.T) {
			validate(t, schema(t, spdxSchema), written(t, d.SPDX))
			validate(t, schema(t, cdxSchema), written(t, d.CycloneDX))
		})
	}
}

// TestSchemasRefuse checks that the validator finds faults.
func TestSchemasRefuse(t *testing.T) {
	for url, write := range map[string]func(*Document, io.Writer) error{
		spdxSchema: (*Document).SPDX, cdxSchema: (*Document).CycloneDX,
	} {
		data := written(t, func(w io.Writer) error { return write(sampleDocument(t), w) })
		var doc map[string]any
		if err := json.Unmarshal(data, &doc); err != nil {
			t.Fatal(err)
		}
		delete(doc, "SPDXID")
		doc["bomFormat"] = "other"
		if err := schema(t, url).Validate(doc); err == nil {
			t.Errorf("%s accepts a document that is not valid", url)
		}
	}
}

// TestDeterministic checks that an image has the same documents each time, and that a document of
// another content has another name.
func TestDeterministic(t *testing.T) {
	for name, write := range map[string]func(*Document, io.Writer) error{
		"SPDX": (*Document).SPDX, "CycloneDX": (*Document).CycloneDX,
	} {
		bytesOf := func(d *Document) []byte {
			return written(t, func(w io.Writer) error { return write(d, w) })
		}
		first := bytesOf(sampleDocument(t))
		for range 5 {
			if !bytes.Equal(first, bytesOf(sampleDocument(t))) {
				t.Fatalf("%s: two documents of one image differ", name)
			}
		}
		other := sampleDocument(t)
		other.Packages = other.Packages[1:]
		data := bytesOf(other)
		for _, key := range []string{"documentNamespace", "serialNumber"} {
			a, b := decode(t, first).(map[string]any)[key], decode(t, data).(map[string]any)[key]
			if a != nil && a == b {
				t.Errorf("%s: %s is %v for two documents", name, key, a)
			}
		}
	}
}

// TestSPDX checks what SPDX records about a package and its layers.
func TestSPDX(t *testing.T) {
	data := written(t, sampleDocument(t).SPDX)
	var doc struct {
		Version       string `json:"spdxVersion"`
		Name          string
		Namespace     string       `json:"documentNamespace"`
		Creation      spdxCreation `json:"creationInfo"`
		Packages      []spdxPackage
		Licenses      []spdxLicense `json:"hasExtractedLicensingInfos"`
		Relationships []spdxRelationship
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	byName := map[string]spdxPackage{}
	for _, p := range doc.Packages {
		byName[p.Name] = p
	}
	for name, want := range map[string]string{
		"mit": "MIT", "@scope/both": "(MIT OR Apache-2.0)", "plus": "EPL-1.0+",
		"odd": "LicenseRef-SEE-LICENSE-IN-x-", "none": "NOASSERTION", "libc6": "NOASSERTION",
		"two": "LicenseRef-GPL-2.0-WITH-x-", "B_b": "LicenseRef-BSD",
	} {
		got := byName[name].LicenseDeclared
		if isRef := strings.HasPrefix(want, "LicenseRef-"); got != want &&
			!(isRef && strings.HasPrefix(got, want)) {
			t.Errorf("license of %s: %s, want %s", name, got, want)
		}
	}
	for _, l := range doc.Licenses {
		if !strings.Contains(string(data), l.ID) || l.Text == "" {
			t.Errorf("license %+v", l)
		}
	}
	if want := "found in /app/again/package.json, /app/node_modules/mit/package.json; brought " +
		"by layer 2 of 3; diffID "; !strings.HasPrefix(byName["mit"].SourceInfo, want) ||
		!strings.HasSuffix(byName["mit"].SourceInfo, "; Dockerfile:2; RUN 2") {
		t.Errorf("source of mit: %s, want %s… Dockerfile:2; RUN 2", byName["mit"].SourceInfo, want)
	}
	if doc.Creation.Created != "2023-11-14T22:13:20Z" ||
		doc.Creation.Creators[0] != "Tool: layerbuild-1.0" {
		t.Errorf("creation: %+v", doc.Creation)
	}
	holders := map[string][]string{} // by contained element
	for _, r := range doc.Relationships {
		holders[r.To] = append(holders[r.To], r.From)
	}
	for name, want := range map[string]string{"libc6": "[SPDXRef-Image SPDXRef-Layer-1]",
		"mit": "[SPDXRef-Image SPDXRef-Layer-2 SPDXRef-Layer-3]"} {
		if got := fmt.Sprint(holders[byName[name].ID]); got != want {
			t.Errorf("%s is contained in %s, want %s", name, got, want)
		}
	}
}

// TestCycloneDX checks what CycloneDX records about packages.
func TestCycloneDX(t *testing.T) {
	data := written(t, sampleDocument(t).CycloneDX)
	var doc struct{ Components []cdxComponent }
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	for _, c := range doc.Components {
		if c.Name != "mit" {
			continue
		}
		properties := map[string]string{}
		for _, p := range c.Properties {
			properties[strings.TrimPrefix(p.Name, "layerbuild:layer:")] = p.Value
		}
		if properties["number"] != "2" || properties["place"] != "Dockerfile:2" ||
			properties["instruction"] != "RUN 2" || properties["digest"] == "" {
			t.Errorf("properties of mit: %v", properties)
		}
		if o := c.Evidence.Occurrences; len(o) != 2 || o[0].Location != "/app/again/package.json" ||
			!strings.Contains(o[0].Context, "layer 3 of 3") {
			t.Errorf("occurrences of mit: %+v", o)
		}
		return
	}
	t.Error("mit is not in the document")
}

func TestExpression(t *testing.T) {
	for in, want := range map[string]string{
		"mit": "MIT", "GPL-2+": "GPL-2.0-or-later", "LGPLv2.1+": "LGPL-2.1-or-later",
		"GPLv3": "GPL-3.0-only", "GPL-2.0": "GPL-2.0-only", "GPL2": "GPL-2.0-only",
		"Apache License 2.0": "Apache-2.0", "Expat": "MIT",
		"mit or (apache-2.0 and bsd-3-clause)": "MIT OR (Apache-2.0 AND BSD-3-Clause)",
		"(MIT)":                                "(MIT)", "ISC AND ZPL-2.1": "ISC AND ZPL-2.1",
		"GPL-2.0-only WITH classpath-exception-2.0": "GPL-2.0-only WITH Classpath-exception-2.0",
		"GPL-2.0-only WITH x":                       "", "MIT OR": "", "(MIT": "", "MIT ISC": "", "": "", ")": "",
		"Unlicensed text": "", "MIT OR x": "", "OR": "", "perl OR MIT": "",
		strings.Repeat("(", 1000) + "MIT" + strings.Repeat(")", 1000): "",
	} {
		if got := expression(in); got != want {
			t.Errorf("expression(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestLicenseNames checks that the identifiers that other names map to are on the list.
func TestLicenseNames(t *testing.T) {
	if n := len(licenseIDs()); n < 700 {
		t.Errorf("only %d identifiers", n)
	}
	for name, id := range otherNames {
		if expression(id) != id {
			t.Errorf("%s is mapped to %s, which is not an expression", name, id)
		}
		if licenseIDs()[name] != "" || name != strings.ToLower(name) {
			t.Errorf("the name %s is not used", name)
		}
	}
}

func FuzzExpression(f *testing.F) {
	f.Add("mit OR (GPL-2+ WITH x)")
	f.Fuzz(func(t *testing.T, s string) {
		e := expression(s)
		if e != "" && expression(e) != e {
			t.Errorf("expression(%q) = %q, which is not in its normal form", s, e)
		}
		if ref := licenseRef(s); strings.Trim(ref, "-.abcdefghijklmnopqrstuvwxyz"+
			"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
			t.Errorf("licenseRef(%q) = %q", s, ref)
		}
	})
}
