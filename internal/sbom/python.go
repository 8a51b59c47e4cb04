package sbom

import (
	"bytes"
	"path"
	"strings"
)

// isPython reports whether a path is that of a Python distribution's metadata
// (https://packaging.python.org/en/latest/specifications/core-metadata): METADATA of a dist-info
// directory, PKG-INFO of an egg-info directory or an egg, or an egg-info file.
func isPython(at string, _ []byte) bool {
	dir, base := path.Split(at)
	dir = strings.TrimSuffix(dir, "/")
	switch base {
	case "METADATA":
		return strings.HasSuffix(dir, ".dist-info")
	case "PKG-INFO":
		return strings.HasSuffix(dir, ".egg-info") || path.Base(dir) == "EGG-INFO"
	}
	return strings.HasSuffix(base, ".egg-info")
}

// licenseClassifier begins the classifiers of licenses.
const licenseClassifier = "License :: "

// readPython reads the fields of the first paragraph. The description follows it.
func readPython(c *content) (findings, error) {
	text, err := c.text()
	if err != nil {
		return findings{}, err
	}
	for _, end := range []string{"\n\n", "\n\r\n"} {
		if i := bytes.Index(text, []byte(end)); i >= 0 {
			text = text[:i]
		}
	}
	p := Package{Type: Python}
	var stated, classified []string
	paragraphs(text, func(fields []field) {
		p.Name, p.Version = get(fields, "Name"), get(fields, "Version")
		p.Supplier = oneLine(get(fields, "Author"))
		if l := get(fields, "License-Expression"); l != "" {
			stated = []string{l}
		} else if l := get(fields, "License"); !strings.Contains(l, "\n") && l != "UNKNOWN" {
			stated = []string{l} // some packages give the whole text
		}
		for _, f := range fields {
			l, ok := strings.CutPrefix(f.value, licenseClassifier)
			if ok && strings.EqualFold(f.name, "Classifier") {
				classified = append(classified, strings.TrimPrefix(l, "OSI Approved :: "))
			}
		}
	})
	if p.Name == "" || p.Version == "" || strings.ContainsAny(p.Name, " \n") {
		return findings{}, errNotPackage
	}
	if p.Licenses = unique(stated); len(p.Licenses) == 0 {
		p.Licenses = unique(classified)
	}
	return one(p)
}
