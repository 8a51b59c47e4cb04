package registry

import (
	"errors"
	"fmt"
	"strings"

	"github.com/layerbuild/layerbuild/internal/reference"
)

// selector returns the part of a URL that selects the manifest.
func selector(n reference.Name) string {
	if n.Digest != "" {
		return n.Digest.String()
	}
	return n.Tag
}

// candidates returns the names that a user's name may refer to, in order. A name with a domain
// refers to itself. Others are looked up among the aliases, then in each of the search
// registries. If none are configured, they are on Docker Hub, as in every Dockerfile.
func (c *config) candidates(s string) ([]reference.Name, error) {
	n, err := reference.Full(s)
	if err != nil {
		return nil, err
	}
	short, isShort := shortName(s)
	if !isShort {
		return []reference.Name{n}, nil
	}
	with := func(repository string) (reference.Name, error) {
		ref, err := reference.Parse(repository)
		if err != nil {
			return reference.Name{}, fmt.Errorf("image name %q as %s: %w", s, repository, err)
		}
		ref.Tag, ref.Digest = n.Tag, n.Digest
		return ref, nil
	}
	alias := c.aliases[short]
	if alias == "" && len(c.search) > 0 {
		alias = c.distroAliases[short]
	}
	if alias != "" {
		a, err := with(alias)
		return []reference.Name{a}, err
	}
	if len(c.search) == 0 {
		return []reference.Name{n}, nil
	}
	var out []reference.Name
	for _, registry := range c.search {
		a, err := with(trimLocation(registry) + "/" + short)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// shortName returns the name without tag and digest, and reports whether it has no registry.
func shortName(s string) (string, bool) {
	s, _, _ = strings.Cut(s, "@")
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, '/') {
		s = s[:i]
	}
	return s, !reference.HasRegistry(s)
}

// endpoint is a place where a name is looked up.
type endpoint struct {
	host     string // host[:port]
	repo     string
	insecure bool
	mirror   bool
}

func (e endpoint) String() string {
	s := e.host + "/" + e.repo
	if e.mirror {
		s = "mirror " + s
	}
	return s
}

// endpoints returns the places to pull a name from: the mirrors of the options, those of the files,
// then the registry itself.
func (c *config) endpoints(n reference.Name) ([]endpoint, error) {
	t := c.find(n.String())
	if t != nil && t.Blocked {
		return nil, fmt.Errorf("registry %s is %w", t.Prefix, ErrBlocked)
	}
	list, err := c.ownMirrors(n)
	if err == nil && (len(list) == 0 || !c.onlyMirrors) {
		var rest []endpoint
		rest, err = t.endpoints(n)
		list = append(list, rest...)
	}
	for i := range list {
		list[i].insecure = list[i].insecure || c.insecure
	}
	return list, err
}

// ownMirrors returns the places of a name in the mirrors of the options.
func (c *config) ownMirrors(n reference.Name) (list []endpoint, err error) {
	for _, m := range c.mirrors {
		if matchPrefix(n.String(), m.Prefix) < 0 {
			continue
		}
		e, err := rewrite(n, m.Prefix, trimLocation(m.Location), false)
		if err != nil {
			return nil, fmt.Errorf("mirror %s of %s: %w", m.Location, m.Prefix, err)
		}
		e.mirror = true
		list = append(list, e)
	}
	return list, nil
}

// endpoints returns the places of a name in the mirrors of a table, and in its registry. t may be
// nil.
func (t *table) endpoints(n reference.Name) ([]endpoint, error) {
	if t == nil {
		return []endpoint{{host: serverOf(n.Domain), repo: n.Path}}, nil
	}
	var out []endpoint
	for _, m := range t.Mirrors {
		if m.wanted(t, n.Digest != "") {
			e, err := rewrite(n, t.Prefix, m.Location, m.Insecure)
			if err != nil {
				return nil, fmt.Errorf("mirror %s of %s: %w", m.Location, t.Prefix, err)
			}
			e.mirror = true
			out = append(out, e)
		}
	}
	e, err := rewrite(n, t.Prefix, t.Location, t.Insecure)
	if err != nil {
		return nil, fmt.Errorf("location %s of %s: %w", t.Location, t.Prefix, err)
	}
	return append(out, e), nil
}

// rewrite replaces a prefix with a location; an empty location leaves the name unchanged. The
// tag or digest never changes: a prefix that has one only selects the names to which it applies.
func rewrite(n reference.Name, prefix, location string, insecure bool) (endpoint, error) {
	if location == "" {
		return endpoint{host: serverOf(n.Domain), repo: n.Path, insecure: insecure}, nil
	}
	full := n.String()
	suffix := full[len(n.Repository()):] // the tag or digest
	rest := strings.TrimSuffix(full[matchPrefix(full, prefix):], suffix)
	host, repo, ok := strings.Cut(location+rest, "/")
	if !ok || repo == "" {
		return endpoint{}, errors.New("no repository remains of the name")
	}
	if err := reference.CheckRepository(location + rest); err != nil {
		return endpoint{}, fmt.Errorf("%s: %w", location+rest, err)
	}
	return endpoint{host: serverOf(host), repo: repo, insecure: insecure}, nil
}

// hubServer is the server of Docker Hub.
const hubServer = "registry-1.docker.io"

// serverOf returns the server of a registry's name.
func serverOf(domain string) string {
	switch domain {
	case reference.DockerHub, reference.LegacyDockerHub:
		return hubServer
	}
	return domain
}
