package parser

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Kind is the kind of place of a source of ADD.
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

var (
	urlScheme = pattern(`^[a-zA-Z0-9]+://`)
	scpStyle  = pattern(`^[a-zA-Z0-9-_]+@[a-zA-Z0-9-.]+:.*?(?:\?(.*?))?(?:#.*)?$`)
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

// gitRef holds the options of a git reference that the plan depends on.
type gitRef struct {
	keepGitDir *bool
	checksum   string
}

// parseGit returns nil for a source that is not a git reference.
func parseGit(src string) (*gitRef, error) {
	if strings.HasPrefix(src, "./") || strings.HasPrefix(src, "../") ||
		!strings.Contains(src, "://") && !strings.Contains(src, "@") {
		return nil, nil // a path, as in most cases
	}
	var query url.Values
	var fragment string
	if scheme := urlScheme().FindString(src); scheme != "" {
		switch strings.ToLower(scheme) {
		case "http://", "https://", "ssh://", "git://":
		default:
			return nil, nil
		}
		u, err := url.Parse(src)
		if err != nil {
			return nil, nil // not a URL: a file with an unusual name
		}
		if (u.Scheme == "http" || u.Scheme == "https") && !strings.HasSuffix(u.Path, ".git") {
			return nil, nil
		}
		query, fragment = u.Query(), u.Fragment
	} else {
		m := scpStyle().FindStringSubmatch(src)
		if m == nil {
			return nil, nil
		}
		var err error
		if query, err = url.ParseQuery(m[1]); err != nil {
			return nil, nil // as above
		}
		_, fragment, _ = strings.Cut(src, "#")
	}
	ref, subdir, _ := strings.Cut(fragment, ":")
	return gitOptions(query, ref, strings.Trim(subdir, "/"))
}

// gitOptions checks the options in the query of a git reference, alone and together with the
// #ref:subdir form.
func gitOptions(query url.Values, ref, subdir string) (*gitRef, error) {
	g := &gitRef{}
	flag := func(k string) (*bool, error) {
		v := query.Get(k)
		if v == "" {
			v = "true"
		}
		b, err := strconv.ParseBool(v)
		if err != nil {
			return nil, fmt.Errorf("invalid %s value: %q", k, v)
		}
		return &b, nil
	}
	for _, k := range sortedKeys(query) {
		v := query[k]
		if len(v) > 1 {
			return nil, fmt.Errorf("query %q has multiple values", k)
		}
		var err error
		switch k {
		case "keep-git-dir":
			g.keepGitDir, err = flag(k)
		case "submodules", "fetch-by-commit":
			_, err = flag(k)
		case "ref", "tag", "branch", "subdir", "checksum", "commit", "mtime":
			if v[0] == "" {
				err = fmt.Errorf("query %q has no value", k)
			}
		default:
			err = fmt.Errorf("unexpected query %q", k)
		}
		if err != nil {
			return nil, err
		}
	}
	g.checksum = query.Get("checksum")
	if c := query.Get("commit"); c != "" {
		g.checksum = c
	}
	if query.Has("tag") && query.Has("branch") {
		return nil, errors.New("branch conflicts with tag")
	}
	if m := query.Get("mtime"); m != "" && m != "checkout" && m != "commit" {
		return nil, fmt.Errorf("invalid mtime value: %q (must be \"checkout\" or \"commit\")", m)
	}
	if s := query.Get("subdir"); s != "" && subdir != "" && s != subdir {
		return nil, fmt.Errorf("subdir conflicts: %q vs %q", subdir, s)
	}
	for _, r := range []string{query.Get("ref"), withPrefix(query.Get("tag"), "refs/tags/"),
		withPrefix(query.Get("branch"), "refs/heads/")} {
		if r == "" {
			continue
		}
		if ref != "" && ref != r {
			return nil, fmt.Errorf("ref conflicts: %q vs %q", ref, r)
		}
		ref = r
	}
	return g, nil
}

func withPrefix(s, prefix string) string {
	if s == "" || strings.HasPrefix(s, prefix) {
		return s
	}
	return prefix + s
}
