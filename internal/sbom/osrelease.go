package sbom

import (
	"bytes"
	"strings"
)

// The files that describe the distribution (os-release(5)). The first one takes precedence.
var osReleases = []string{"etc/os-release", "usr/lib/os-release"}

func isOSRelease(at string, _ []byte) bool { return at == osReleases[0] || at == osReleases[1] }

func readOSRelease(c *content) (findings, error) {
	text, err := c.text()
	if err != nil {
		return findings{}, err
	}
	var d Distro
	for line := range bytes.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(string(line)), "=")
		if !ok {
			continue
		}
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			d.ID = value
		case "VERSION_ID":
			d.Version = value
		case "PRETTY_NAME":
			d.Name = value
		}
	}
	return findings{distro: &d}, nil
}
