package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The schemes of references. A reference without one is an image name.
const (
	SchemeName          = "docker-image://" // an image name
	SchemeLayout        = "oci-layout://"   // an OCI image layout, or an archive of one
	SchemeOCI           = "oci:"            // the same
	SchemeOCIArchive    = "oci-archive:"    // the same
	SchemeDockerArchive = "docker-archive:" // an archive of docker save
)

// location is a parsed reference: an image name or the path of a layout.
type location struct {
	name   string // an image name; "" if path is set
	path   string // the path of a layout or archive
	tag    string // the image's name in the layout; may be empty
	digest digest.Digest
	docker bool // the archive must be one of docker save
}

// IsPath reports whether a reference names a layout or an archive rather than an image.
func IsPath(ref string) bool {
	l, err := parseLocation(ref)
	return err != nil || l.path != ""
}

// CheckPath returns an error if a reference names a layout or an archive that does not exist.
func CheckPath(ref string) error {
	_, err := parseLocation(ref)
	return err
}

// parseLocation parses a reference, which is an image name or a layout's path.
func parseLocation(ref string) (location, error) {
	if name, ok := strings.CutPrefix(ref, SchemeName); ok {
		return location{name: name}, nil
	}
	for _, scheme := range []string{SchemeLayout, SchemeOCIArchive, SchemeDockerArchive,
		SchemeOCI} {
		rest, ok := strings.CutPrefix(ref, scheme)
		if !ok {
			continue
		}
		// "oci:latest", "oci-archive:1" are valid image names.
		if !strings.HasSuffix(scheme, "//") && !strings.Contains(rest, "/") &&
			strings.Count(rest, ":") == 0 {
			break
		}
		l := location{docker: scheme == SchemeDockerArchive}
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			if d := digest.Digest(rest[i+1:]); d.Validate() == nil {
				l.digest, rest = d, rest[:i]
			}
		}
		return l, l.split(rest)
	}
	return location{name: ref}, nil
}

// split finds the end of the path: the first colon before which the string is the path of an
// existing file. Both paths and image names may contain colons.
func (l *location) split(s string) error {
	if s == "" {
		return fmt.Errorf("image layout: no path is given")
	}
	if _, err := os.Stat(s); err == nil {
		l.path = s
		return nil
	}
	for i := range len(s) {
		if s[i] != ':' {
			continue
		}
		if _, err := os.Stat(s[:i]); err == nil && i > 0 {
			l.path, l.tag = s[:i], s[i+1:]
			return nil
		}
	}
	path, _, _ := strings.Cut(s, ":")
	if _, err := os.Stat(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("image layout: %w", err)
	}
	return fmt.Errorf("image layout: %s: no such file or directory", s)
}
