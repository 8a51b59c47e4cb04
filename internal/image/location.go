package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
)

// location is what a reference says about where to look.
type location struct {
	name   string // an image name; set if path is not
	path   string // of a layout or archive
	tag    string // the image's name in there; may be empty
	digest digest.Digest
	docker bool // it must be an archive of docker save
}

// IsPath says whether a reference names a layout or an archive and not an image by its name.
func IsPath(ref string) bool {
	l, err := parseLocation(ref)
	return err != nil || l.path != ""
}

// CheckPath returns an error when a reference names a layout or an archive that is not there.
func CheckPath(ref string) error {
	_, err := parseLocation(ref)
	return err
}

// parseLocation tells names from places.
func parseLocation(ref string) (location, error) {
	if name, ok := strings.CutPrefix(ref, "docker-image://"); ok {
		return location{name: name}, nil
	}
	for _, scheme := range []string{"oci-layout://", "oci-archive:", "docker-archive:", "oci:"} {
		rest, ok := strings.CutPrefix(ref, scheme)
		if !ok {
			continue
		}
		// "oci:latest", "oci-archive:1" are valid image names.
		if !strings.HasSuffix(scheme, "//") && !strings.Contains(rest, "/") && strings.Count(rest, ":") == 0 {
			break
		}
		l := location{docker: scheme == "docker-archive:"}
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			if d := digest.Digest(rest[i+1:]); d.Validate() == nil {
				l.digest, rest = d, rest[:i]
			}
		}
		return l, l.split(rest)
	}
	return location{name: ref}, nil
}

// split finds out where the path ends: it is the shortest one before a colon that exists. Paths and image names may both
// have colons in them.
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
