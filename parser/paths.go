package parser

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// DefaultPath is the PATH of images without one, except on Windows.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// resolvePath joins p to dir unless it is absolute. An absolute path is kept as written, as in
// BuildKit, since it is visible in the history. With keepSlash a trailing "/" or "/." is
// preserved. For Windows, backslashes become slashes and the drive, which must be C:, is
// removed.
func resolvePath(dir, p, os string, keepSlash bool) (string, error) {
	p = toSlash(p, os)
	dir = toSlash(dir, os)
	orig := p
	dir, err := dropDrive(dir, os, keepSlash)
	if err != nil {
		return "", err
	}
	if !path.IsAbs(dir) {
		dir = path.Join("/", dir)
	}
	if p == "" {
		p = dir
	}
	if p, err = dropDrive(p, os, keepSlash); err != nil {
		return "", err
	}
	if !path.IsAbs(p) {
		p = path.Join(dir, p)
	}
	if !keepSlash {
		return p, nil
	}
	switch {
	case strings.HasSuffix(orig, "/") && !strings.HasSuffix(p, "/"):
		p += "/"
	case strings.HasSuffix(orig, "/."):
		if p != "/" {
			p += "/"
		}
		p += "."
	}
	return p, nil
}

// cleanDest cleans an absolute path but keeps a trailing "/" or "/.", which marks the destination
// of a COPY as a directory.
func cleanDest(p string) string {
	clean := path.Clean(p)
	switch {
	case strings.HasSuffix(p, "/") && clean != "/":
		clean += "/"
	case strings.HasSuffix(p, "/.") && clean == "/":
		clean += "."
	case strings.HasSuffix(p, "/."):
		clean += "/."
	}
	return clean
}

func isAbs(p, os string) bool {
	p, err := dropDrive(p, os, false)
	return err == nil && path.IsAbs(p)
}

func toSlash(p, os string) string {
	if os != "windows" {
		return p
	}
	return strings.ReplaceAll(p, `\`, "/")
}

// dropDrive removes the drive of a Windows path and returns other paths unchanged.
func dropDrive(p, os string, keepSlash bool) (string, error) {
	if os != "windows" {
		return p, nil
	}
	p = toSlash(p, os)
	if len(p) == 2 && p[1] == ':' {
		return "", fmt.Errorf("no relative path specified in %q", p)
	}
	if strings.HasPrefix(p, "//") {
		return "", errors.New("UNC paths are not supported")
	}
	if drive, rest, ok := strings.Cut(p, ":"); ok {
		if !strings.EqualFold(drive, "c") {
			return "", errors.New("the specified path is not on the system drive (C:)")
		}
		p = rest
	}
	clean := path.Clean(p)
	if keepSlash && len(clean) > 1 && strings.HasSuffix(p, "/") {
		clean += "/"
	}
	return clean, nil
}
