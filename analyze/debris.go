package analyze

import (
	"cmp"
	"path"
	"strings"
	"sync"

	"github.com/layerbuild/layerbuild/internal/sorting"
)

// debrisDirs are directories that contain only debris. Each is the end of a path; with a leading
// slash it is the whole path.
var debrisDirs = []struct {
	dir  string
	kind DebrisKind
}{
	{"/var/lib/apt/lists", PackageLists}, {"/var/cache/apt", PackageLists},
	{"/var/cache/apk", PackageLists},
	{"/etc/apk/cache", PackageLists}, {"/var/cache/yum", PackageLists},
	{"/var/cache/dnf", PackageLists},
	{"/var/cache/libdnf5", PackageLists}, {"/var/cache/zypp", PackageLists},
	{"/var/cache/pacman/pkg", PackageLists},
	{"/var/lib/pacman/sync", PackageLists},
	{".cache/pip", LanguageCache}, {".cache/uv", LanguageCache}, {".cache/pypoetry", LanguageCache},
	{"conda/pkgs", LanguageCache},
	{".npm/_cacache", LanguageCache}, {".npm/_logs", LanguageCache}, {".cache/yarn", LanguageCache},
	{".yarn/cache", LanguageCache},
	{"usr/local/share/.cache", LanguageCache}, {".cache/pnpm", LanguageCache},
	{".cache/node", LanguageCache},
	{".cache/go-build", LanguageCache}, {"pkg/mod/cache", LanguageCache},
	{".cargo/registry", LanguageCache},
	{"cargo/registry", LanguageCache}, {".cargo/git", LanguageCache}, {"cargo/git", LanguageCache},
	{".gradle/caches", LanguageCache}, {".m2/repository", LanguageCache},
	{".composer/cache", LanguageCache},
	{".cache/composer", LanguageCache}, {".bundle/cache", LanguageCache},
	{"usr/local/bundle/cache", LanguageCache},
	{".nuget/packages", LanguageCache}, {".cache/bazel", LanguageCache}, {".ccache", LanguageCache},
	{".git", VersionControl}, {".hg", VersionControl}, {".svn", VersionControl},
	{"/var/log", Logs}, {"__pycache__", Bytecode},
}

// debrisOfBase returns the indexes in debrisDirs of the directories with a base name.
var debrisOfBase = sync.OnceValue(func() map[string][]int {
	m := map[string][]int{}
	for i, d := range debrisDirs {
		m[path.Base(d.dir)] = append(m[path.Base(d.dir)], i)
	}
	return m
})

// debrisDir returns the kind of debris in a directory, by its path.
func debrisDir(name string, full func() string) DebrisKind {
	for _, i := range debrisOfBase()[name] {
		d := debrisDirs[i]
		p := full()
		if p == d.dir || !strings.HasPrefix(d.dir, "/") && strings.HasSuffix(p, "/"+d.dir) {
			return d.kind
		}
	}
	return NoDebris
}

// secretPaths are files that contain keys or passwords. Each is the end of a path.
var secretPaths = []string{
	".netrc", ".pypirc", ".git-credentials", ".docker/config.json", ".aws/credentials",
	".kube/config", ".pgpass", ".my.cnf",
	".htpasswd", ".vault-token", ".cargo/credentials", ".cargo/credentials.toml",
	".config/gcloud/application_default_credentials.json",
	".config/gh/hosts.yml", ".npmrc", ".env", ".env.local", ".env.production",
	"id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "service-account.json", "service_account.json",
}

// secretOfBase returns the secretPaths with a base name.
var secretOfBase = sync.OnceValue(func() map[string][]string {
	m := map[string][]string{}
	for _, p := range secretPaths {
		m[path.Base(p)] = append(m[path.Base(p)], p)
	}
	return m
})

var secretSuffixes = []string{"-key.pem", ".key.pem", "privkey.pem", ".p12", ".pfx",
	".jks", ".ppk", ".kdbx"}

// debrisFile returns the kind of a file, by its path and size.
func debrisFile(name string, size int64, full func() string) DebrisKind {
	if size == 0 {
		return NoDebris
	}
	for _, end := range secretOfBase()[name] {
		if strings.HasSuffix(full(), "/"+end) {
			return Secret
		}
	}
	for _, end := range secretSuffixes {
		if strings.HasSuffix(name, end) {
			return Secret
		}
	}
	if strings.HasSuffix(name, ".key") && strings.Contains(full(), "/private/") {
		return Secret
	}
	switch {
	case strings.HasSuffix(name, ".pyc"):
		return Bytecode
	case name == "npm-debug.log" || name == "yarn-error.log" ||
		strings.HasPrefix(name, "hs_err_pid"):
		return Logs
	case size >= 4096 && (name == "core" || strings.HasPrefix(name, "core.") && digits(name[5:])):
		return CoreFile
	}
	return NoDebris
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// classify sets the kind of debris of each unit.
func (r *Report) classify() {
	t := r.Tree
	dirs := make([]DebrisKind, len(t.nodes))
	for i := range t.nodes {
		n := &t.nodes[i]
		if n.parent < 0 {
			continue
		}
		dirs[i] = dirs[n.parent]
		if dirs[i] == NoDebris {
			dirs[i] = debrisDir(n.Name, func() string { return t.Path(n) })
		}
	}
	for i := range r.Units {
		u := &r.Units[i]
		n := &t.nodes[u.Node]
		if kind := debrisFile(n.Name, u.Bytes,
			func() string { return t.Path(n) }); kind == Secret || dirs[n.parent] == NoDebris {
			u.Debris = kind
		} else if u.Bytes > 0 {
			u.Debris = dirs[n.parent]
		}
	}
}

// firstLayers returns a function that returns the layer which first had the content of a unit at
// its path. A later layer has written it again if, for example, it changed the file's owner. list
// are the units for which the function may be called.
func (r *Report) firstLayers(list []int32) func(unit int32) int {
	nodes := map[int32]bool{}
	for _, i := range list {
		nodes[r.Units[i].Node] = true
	}
	type place struct{ node, layer int32 }
	replaced := map[place]*Unit{} // by the layer that replaced it
	for i := range r.Units {
		if u := &r.Units[i]; u.Dead() && nodes[u.Node] {
			replaced[place{u.Node, u.Killer}] = u
		}
	}
	return func(unit int32) int {
		u := &r.Units[unit]
		for {
			before := replaced[place{u.Node, u.Layer}]
			if before == nil || before.Layer >= u.Layer || before.Content != u.Content {
				return int(u.Layer)
			}
			u = before
		}
	}
}

// maxNamed is the largest number of files that a remedy names individually.
const maxNamed = 8

// debris lists live files of each kind, and secrets both live and dead.
func (r *Report) debris() {
	var list []int32
	for i := range r.Units {
		if u := &r.Units[i]; u.Debris == Secret || u.Debris != NoDebris && !u.Dead() {
			list = append(list, int32(i))
		}
	}
	compare := func(a, b int32) int {
		x, y := &r.Units[a], &r.Units[b]
		return cmp.Or(cmp.Compare(x.Layer, y.Layer), cmp.Compare(x.Debris, y.Debris),
			bit(x.Dead())-bit(y.Dead()), bit(x.Accepted)-bit(y.Accepted))
	}
	r.Debris = []Debris{}
	first := r.firstLayers(list)
	g := newGrouping(r.Tree)
	for group := range groups(list, compare) {
		u := &r.Units[group[0]]
		d := Debris{Kind: u.Debris, Layer: int(u.Layer), Owner: r.Layers[u.Layer].Owner,
			Dead: u.Dead(), Accepted: u.Accepted}
		from := d // the debris where it was first
		for n, i := range group {
			l := first(i)
			if n == 0 && r.Layers[l].Owner == d.Owner && copies(r.Made(l)) {
				from.Layer = l // not of the base image: only the RUN can be changed then
			} else if l != from.Layer {
				from = d
				break
			}
		}
		var few []string // the files, if they are few
		found := func(path string, bytes int64, files int) {
			if few = nil; files <= maxNamed {
				for _, i := range group {
					if p := r.Tree.Path(r.Tree.Node(r.Units[i].Node)); within(p,
						strings.TrimSuffix(path, "/")) {
						few = append(few, p)
					}
				}
			}
			d.Path, d.Bytes, d.Files = path, bytes, files
			from.Path = path
			d.Remedy = r.debrisRemedy(&from, few)
			r.Debris = append(r.Debris, d)
		}
		for _, i := range group {
			if d.Kind == Secret { // list secrets individually: the user needs their names
				u := &r.Units[i]
				found(r.Tree.Path(&r.Tree.nodes[u.Node]), u.Bytes, 1)
				continue
			}
			g.add(r.Units[i].Node, r.Units[i].Bytes)
		}
		g.emit(found)
	}
	sorting.StableFunc(r.Debris, func(a, b Debris) int {
		leak := func(d Debris) int {
			return 1 - bit(d.Kind == Secret && d.Dead)
		}
		return cmp.Or(cmp.Compare(leak(a), leak(b)), cmp.Compare(b.Bytes, a.Bytes),
			strings.Compare(a.Path, b.Path))
	})
}
