package sbom

import (
	"bytes"
	"cmp"
	"strings"
)

func isAPK(at string, _ []byte) bool {
	return at == "lib/apk/db/installed" || at == "usr/lib/apk/db/installed"
}

// readAPK reads the database of apk: paragraphs of lines "X:value", where a letter names the field
// (https://wiki.alpinelinux.org/wiki/Apk_spec). Paragraphs also list the files of a package.
func readAPK(c *content) (findings, error) {
	text, err := c.text()
	if err != nil {
		return findings{}, err
	}
	var f findings
	var p Package
	var full error
	end := func() {
		if p.Name != "" && p.Version != "" {
			if p.Source == p.Name {
				p.Source = ""
			}
			full = cmp.Or(full, f.add(p))
		}
		p = Package{Type: APK}
	}
	end()
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			end()
			continue
		}
		if len(line) < 2 || line[1] != ':' {
			continue
		}
		value := strings.TrimSpace(string(line[2:]))
		switch line[0] {
		case 'P':
			p.Name = value
		case 'V':
			p.Version = value
		case 'A':
			p.Arch = value
		case 'o':
			p.Source = value
		case 'm':
			p.Supplier = value
		case 'L':
			if value != "" {
				p.Licenses = []string{value}
			}
		}
	}
	end()
	return f, full
}
