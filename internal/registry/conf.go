package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/layerbuild/layerbuild/internal/hostfile"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/sorting"
)

// config is the content of a containers-registries.conf(5).
type config struct {
	search     []string
	registries []table // the longest prefix first
	aliases    map[string]string
	// distroAliases come from the system's drop-in directory. Distributions ship a list there
	// that resolves "fedora" to Fedora's registry, for podman. In a Dockerfile "fedora" means
	// Docker Hub. The list is used only if search registries are configured.
	distroAliases map[string]string

	// set from the options of the client
	mirrors     []Mirror
	onlyMirrors bool
	insecure    bool // plain http and unverified certificates are allowed for all servers
}

// table is one [[registry]].
type table struct {
	Prefix             string   `toml:"prefix"`
	Location           string   `toml:"location"`
	Insecure           bool     `toml:"insecure"`
	Blocked            bool     `toml:"blocked"`
	MirrorByDigestOnly bool     `toml:"mirror-by-digest-only"`
	Mirrors            []mirror `toml:"mirror"`
}

// mirror is one [[registry.mirror]].
type mirror struct {
	Location       string `toml:"location"`
	Insecure       bool   `toml:"insecure"`
	PullFromMirror string `toml:"pull-from-mirror"`
}

// file is one file of the configuration.
type file struct {
	Search     *[]string         `toml:"unqualified-search-registries"`
	Registries []table           `toml:"registry"`
	Aliases    map[string]string `toml:"aliases"`
	// Version1 distinguishes version 1 of the format from an invalid version 2.
	Version1 map[string]any `toml:"registries"`
}

// loadConfig reads the configuration: the named file, or the user's, or the system's, with its
// drop-ins. A file that CONTAINERS_REGISTRIES_CONF names is read without drop-ins.
func loadConfig(path string) (*config, error) {
	c := &config{aliases: map[string]string{}, distroAliases: map[string]string{}}
	if path == "" {
		path = os.Getenv("CONTAINERS_REGISTRIES_CONF")
	}
	if path != "" {
		if err := c.read(path, c.aliases); err != nil {
			return nil, err
		}
		return c.finish()
	}
	user := ""
	if home, err := os.UserHomeDir(); err == nil {
		user = filepath.Join(home, ".config", "containers")
		if x := os.Getenv("XDG_CONFIG_HOME"); x != "" {
			user = filepath.Join(x, "containers")
		}
	}
	const system = "/etc/containers"
	ofUser := false
	if user != "" {
		err := c.read(filepath.Join(user, "registries.conf"), c.aliases)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		ofUser = err == nil
	}
	if !ofUser {
		err := c.read(filepath.Join(system, "registries.conf"), c.aliases)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err := c.readDir(filepath.Join(system, "registries.conf.d"),
			c.distroAliases); err != nil {
			return nil, err
		}
	}
	if user != "" {
		if err := c.readDir(filepath.Join(user, "registries.conf.d"), c.aliases); err != nil {
			return nil, err
		}
	}
	return c.finish()
}

func (c *config) readDir(dir string, aliases map[string]string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.conf")) // sorted
	if err != nil {
		return fmt.Errorf("read %s: %w", dir, err)
	}
	for _, n := range names {
		if fi, err := os.Stat(n); err != nil || fi.IsDir() {
			continue
		}
		if err := c.read(n, aliases); err != nil {
			return err
		}
	}
	return nil
}

func (c *config) read(path string, aliases map[string]string) error {
	data, err := hostfile.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read registries configuration: %w", err)
	}
	if err := c.parse(string(data), aliases); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// parse adds the content of a file to that of earlier files.
func (c *config) parse(data string, aliases map[string]string) error {
	var f file
	if _, err := toml.Decode(data, &f); err != nil {
		return err
	}
	if f.Version1 != nil {
		return errors.New("this is version 1 of the format ([registries.search] and its like), " +
			"which is not supported; use unqualified-search-registries and [[registry]]")
	}
	if f.Search != nil {
		c.search = *f.Search
	}
	for _, t := range f.Registries {
		if err := t.check(); err != nil {
			return err
		}
		c.registries = slices.DeleteFunc(c.registries,
			func(o table) bool { return o.Prefix == t.Prefix })
		c.registries = append(c.registries, t)
	}
	for name, value := range f.Aliases {
		if value == "" {
			delete(aliases, name)
			continue
		}
		if _, err := reference.ParseCanonical(value); err != nil {
			return fmt.Errorf("alias %q = %q: %w", name, value, err)
		}
		aliases[name] = value
	}
	return nil
}

// check completes a table and returns an error if it is invalid.
func (t *table) check() error {
	t.Prefix, t.Location = trimLocation(t.Prefix), trimLocation(t.Location)
	if t.Prefix == "" {
		t.Prefix = t.Location
	}
	if t.Prefix == "" {
		return errors.New("a [[registry]] has neither a prefix nor a location")
	}
	if rest, ok := strings.CutPrefix(t.Prefix, "*."); strings.Contains(rest, "*") ||
		!ok && strings.Contains(t.Prefix, "*") || ok && strings.ContainsAny(rest, "/:") {
		return fmt.Errorf(
			"registry prefix %q: a * is allowed only before a whole host name, as in "+
				"*.example.com", t.Prefix)
	}
	if t.Location == "" && !strings.HasPrefix(t.Prefix, "*.") {
		t.Location = t.Prefix
	}
	if strings.Contains(t.Location, "://") || strings.Contains(t.Prefix, "://") {
		return fmt.Errorf("registry %q: a location is host[:port][/path], without a scheme",
			t.Prefix)
	}
	for i := range t.Mirrors {
		m := &t.Mirrors[i]
		m.Location = trimLocation(m.Location)
		if m.Location == "" || strings.Contains(m.Location, "://") {
			return fmt.Errorf("registry %q: mirror location %q is not host[:port][/path]",
				t.Prefix, m.Location)
		}
		switch m.PullFromMirror {
		case "", "all", "digest-only", "tag-only":
		default:
			return fmt.Errorf(
				"registry %q: mirror %s: pull-from-mirror = %q is not all, digest-only or "+
					"tag-only", t.Prefix, m.Location, m.PullFromMirror)
		}
		if m.PullFromMirror != "" && t.MirrorByDigestOnly {
			return fmt.Errorf("registry %q: mirror %s: pull-from-mirror and "+
				"mirror-by-digest-only exclude each other", t.Prefix, m.Location)
		}
	}
	return nil
}

// Check returns an error if a part of the mirror is not host[:port][/path].
func (m Mirror) Check() error {
	for _, s := range [...]string{m.Prefix, m.Location} {
		if host, _, _ := strings.Cut(s, "/"); host == "" || strings.ContainsAny(s, "*@") ||
			strings.Contains(s, "://") || reference.CheckRepository(s+"/x") != nil {
			return fmt.Errorf("%q is not host[:port][/path]", s)
		}
	}
	return nil
}

func trimLocation(s string) string { return strings.TrimRight(s, "/") }

func (c *config) finish() (*config, error) {
	sorting.StableFunc(c.registries, func(a, b table) int {
		return len(b.Prefix) - len(a.Prefix)
	})
	for _, s := range c.search {
		if strings.Contains(s, "://") || trimLocation(s) == "" {
			return nil, fmt.Errorf("unqualified-search-registries: %q is not host[:port]", s)
		}
	}
	return c, nil
}

// find returns the table for a name like "docker.io/library/busybox:latest": the one with the
// longest prefix.
func (c *config) find(name string) *table {
	for i := range c.registries {
		if matchPrefix(name, c.registries[i].Prefix) >= 0 {
			return &c.registries[i]
		}
	}
	return nil
}

// matchPrefix returns the length of the part of the name that the prefix matches, or -1.
func matchPrefix(name, prefix string) int {
	if suffix, ok := strings.CutPrefix(prefix, "*"); ok { // ".example.com"
		domain, _, _ := strings.Cut(name, "/")
		bare := domain
		if h, _, err := net.SplitHostPort(domain); err == nil {
			bare = h
		}
		if strings.HasSuffix(bare, suffix) && len(bare) > len(suffix) {
			return len(domain)
		}
		return -1
	}
	if !strings.HasPrefix(name, prefix) {
		return -1
	}
	if len(name) == len(prefix) {
		return len(prefix)
	}
	switch name[len(prefix)] {
	case '/':
		return len(prefix)
	case ':', '@':
		// After a bare host this would be a port.
		if strings.Contains(prefix, "/") {
			return len(prefix)
		}
	}
	return -1
}

// wanted reports whether a mirror is used for such a reference.
func (m mirror) wanted(t *table, byDigest bool) bool {
	switch {
	case t.MirrorByDigestOnly, m.PullFromMirror == "digest-only":
		return byDigest
	case m.PullFromMirror == "tag-only":
		return !byDigest
	}
	return true
}
