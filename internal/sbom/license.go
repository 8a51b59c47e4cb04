package sbom

import (
	_ "embed"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// The identifiers of the SPDX license list, and those of its exceptions, one a line. Only
// identifiers that CycloneDX has too are there (https://spdx.org/licenses).
var (
	//go:embed licenses.txt
	licenseList string
	//go:embed exceptions.txt
	exceptionList string
)

// licenseIDs and exceptionIDs are the identifiers by their lower-case form.
var (
	licenseIDs   = sync.OnceValue(func() map[string]string { return byLower(licenseList) })
	exceptionIDs = sync.OnceValue(func() map[string]string { return byLower(exceptionList) })
)

func byLower(list string) map[string]string {
	m := map[string]string{}
	for id := range strings.FieldsSeq(list) {
		m[strings.ToLower(id)] = id
	}
	return m
}

// gnu matches the short names that distributions use for the licenses of GNU, such as GPL-2+,
// GPLv2+ and LGPL2.1.
var gnu = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(a?gpl|lgpl|gfdl)[-v]*([0-9])(?:\.([0-9]))?(?:\.0)?(\+?)$`)
})

// otherNames are names of licenses, in lower case, with their identifiers.
var otherNames = map[string]string{
	"expat": "MIT", "mit license": "MIT", "the mit license": "MIT", "mit/x11": "MIT",
	"apache 2.0": "Apache-2.0", "apache 2": "Apache-2.0", "apache-2": "Apache-2.0",
	"apache2": "Apache-2.0", "apache license 2.0": "Apache-2.0", "asl 2.0": "Apache-2.0",
	"apache license, version 2.0": "Apache-2.0", "apache license version 2.0": "Apache-2.0",
	"bsd-3": "BSD-3-Clause", "bsd 3-clause": "BSD-3-Clause", "3-clause bsd": "BSD-3-Clause",
	"bsd-3-clause license": "BSD-3-Clause", "3-clause bsd license": "BSD-3-Clause",
	"bsd-2": "BSD-2-Clause", "bsd 2-clause": "BSD-2-Clause", "2-clause bsd": "BSD-2-Clause",
	"isc license": "ISC", "artistic": "Artistic-1.0-Perl", "artistic-2": "Artistic-2.0",
	"mpl 2.0": "MPL-2.0", "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0", "psf": "PSF-2.0",
	"zpl 2.1": "ZPL-2.1", "boost-1.0": "BSL-1.0", "perl": "Artistic-1.0-Perl OR GPL-1.0-or-later",
}

// licenseID returns the SPDX identifier for the name of a license, or "".
func licenseID(name string) string {
	name = strings.ToLower(name)
	if m := gnu().FindStringSubmatch(name); m != nil {
		id := m[1] + "-" + m[2] + "." + (m[3] + "0")[:1]
		if m[4] == "+" {
			id += "-or-later"
		} else {
			id += "-only"
		}
		name = id
	}
	if id := licenseIDs()[name]; id != "" {
		return id
	}
	if id, ok := strings.CutSuffix(name, "+"); ok && licenseIDs()[id] != "" {
		return licenseIDs()[id] + "+"
	}
	return otherNames[name]
}

// expression returns a license as an SPDX license expression (SPDX 2.3, annex D), and "" if it is
// not one, not even after names that are in common use have been replaced.
func expression(license string) string {
	if id := licenseID(license); id != "" {
		return id
	}
	if len(license) > maxExpression {
		return ""
	}
	p := expressionParser{rest: tokens(license)}
	if !p.or(0) || len(p.rest) > 0 {
		return ""
	}
	return strings.Join(p.out, "")
}

const (
	maxExpression = 4096
	maxNesting    = 32
)

// tokens splits an expression at spaces and around parentheses.
func tokens(s string) []string {
	s = strings.NewReplacer("(", " ( ", ")", " ) ").Replace(s)
	return strings.Fields(s)
}

// expressionParser parses an expression and writes it in its normal form.
type expressionParser struct {
	rest []string
	out  []string
}

// word takes the next token if it is one of the words, in any case.
func (p *expressionParser) word(words ...string) bool {
	if len(p.rest) == 0 || !slices.Contains(words, strings.ToUpper(p.rest[0])) {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *expressionParser) or(depth int) bool {
	for p.and(depth) {
		if !p.word("OR") {
			return true
		}
		p.out = append(p.out, " OR ")
	}
	return false
}

func (p *expressionParser) and(depth int) bool {
	for p.simple(depth) {
		if !p.word("AND") {
			return true
		}
		p.out = append(p.out, " AND ")
	}
	return false
}

func (p *expressionParser) simple(depth int) bool {
	if p.word("(") {
		p.out = append(p.out, "(")
		ok := depth < maxNesting && p.or(depth+1) && p.word(")")
		p.out = append(p.out, ")")
		return ok
	}
	if len(p.rest) == 0 {
		return false
	}
	id := licenseID(p.rest[0])
	if id == "" || strings.Contains(id, " ") {
		return false
	}
	p.rest, p.out = p.rest[1:], append(p.out, id)
	if !p.word("WITH") {
		return true
	}
	if len(p.rest) == 0 || exceptionIDs()[strings.ToLower(p.rest[0])] == "" {
		return false
	}
	p.out = append(p.out, " WITH ", exceptionIDs()[strings.ToLower(p.rest[0])])
	p.rest = p.rest[1:]
	return true
}

// licenseRef returns the identifier in a document for a license that is not on the SPDX list.
func licenseRef(license string) string {
	var b strings.Builder
	for i := 0; i < len(license); i++ {
		switch c := license[i]; {
		case isLetterOrDigit(c) || c == '.':
			b.WriteByte(c)
		default:
			b.WriteByte('-')
		}
	}
	name := strings.Join(strings.FieldsFunc(b.String(), func(r rune) bool { return r == '-' }), "-")
	if name == license && len(name) <= maxRef {
		return "LicenseRef-" + name
	}
	// Different texts must have different identifiers.
	return "LicenseRef-" + name[:min(len(name), maxRef)] + "-" + shortHash(license)
}

const maxRef = 40

// license is a stated license in the form of a document.
type license struct {
	text string // as the package states it
	expr string // an SPDX expression; "": it is not one, and ref is set
	ref  string
}

func licensesOf(p *Package) []license {
	var list []license
	for _, s := range p.Licenses {
		l := license{text: s, expr: expression(s)}
		if l.expr == "" {
			l.ref = licenseRef(s)
		}
		list = append(list, l)
	}
	return list
}

// joined returns licenses as one expression. A package with several licenses has parts under each.
func joined(list []license) string {
	var parts []string
	for _, l := range list {
		part := l.expr + l.ref
		if strings.Contains(part, " OR ") && len(list) > 1 {
			part = "(" + part + ")"
		}
		if !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, " AND ")
}
