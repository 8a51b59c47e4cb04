package registry

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/reference"
)

func parseTest(t testing.TB, data string) *config {
	t.Helper()
	c := &config{aliases: map[string]string{}, distroAliases: map[string]string{}}
	if err := c.parse(data, c.aliases); err != nil {
		t.Fatal(err)
	}
	c, err := c.finish()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestEndpoints checks the example of containers-registries.conf(5) and its special cases.
func TestEndpoints(t *testing.T) {
	d := "sha256:" + strings.Repeat("a", 64)
	c := parseTest(t, `
[[registry]]
prefix = "example.com/foo"
location = "internal.example.net/bar"
[[registry.mirror]]
location = "mirror-0.local/mirror-for-foo"
[[registry.mirror]]
location = "mirror-1.local/mirrors/foo"
insecure = true

[[registry]]
prefix = "example.com/foo/deep"
location = "deep.example"

[[registry]]
location = "registry.com"
[[registry.mirror]]
location = "mirror.registry.com"

[[registry]]
prefix = "*.wild.com"
insecure = true
[[registry.mirror]]
location = "wild-mirror.local"

[[registry]]
prefix = "*.moved.com"
location = "new.example/old"

[[registry]]
prefix = "bad.example"
blocked = true

[[registry]]
location = "digests.example"
mirror-by-digest-only = true
[[registry.mirror]]
location = "dm.local"

[[registry]]
location = "kinds.example"
[[registry.mirror]]
location = "d.local"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "t.local"
pull-from-mirror = "tag-only"

[[registry]]
prefix = "port.example:5000"
location = "other.example:6000"

[[registry]]
prefix = "one.example/a/image:v1"
location = "pinned.example/b/image:v1"
`)
	tests := []struct{ in, want string }{
		{"example.com/foo/image",
			"mirror mirror-0.local/mirror-for-foo/image; mirror mirror-1.local/mirrors/foo/image (insecure); internal.example.net/bar/image"},
		{"example.com/foo/deep/a:1", "deep.example/a"},
		{"example.com/foobar/image", "example.com/foobar/image"},
		{"example.com/image", "example.com/image"},
		{"example.com/foo", "mirror mirror-0.local/mirror-for-foo; mirror mirror-1.local/mirrors/foo (insecure); internal.example.net/bar"},
		{"registry.com/image", "mirror mirror.registry.com/image; registry.com/image"},
		{"a.wild.com/x/y", "mirror wild-mirror.local/x/y; a.wild.com/x/y (insecure)"},
		{"a.b.wild.com:5000/x", "mirror wild-mirror.local/x; a.b.wild.com:5000/x (insecure)"},
		{"wild.com/x", "wild.com/x"},
		{"notwild.com/x", "notwild.com/x"},
		{"a.moved.com/x", "new.example/old/x"},
		{"bad.example/x", "registry bad.example is blocked by registries.conf"},
		{"digests.example/x", "digests.example/x"},
		{"digests.example/x@" + d, "mirror dm.local/x; digests.example/x"},
		{"kinds.example/x", "mirror t.local/x; kinds.example/x"},
		{"kinds.example/x@" + d, "mirror d.local/x; kinds.example/x"},
		{"port.example:5000/x", "other.example:6000/x"},
		{"port.example/x", "port.example/x"},
		{"busybox", "registry-1.docker.io/library/busybox"},
	}
	for _, tt := range tests {
		if got := endpointsOf(t, c, tt.in); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.in, got, tt.want)
		}
	}
}

// endpointsOf returns the endpoints of a name, or the error, as text.
func endpointsOf(t *testing.T, c *config, name string) string {
	t.Helper()
	n, err := reference.Full(name)
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.endpoints(n)
	if err != nil {
		return err.Error()
	}
	var parts []string
	for _, e := range list {
		s := e.String()
		if e.insecure {
			s += " (insecure)"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, "; ")
}

// Mirrors of the options come before those of the files, or instead of all other places.
func TestOwnMirrors(t *testing.T) {
	c := parseTest(t, `
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "file.example"

[[registry]]
location = "bad.example"
blocked = true
`)
	c.mirrors = []Mirror{{"docker.io", "one.example/hub/"}, {"docker.io", "two.example:5000"},
		{"quay.example/team", "three.example"}, {"bad.example", "one.example"}}
	const hub = "mirror one.example/hub/library/busybox; mirror two.example:5000/library/busybox"
	for _, tt := range []struct{ in, all, only string }{
		{"busybox", hub + "; mirror file.example/library/busybox; " +
			"registry-1.docker.io/library/busybox", hub},
		{"quay.example/team/a", "mirror three.example/a; quay.example/team/a",
			"mirror three.example/a"},
		{"quay.example/teams/a", "quay.example/teams/a", "quay.example/teams/a"},
		{"bad.example/a", "registry bad.example is blocked by registries.conf",
			"registry bad.example is blocked by registries.conf"},
	} {
		for _, c.onlyMirrors = range []bool{false, true} {
			want := tt.all
			if c.onlyMirrors {
				want = tt.only
			}
			if got := endpointsOf(t, c, tt.in); got != want {
				t.Errorf("%s, only mirrors %t:\n got %s\nwant %s", tt.in, c.onlyMirrors, got, want)
			}
		}
	}
	c.insecure = true
	if got, want := endpointsOf(t, c, "quay.example/team/a"),
		"mirror three.example/a (insecure)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestMirrorCheck(t *testing.T) {
	for text, ok := range map[string]bool{"docker.io": true, "a.example:5000/b/c": true,
		"127.0.0.1": true, "": false, "/a": false, "https://a.example": false, "a b": false,
		"*.example": false, "a.example/B": false, "a@sha256:x": false} {
		for _, m := range []Mirror{{text, "a.example"}, {"a.example", text}} {
			if err := m.Check(); (err == nil) != ok {
				t.Errorf("%+v: %v, want valid %t", m, err, ok)
			}
		}
	}
}

func TestCandidates(t *testing.T) {
	names := func(conf, ref string) []string {
		c := parseTest(t, conf)
		c.distroAliases["fedora"] = "registry.fedoraproject.org/fedora"
		ns, err := c.candidates(ref)
		if err != nil {
			return []string{err.Error()}
		}
		var out []string
		for _, n := range ns {
			out = append(out, n.String())
		}
		return out
	}
	search := "unqualified-search-registries = [\"a.example\", \"docker.io\"]\n"
	alias := "[aliases]\n\"tool\" = \"quay.io/group/tool\"\n"
	tests := []struct {
		conf, ref string
		want      []string
	}{
		{"", "busybox:1", []string{"docker.io/library/busybox:1"}},
		// the distribution's list is not used
		{"", "fedora", []string{"docker.io/library/fedora:latest"}},
		{search, "fedora:40", []string{"registry.fedoraproject.org/fedora:40"}},
		{search, "busybox", []string{"a.example/busybox:latest",
			"docker.io/library/busybox:latest"}},
		{search, "me/app:2", []string{"a.example/me/app:2", "docker.io/me/app:2"}},
		{search, "docker.io/busybox", []string{"docker.io/library/busybox:latest"}},
		{search, "localhost/x", []string{"localhost/x:latest"}},
		{search, "host:5000/x", []string{"host:5000/x:latest"}},
		{alias, "tool:3", []string{"quay.io/group/tool:3"}},
		{alias + "\n", "tool@sha256:" + strings.Repeat("b", 64),
			[]string{"quay.io/group/tool@sha256:" + strings.Repeat("b", 64)}},
	}
	for _, tt := range tests {
		if got := names(tt.conf, tt.ref); !slices.Equal(got, tt.want) {
			t.Errorf("%q with %q: %v, want %v", tt.ref, tt.conf, got, tt.want)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	tests := []struct{ conf, want string }{
		{"x = ", "toml"},
		{"[[registry]]\ninsecure = true", "neither a prefix nor a location"},
		{"[[registry]]\nprefix = \"example.*.com\"\nlocation=\"a\"", "a * is allowed only"},
		{"[[registry]]\nprefix = \"*.example.com/foo\"\nlocation=\"a\"", "a * is allowed only"},
		{"[[registry]]\nlocation = \"https://a\"", "without a scheme"},
		{"[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"\"", "is not host"},
		{"[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"b\"\npull-from-mirror = \"never\"", "is not all"},
		{"[[registry]]\nlocation = \"a\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"b\"\npull-from-mirror = \"all\"", "exclude each other"},
		{"[registries.search]\nregistries = ['a']", "version 1"},
		{"[aliases]\na = \"b\"", "alias"},
		{"unqualified-search-registries = [\"http://a\"]", "unqualified-search-registries"},
	}
	for _, tt := range tests {
		path := filepath.Join(t.TempDir(), "registries.conf")
		if err := os.WriteFile(path, []byte(tt.conf), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := loadConfig(path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.conf, err, tt.want)
		}
	}
	if _, err := loadConfig(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is named and not there is fine")
	}
}

// TestConfigFiles checks which files count, and that later ones change what earlier ones say.
func TestConfigFiles(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CONTAINERS_REGISTRIES_CONF", "")
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", "")
	base := filepath.Join(dir, ".config", "containers")
	for name, data := range map[string]string{
		"registries.conf":             "unqualified-search-registries = [\"a.example\"]\n[[registry]]\nlocation = \"x.example\"\nblocked = true\n[aliases]\nn = \"a.example/n\"\nm = \"a.example/m\"",
		"registries.conf.d/1.conf":    "[[registry]]\nlocation = \"x.example\"\ninsecure = true\n[aliases]\nn = \"\"",
		"registries.conf.d/2.conf":    "unqualified-search-registries = [\"b.example\"]",
		"registries.conf.d/not.there": "nonsense",
	} {
		path := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := loadConfig("")
	if err != nil {
		t.Fatal(err)
	}
	want := &config{search: []string{"b.example"}, aliases: map[string]string{"m": "a.example/m"},
		distroAliases: map[string]string{},
		registries:    []table{{Prefix: "x.example", Location: "x.example", Insecure: true}}}
	if !cmp.Equal(c, want, cmp.AllowUnexported(config{})) {
		t.Error(cmp.Diff(want, c, cmp.AllowUnexported(config{})))
	}
	// The variable names the only file that is read.
	other := filepath.Join(dir, "other.conf")
	if err := os.WriteFile(other, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTAINERS_REGISTRIES_CONF", other)
	if c, err := loadConfig(""); err != nil || len(c.search) != 0 || len(c.registries) != 0 {
		t.Errorf("with the variable: %v, %v", c, err)
	}
}

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1": true, "127.9.9.9:80": true,
		"[::1]:5000": true, "a.localhost:1": true,
		"example.com": false, "localhost.example": false, "10.0.0.1:5000": false,
		"128.0.0.1": false, "127.0.0.1.example": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("isLoopback(%q) = %v", host, got)
		}
	}
}

func TestChallenges(t *testing.T) {
	tests := []struct {
		in   string
		want []challenge
	}{
		{`Bearer realm="https://a/token",service="b c",scope="repository:x:pull,push"`,
			[]challenge{{"bearer", map[string]string{"realm": "https://a/token", "service": "b c",
				"scope": "repository:x:pull,push"}}}},
		{`Basic realm="a \"b\""`, []challenge{{"basic", map[string]string{"realm": `a "b"`}}}},
		{`Negotiate, Basic realm=x, Bearer Realm = "y" , error="insufficient_scope"`,
			[]challenge{{"negotiate", map[string]string{}},
				{"basic", map[string]string{"realm": "x"}},
				{"bearer", map[string]string{"realm": "y", "error": "insufficient_scope"}}}},
		{``, nil},
		{`Bearer realm="never closed`, []challenge{{"bearer",
			map[string]string{"realm": "never closed"}}}},
	}
	for _, tt := range tests {
		if got := parseChallenges([]string{tt.in}); !cmp.Equal(got, tt.want,
			cmp.AllowUnexported(challenge{})) {
			t.Errorf("%q: %v, want %v", tt.in, got, tt.want)
		}
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://a/token",service="b"`)
	f.Add(`a b="\`)
	f.Add(`=,= "x"`)
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range parseChallenges([]string{s}) {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) || c.params == nil {
				t.Errorf("%q: %v", s, c)
			}
		}
	})
}

// FuzzConf checks that whatever a configuration says, a name leads to well-formed places or to an
// error.
func FuzzConf(f *testing.F) {
	f.Add("[[registry]]\nprefix = \"docker.io\"\nlocation = \"a.example/b\"\n[[registry.mirror]]\nlocation = \"c\"", "busybox:1")
	f.Add("[[registry]]\nprefix = \"*.b\"", "a.b/c@sha256:"+strings.Repeat("0", 64))
	f.Add("unqualified-search-registries = [\"a\"]\n[aliases]\n\"x\" = \"a.b/c\"", "x")
	f.Fuzz(func(t *testing.T, conf, ref string) {
		c := &config{aliases: map[string]string{}, distroAliases: map[string]string{}}
		if c.parse(conf, c.aliases) != nil {
			return
		}
		if _, err := c.finish(); err != nil {
			return
		}
		names, err := c.candidates(ref)
		if err != nil {
			return
		}
		for _, n := range names {
			if again, err := reference.Full(n.String()); err != nil || again != n {
				t.Errorf("the candidate %v of %q reads as %v, %v", n, ref, again, err)
			}
			es, err := c.endpoints(n)
			if err == nil && len(es) == 0 {
				t.Errorf("%v leads nowhere", n)
			}
			for _, e := range es {
				if e.host == "" || e.repo == "" ||
					strings.ContainsAny(e.host+e.repo, " @?#%\\\n") ||
					strings.Contains(e.repo, "..") {
					t.Errorf("%v leads to %+v", n, e)
				}
			}
		}
	})
}
