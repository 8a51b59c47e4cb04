package giturl

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

// URL is a git URL in the syntax of Dockerfiles and build contexts: a repository, with the selected
// part after "#" or in the query.
type URL struct {
	Remote string // the URL for git
	Ref    string // a branch, a tag, "refs/…" or a commit; "": the default branch
	Subdir string // relative to the repository's root, cleaned; "": the root
	Commit string // the commit, or a prefix of it, that Ref must refer to
	// KeepGitDir and Submodules are nil if the URL does not set them.
	KeepGitDir *bool
	Submodules *bool
	MTime      string // "", "checkout" or "commit"
	// FetchByCommit is set to use Commit without checking that Ref refers to it.
	FetchByCommit bool
}

// Ambiguous reports whether a git URL could also be a path (github.com/user/repository). It is
// treated as a URL only if it names a context.
func Ambiguous(address string) bool { return strings.HasPrefix(address, "github.com/") }

// IsSSH reports whether git reaches the repository at an address by SSH. It returns false for an
// address that is not a git URL.
func IsSSH(address string) bool {
	u, err := Parse(address)
	return err == nil && (!hasScheme(u.Remote) || strings.HasPrefix(u.Remote, "ssh://"))
}

// ErrNotGit is wrapped by the error of Parse for an address that is not a git URL.
var ErrNotGit = errors.New("not a git URL")

// pathError is the error for an address without a protocol, such as a path. It is a type because
// the parser asks of each source of a COPY whether it is a git URL: formatting an error each time
// was 4 % of its instructions.
type pathError string

func (e pathError) Error() string { return fmt.Sprintf("%q: %v", string(e), ErrNotGit) }
func (e pathError) Unwrap() error { return ErrNotGit }

// Parse parses a git URL like BuildKit: git:// and ssh:// URLs, http URLs with a path that ends in
// .git, user@host:path, and github.com/…. The error wraps ErrNotGit for everything else.
func Parse(address string) (*URL, error) {
	g := &URL{}
	u, err := g.split(address)
	if err != nil {
		return nil, err
	}
	ref, subdir, _ := strings.Cut(u.fragment, ":")
	g.Ref, g.Subdir = ref, path.Join("/", subdir)[1:]
	if err := g.query(u.query); err != nil {
		return nil, fmt.Errorf("git URL %s: %w", Redact(address), err)
	}
	if strings.HasPrefix(g.Ref, "-") || strings.HasPrefix(g.Remote, "-") {
		return nil, fmt.Errorf("git URL %s: a name cannot begin with a dash", Redact(address))
	}
	return g, nil
}

// urlParts are the parts of a URL that are not passed to git.
type urlParts struct {
	fragment string
	query    url.Values
}

func (g *URL) split(address string) (urlParts, error) {
	ambiguous := Ambiguous(address)
	if ambiguous {
		address = "https://" + address
	}
	if !hasScheme(address) {
		return g.splitSCP(address)
	}
	u, err := url.Parse(address)
	if err != nil {
		return urlParts{}, fmt.Errorf("%w: %w", ErrNotGit, err)
	}
	switch u.Scheme {
	case "git", "ssh":
	case "http", "https":
		if !ambiguous && !strings.HasSuffix(u.Path, ".git") {
			return urlParts{}, fmt.Errorf("%s: %w", u.Redacted(), ErrNotGit)
		}
	default:
		return urlParts{}, fmt.Errorf("%s: %w: the protocol is not git, ssh, http or https",
			u.Redacted(), ErrNotGit)
	}
	parts := urlParts{u.Fragment, u.Query()}
	u.Fragment, u.RawFragment, u.RawQuery, u.ForceQuery = "", "", "", false
	g.Remote = u.String()
	return parts, nil
}

// hasScheme reports whether an address is a URL, and not in the form of scp(1).
func hasScheme(address string) bool {
	scheme, _, ok := strings.Cut(address, "://")
	return ok && only(scheme, alphanumeric)
}

const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// only reports whether s is not empty and all of its characters are in set.
func only(s, set string) bool { return s != "" && strings.Trim(s, set) == "" }

// splitSCP parses user@host:path, the form of scp(1).
func (g *URL) splitSCP(address string) (urlParts, error) {
	user, place, isUser := strings.Cut(address, "@")
	host, _, isHost := strings.Cut(place, ":")
	if !isUser || !isHost || !only(user, alphanumeric+"_-") || !only(host, alphanumeric+".-") {
		return urlParts{}, pathError(address)
	}
	rest, fragment, _ := strings.Cut(address, "#")
	rest, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return urlParts{}, fmt.Errorf("%w: %w", ErrNotGit, err)
	}
	g.Remote = rest
	return urlParts{fragment, values}, nil
}

// query applies the values of the query.
func (g *URL) query(q url.Values) error {
	var tag, branch string
	for name, values := range q {
		if len(values) > 1 {
			return fmt.Errorf("query %q has several values", name)
		}
		v := values[0]
		var err error
		switch name {
		case "ref":
			err = once(&g.Ref, v, name)
		case "subdir":
			err = once(&g.Subdir, path.Join("/", v)[1:], name)
		case "tag":
			tag = v
		case "branch":
			branch = v
		case "checksum", "commit":
			err = once(&g.Commit, v, name)
		case "keep-git-dir":
			g.KeepGitDir, err = flag(v)
		case "submodules":
			g.Submodules, err = flag(v)
		case "fetch-by-commit":
			var on *bool
			if on, err = flag(v); err == nil {
				g.FetchByCommit = *on
			}
		case "mtime":
			if g.MTime = v; v != "checkout" && v != "commit" {
				err = errors.New(`must be "checkout" or "commit"`)
			}
		default:
			return fmt.Errorf("unexpected query %q", name)
		}
		if err != nil {
			return fmt.Errorf("query %q: %w", name, err)
		}
		if v == "" && !slices.Contains(flags, name) {
			return fmt.Errorf("query %q has no value", name)
		}
	}
	return g.tagOrBranch(tag, branch)
}

// flags are the names of options that are true if their value is empty.
var flags = []string{"keep-git-dir", "submodules", "fetch-by-commit"}

func (g *URL) tagOrBranch(tag, branch string) error {
	if tag != "" && branch != "" {
		return errors.New("a tag and a branch cannot both be given")
	}
	if tag != "" {
		return once(&g.Ref, "refs/tags/"+strings.TrimPrefix(tag, "refs/tags/"), "ref")
	}
	if branch != "" {
		return once(&g.Ref, "refs/heads/"+strings.TrimPrefix(branch, "refs/heads/"), "ref")
	}
	return nil
}

// once sets a value. It returns an error if another value was already set.
func once(dst *string, v, name string) error {
	if *dst != "" && *dst != v {
		return fmt.Errorf("%s conflicts: it is given as %q and as %q", name, *dst, v)
	}
	*dst = v
	return nil
}

func flag(v string) (*bool, error) {
	on := true
	if v != "" {
		var err error
		if on, err = strconv.ParseBool(v); err != nil {
			return nil, fmt.Errorf("%q is neither true nor false", v)
		}
	}
	return &on, nil
}

// Below returns the address of a directory of the repository that an address selects, relative to
// the directory that the address selects. It returns the errors of Parse.
func Below(address, dir string) (string, error) {
	u, err := Parse(address)
	if err != nil {
		return "", err
	}
	rest, fragment, _ := strings.Cut(address, "#")
	ref, _, _ := strings.Cut(fragment, ":")
	place, query, _ := strings.Cut(rest, "?")
	if values, _ := url.ParseQuery(query); len(values) > 0 { // Parse has checked it
		values.Del("subdir")
		if query = values.Encode(); query != "" {
			place += "?" + query
		}
	}
	subdir := path.Join("/", u.Subdir, path.Join("/", dir))[1:]
	if hasScheme(place) || Ambiguous(place) {
		subdir = (&url.URL{Fragment: subdir}).EscapedFragment()
	}
	return place + "#" + ref + ":" + subdir, nil
}

// Redact removes the password from an address, for messages.
func Redact(address string) string {
	if u, err := url.Parse(address); err == nil {
		return u.Redacted()
	}
	return address
}
