package parser

import (
	"errors"
	"strings"

	"github.com/layerbuild/layerbuild/internal/giturl"
)

// Kind is the kind of a source of ADD.
type Kind int

// The kinds of sources.
const (
	// Local is a path in the build context, a stage or an image.
	Local Kind = iota
	// HTTP is a file at an http or https URL.
	HTTP
	// Git is a git repository: git@host:path, ssh://, git://, or an http URL
	// whose path ends in .git.
	Git
)

// SourceKind returns the kind of a source of ADD. It returns an error for a git reference with
// invalid options.
func SourceKind(src string) (Kind, error) {
	g, err := parseGit(src)
	switch {
	case err != nil:
		return Git, err
	case g != nil:
		return Git, nil
	case strings.HasPrefix(src, "http://"), strings.HasPrefix(src, "https://"):
		return HTTP, nil
	default:
		return Local, nil
	}
}

// parseGit returns nil for a source that is not a git reference.
func parseGit(src string) (*giturl.URL, error) {
	if giturl.Ambiguous(src) {
		return nil, nil // it is a repository only as a context
	}
	u, err := giturl.Parse(src)
	if errors.Is(err, giturl.ErrNotGit) {
		return nil, nil
	}
	return u, err
}
