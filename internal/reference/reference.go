package reference

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The names of Docker Hub as a registry. Parse replaces the old one.
const (
	DockerHub       = "docker.io"
	LegacyDockerHub = "index.docker.io"
)

const (
	officialPrefix = "library/" // prefix of Docker Hub's official images
	maxPath        = 255
)

var (
	errFormat    = errors.New("invalid reference format")
	errUppercase = errors.New("repository name must be lowercase")
	errTooLong   = fmt.Errorf("repository name must not be more than %d characters", maxPath)
	errCanonical = errors.New("repository name must be canonical")
)

// Name is a parsed image name.
type Name struct {
	// "docker.io", "localhost:5000"; "" if the first component is valid only in a path ("a_b.c/d")
	Domain string
	Path   string        // "library/busybox"
	Tag    string        // "" if there is none
	Digest digest.Digest // "" if there is none
}

// Parse parses a name as users write it: a name without a registry is on Docker Hub.
func Parse(s string) (Name, error) {
	if len(s) == 64 && all(s, isHex) {
		return Name{}, fmt.Errorf(
			"invalid repository name (%s), cannot specify 64-byte hexadecimal strings", s)
	}
	domain, rest := splitDomain(s)
	if path, _, _ := strings.Cut(rest, ":"); strings.ToLower(path) != path {
		return Name{}, fmt.Errorf(
			"invalid reference format: repository name (%s) must be lowercase", path)
	}
	full := domain + "/" + rest
	n, ok := split(full)
	if !ok {
		if _, ok := split(strings.ToLower(full)); ok {
			return Name{}, errUppercase
		}
		return Name{}, errFormat
	}
	if len(n.Path) > maxPath {
		return Name{}, errTooLong
	}
	if n.Digest != "" {
		if err := n.Digest.Validate(); err != nil {
			return Name{}, err
		}
	}
	return n, nil
}

// ParseCanonical parses a name without omitted parts.
func ParseCanonical(s string) (Name, error) {
	n, err := Parse(s)
	if err == nil && n.String() != s {
		return Name{}, errCanonical
	}
	return n, err
}

// Full returns the full form of a name that a user wrote: "busybox" is
// docker.io/library/busybox:latest. A name with a digest keeps the digest and loses its tag. Two
// names denote the same image if and only if their full forms are equal. The error names s.
func Full(s string) (Name, error) {
	n, err := Parse(s)
	if err != nil {
		return Name{}, fmt.Errorf("image name %q: %w", s, err)
	}
	if n.Digest != "" {
		n.Tag = ""
	}
	return n.OrLatest(), nil
}

// CheckRepository returns an error if a name is not the name of a repository, without tag and
// digest.
func CheckRepository(s string) error {
	n, ok := split(s)
	if !ok || n.Tag != "" || n.Digest != "" {
		return errFormat
	}
	if len(n.Path) > maxPath {
		return errTooLong
	}
	return nil
}

// Repository returns the name without tag and digest.
func (n Name) Repository() string {
	if n.Domain == "" {
		return n.Path
	}
	return n.Domain + "/" + n.Path
}

// String returns the full name, with the tag and the digest if it has them.
func (n Name) String() string {
	s := n.Repository()
	if n.Tag != "" {
		s += ":" + n.Tag
	}
	if n.Digest != "" {
		s += "@" + n.Digest.String()
	}
	return s
}

// Familiar returns the name as users write it, without the parts that Parse adds.
func (n Name) Familiar() string {
	if n.Domain == DockerHub {
		n.Domain = ""
		if rest, ok := strings.CutPrefix(n.Path, officialPrefix); ok &&
			!strings.Contains(rest, "/") {
			n.Path = rest
		}
	}
	return n.String()
}

// OrLatest returns the name, with the tag latest if it has neither tag nor digest.
func (n Name) OrLatest() Name {
	if n.Tag == "" && n.Digest == "" {
		n.Tag = "latest"
	}
	return n
}

// HasRegistry reports whether a name begins with a registry: its first part looks like a host.
func HasRegistry(s string) bool {
	first, _, ok := strings.Cut(s, "/")
	return ok && (first == "localhost" || strings.ContainsAny(first, ".:") ||
		strings.ToLower(first) != first)
}

// splitDomain returns the registry at the beginning of a name, or Docker Hub if there is none.
func splitDomain(s string) (domain, rest string) {
	domain, rest = DockerHub, s
	if HasRegistry(s) {
		domain, rest, _ = strings.Cut(s, "/")
	}
	if domain == LegacyDockerHub {
		domain = DockerHub
	}
	if domain == DockerHub && !strings.Contains(rest, "/") {
		rest = officialPrefix + rest
	}
	return domain, rest
}

// split parses [domain/]path[:tag][@digest]. It does not check the digest's algorithm and length.
func split(s string) (Name, bool) {
	var n Name
	if first, rest, ok := strings.Cut(s, "/"); ok && IsDomain(first) {
		n.Domain, s = first, rest
	}
	s, sum, hasDigest := strings.Cut(s, "@")
	path, tag, hasTag := strings.Cut(s, ":")
	n.Path, n.Tag, n.Digest = path, tag, digest.Digest(sum)
	return n, isPath(path) && (!hasTag || isTag(tag)) && (!hasDigest || isDigest(sum))
}

// IsDomain reports whether s is a host name or an IPv6 address in brackets, perhaps followed by a
// port.
func IsDomain(s string) bool {
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		if i+1 == len(s) || !all(s[i+1:], isDigit) {
			return false
		}
		s = s[:i]
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		return ok && inner != "" && all(inner, func(c byte) bool { return c == ':' || isXDigit(c) })
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' ||
			!all(label, func(c byte) bool { return c == '-' || isAlnum(c) }) {
			return false
		}
	}
	return true
}

func isPath(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if !isComponent(part) {
			return false
		}
	}
	return true
}

// isComponent reports whether s consists of lower case letters and digits, separated by a dot, one
// or two underscores, or any number of dashes.
func isComponent(s string) bool {
	for {
		word := strings.TrimLeft(s, "abcdefghijklmnopqrstuvwxyz0123456789")
		switch {
		case len(word) == len(s):
			return false
		case word == "":
			return true
		case word[0] == '-':
			s = strings.TrimLeft(word, "-")
		case strings.HasPrefix(word, "__"):
			s = word[2:]
		case word[0] == '.', word[0] == '_':
			s = word[1:]
		default:
			return false
		}
	}
}

func isTag(s string) bool {
	return 0 < len(s) && len(s) <= 128 && s[0] != '.' && s[0] != '-' &&
		all(s, func(c byte) bool { return c == '_' || c == '.' || c == '-' || isAlnum(c) })
}

// isDigest reports whether s has the form of a digest of any algorithm.
func isDigest(s string) bool {
	algorithm, sum, _ := strings.Cut(s, ":")
	word := false // inside a word
	for i := range len(algorithm) {
		switch c := algorithm[i]; {
		case word && isAlnum(c), !word && isLetter(c):
			word = true
		case word && strings.IndexByte("-_+.", c) >= 0:
			word = false
		default:
			return false
		}
	}
	return word && len(sum) >= 32 && all(sum, isXDigit)
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isAlnum(c byte) bool  { return isDigit(c) || isLetter(c) }
func isHex(c byte) bool    { return isDigit(c) || 'a' <= c && c <= 'f' }
func isXDigit(c byte) bool { return isHex(c) || 'A' <= c && c <= 'F' }

// all reports whether is returns true for each byte of s.
func all(s string, is func(byte) bool) bool {
	for i := range len(s) {
		if !is(s[i]) {
			return false
		}
	}
	return true
}
