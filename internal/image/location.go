package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/layerbuild/layerbuild/internal/imageref"
)

// The schemes of references. A reference without one is an image name.
const (
	SchemeName          = string(imageref.Name)
	SchemeLayout        = string(imageref.Layout)
	SchemeOCI           = string(imageref.OCI)
	SchemeOCIArchive    = string(imageref.OCIArchive)
	SchemeDockerArchive = string(imageref.DockerArchive)
)

// HasPlace reports whether a reference names the place of an image, such as a layout, an archive, a
// daemon or a registry. The image is not looked up in the store then.
func HasPlace(ref string) bool {
	l, err := parseRef(ref)
	return err != nil || l.Path != "" || l.Scheme == imageref.Daemon || l.Scheme == imageref.Docker
}

// CheckPath returns an error if a reference names a layout or an archive that does not exist, or
// has a scheme that is not known.
func CheckPath(ref string) error {
	_, err := parseLocation(ref)
	return err
}

// parseRef parses a reference.
func parseRef(ref string) (imageref.Ref, error) {
	return imageref.Parse(ref, imageref.Options{Exists: Exists})
}

// Exists reports whether there is a file at a path.
func Exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// parseLocation parses a reference. It returns an error if a layout or an archive does not exist.
func parseLocation(ref string) (imageref.Ref, error) {
	l, err := parseRef(ref)
	if err == nil && l.Path != "" {
		err = checkExists(l)
	}
	return l, err
}

func checkExists(l imageref.Ref) error {
	_, err := os.Stat(l.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		path := l.Path
		if l.Tag != "" {
			path += ":" + l.Tag // there is no telling where the path ends
		}
		return fmt.Errorf("image layout: %s: no such file or directory", path)
	case err != nil:
		return fmt.Errorf("image layout: %w", err)
	}
	return nil
}
