package sbom

import (
	"cmp"
	"path"
	"strings"
)

const (
	dpkgStatus  = "var/lib/dpkg/status"
	dpkgStatusD = "var/lib/dpkg/status.d" // of distroless images: a file for each package
	docDir      = "usr/share/doc"
)

func isDpkgStatus(at string, _ []byte) bool {
	return at == dpkgStatus || in(dpkgStatusD, at) && path.Ext(at) != ".md5sums"
}

// readDpkgStatus reads a database of dpkg: the control fields of all packages. A file of status.d
// has the fields of one package, and none for its state.
func readDpkgStatus(c *content) (findings, error) {
	text, err := c.text()
	if err != nil {
		return findings{}, err
	}
	var f findings
	var full error
	paragraphs(text, func(fields []field) {
		p := Package{Type: Deb, Name: get(fields, "Package"), Version: get(fields, "Version"),
			Arch: get(fields, "Architecture"), Supplier: oneLine(get(fields, "Maintainer"))}
		state := strings.Fields(get(fields, "Status"))
		if p.Name == "" || p.Version == "" || len(state) > 0 && !isUnpacked(state[len(state)-1]) {
			return
		}
		// "Source: glibc (2.36-9)", with the version only if it differs
		source, version, _ := strings.Cut(get(fields, "Source"), " ")
		if source != p.Name {
			p.Source = source
		}
		p.SourceVersion = strings.Trim(strings.TrimSpace(version), "()")
		full = cmp.Or(full, f.add(p))
	})
	return f, full
}

// isUnpacked reports whether the files of a package with this state are there.
func isUnpacked(state string) bool {
	switch state {
	case "not-installed", "config-files":
		return false
	}
	return true
}

// isCopyright reports whether a path is that of the licenses of a Debian package.
func isCopyright(at string, _ []byte) bool {
	dir, base := path.Split(at)
	return base == "copyright" && in(docDir, path.Clean(dir))
}

// copyrightOf returns the package to which a file with licenses belongs.
func copyrightOf(at string) string { return path.Base(path.Dir(at)) }

// readCopyright reads the licenses of a Debian package: from the License fields of the
// machine-readable format
// (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/), or else from the
// references to the common licenses.
func readCopyright(c *content) (findings, error) {
	text, err := c.text()
	if err != nil {
		return findings{}, err
	}
	var list []string
	paragraphs(text, func(fields []field) {
		for _, f := range fields {
			if !strings.EqualFold(f.name, "License") {
				continue
			}
			if short, _, _ := strings.Cut(f.value, "\n"); short != "" {
				list = append(list, short)
			}
		}
	})
	if len(list) == 0 {
		list = commonLicenses(string(text))
	}
	return findings{licenses: shortList(unique(list))}, nil
}

// commonLicenses returns the names of the licenses in /usr/share/common-licenses that a text
// mentions.
func commonLicenses(text string) []string {
	var list []string
	const dir = "/usr/share/common-licenses/"
	for {
		_, rest, ok := strings.Cut(text, dir)
		if !ok {
			return list
		}
		text = rest
		n := 0
		for n < len(rest) && (isLetterOrDigit(rest[n]) || rest[n] == '-' || rest[n] == '.') {
			n++
		}
		if name := strings.TrimRight(rest[:n], ".-"); name != "" {
			list = append(list, name)
		}
	}
}

func isLetterOrDigit(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
