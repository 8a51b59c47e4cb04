package sbom

import (
	"bytes"
	"path"
	"regexp"
	"strings"
	"sync"
)

// isGem reports whether a path is that of an installed gem's specification: it is in a directory
// specifications, or in specifications/default.
func isGem(at string, _ []byte) bool {
	if path.Ext(at) != ".gemspec" {
		return false
	}
	dir := path.Dir(at)
	if path.Base(dir) == "default" {
		dir = path.Dir(dir)
	}
	return path.Base(dir) == "specifications"
}

// gemLine matches an assignment of a specification, such as
//
//	s.name = "rake".freeze
//	s.licenses = ["MIT".freeze]
var gemLine = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^\s*\w+\.(name|version|licenses?|authors?)\s*=\s*(.*)$`)
})

// gemText matches a text in double or single quotes.
var gemText = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`"([^"\\]*)"|'([^'\\]*)'`)
})

// readGem reads a specification. It is a Ruby program. That of an installed gem is written by
// RubyGems, which begins it with a comment "# stub: NAME VERSION PLATFORM PATHS" and has a line for
// each field.
func readGem(c *content) (findings, error) {
	text, err := c.text()
	if err != nil {
		return findings{}, err
	}
	p := Package{Type: Gem}
	for line := range bytes.Lines(text) {
		if stub, ok := bytes.CutPrefix(line, []byte("# stub: ")); ok && p.Name == "" {
			if f := strings.Fields(string(stub)); len(f) >= 2 {
				p.Name, p.Version = f[0], f[1]
			}
			continue
		}
		m := gemLine().FindSubmatch(bytes.TrimRight(line, "\r\n"))
		if m == nil {
			continue
		}
		values := quoted(m[2])
		if len(values) == 0 {
			continue
		}
		switch string(m[1]) {
		case "name":
			p.Name = values[0]
		case "version":
			p.Version = values[0]
		case "license", "licenses":
			p.Licenses = append(p.Licenses, values...)
		default:
			p.Supplier = oneLine(strings.Join(values, ", "))
		}
	}
	if p.Name == "" || p.Version == "" {
		return findings{}, errNotPackage
	}
	return one(p)
}

// quoted returns the texts in quotes.
func quoted(b []byte) []string {
	var list []string
	for _, m := range gemText().FindAllSubmatch(b, -1) {
		list = append(list, string(m[1])+string(m[2]))
	}
	return list
}
