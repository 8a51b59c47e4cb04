package sbom

import (
	"encoding/json"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// syftVersion is the version of github.com/anchore/syft with which lists are compared.
const syftVersion = "v1.57.1"

// dockerfile makes an image with programs of each language that Debian packages. Each RUN rewrites
// the database. Debian builds Go programs without modules, so that they record only their own path
// and the version of Go; the last line adds a program with modules.
const dockerfile = `FROM scratch
ADD rootfs.tar /
RUN apt-get update
RUN apt-get install -y --no-install-recommends python3-requests python3-jinja2 python3-pip-whl
RUN echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/unsafe-io
RUN apt-get install -y --no-install-recommends node-semver node-chalk node-ms
RUN apt-get install -y --no-install-recommends age restic direnv
RUN apt-get install -y --no-install-recommends rake ruby-rack
RUN apt-get install -y --no-install-recommends libcommons-io-java libjackson2-databind-java
RUN apt-get install -y --no-install-recommends tree
COPY layerbuild /usr/bin/
`

// brought has the line that must have brought a package.
var brought = map[string]string{
	"deb libc6": "2", "deb python3-requests": "4", "pypi requests": "4", "deb node-semver": "6",
	"npm semver": "6", "deb age": "7", "deb rake": "8",
	"gem rake": "8", "deb libcommons-io-java": "9", "maven commons-io": "9", "deb tree": "10",
	"golang filippo.io/age/cmd/age": "7", "golang github.com/klauspost/compress": "11",
}

// TestRecall lists the packages of a Debian image with syft and with layerbuild.
func TestRecall(t *testing.T) {
	lab.Root(t)
	if os.Getenv("LAYERBUILD_RECALL") == "" {
		t.Skip("$LAYERBUILD_RECALL is not set: the test downloads and compiles for some minutes")
	}
	syft := installSyft(t)
	l := lab.New(t)
	lab.Output(t, "cp", lab.Binary(t), filepath.Join(l.Dir, "layerbuild"))
	rootfs(t, filepath.Join(l.Dir, "rootfs.tar"))
	l.Write("Dockerfile", dockerfile)
	l.Run("build", "-q", "-t", "app", "-o", "type=oci,dest=app.tar", ".")
	var ours struct {
		Components []struct {
			PURL       string
			Properties []struct{ Name, Value string }
		}
	}
	parse(t, l.Run("sbom", "--format=cyclonedx", "app"), &ours)
	lines, got := map[string]string{}, map[string]bool{}
	for _, c := range ours.Components {
		p, ok := split(c.PURL)
		if !ok {
			continue
		}
		got[p.String()] = true
		for _, property := range c.Properties {
			if property.Name == "layerbuild:layer:place" {
				lines[p.kind+" "+p.name] = strings.TrimPrefix(property.Value, "Dockerfile:")
			}
		}
	}
	for name, want := range brought {
		if lines[name] != want {
			t.Errorf("%s was brought by line %q, want %s", name, lines[name], want)
		}
	}
	var theirs struct{ Artifacts []struct{ PURL string } }
	cmd := exec.Command(syft, "scan", "oci-archive:"+filepath.Join(l.Dir, "app.tar"), "-o", "json")
	cmd.Env = append(os.Environ(), "SYFT_CHECK_FOR_APP_UPDATE=false", "HOME="+l.Dir)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("syft: %v", err)
	}
	parse(t, string(out), &theirs)
	want := map[string]bool{}
	for _, a := range theirs.Artifacts {
		if p, ok := split(a.PURL); ok {
			want[p.String()] = true
		}
	}
	compare(t, got, want)
}

// compare logs the recall of each type and fails for packages that only syft finds.
func compare(t *testing.T, got, want map[string]bool) {
	t.Helper()
	found, all, more := map[string]int{}, map[string]int{}, map[string]int{}
	for _, p := range slices.Sorted(maps.Keys(want)) {
		kind, _, _ := strings.Cut(p, " ")
		if all[kind]++; got[p] {
			found[kind]++
		} else {
			t.Errorf("only syft finds %s", p)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(got)) {
		if kind, _, _ := strings.Cut(p, " "); !want[p] {
			more[kind]++
			t.Logf("only layerbuild finds %s", p)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(all)) {
		t.Logf("%s: %d of the %d packages of syft, and %d others", kind, found[kind], all[kind],
			more[kind])
	}
	for _, kind := range []string{"deb", "pypi", "npm", "golang", "gem", "maven"} {
		if all[kind] == 0 {
			t.Errorf("syft finds no package of the type %s", kind)
		}
	}
}

// identity identifies a package in both lists.
type identity struct{ kind, name, version string }

func (i identity) String() string { return i.kind + " " + i.name + " " + i.version }

// split returns the identity of a package URL. The namespace counts only where it is part of the
// name: syft takes the groups of Java archives from other places. ok is false for the types that
// layerbuild does not list.
func split(purl string) (id identity, ok bool) {
	rest, ok := strings.CutPrefix(purl, "pkg:")
	rest, _, _ = strings.Cut(rest, "?")
	rest, _, _ = strings.Cut(rest, "#")
	id.kind, rest, _ = strings.Cut(rest, "/")
	if i := strings.LastIndexByte(rest, '@'); i > 0 {
		rest, id.version = rest[:i], rest[i+1:]
	}
	if id.kind != "golang" && id.kind != "npm" {
		rest = rest[strings.LastIndexByte(rest, '/')+1:]
	}
	id.name = rest
	for _, s := range []*string{&id.name, &id.version} {
		if plain, err := url.PathUnescape(*s); err == nil {
			*s = plain
		}
	}
	switch id.kind {
	case "deb", "pypi", "npm", "golang", "gem", "maven", "cargo", "rpm", "apk":
		return id, ok
	}
	return id, false
}

func parse(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatal(err)
	}
}

// installSyft returns the path of syft: $SYFT, or a program that the go command installs.
func installSyft(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("SYFT"); path != "" {
		return path
	}
	lab.Need(t, "go")
	dir := t.TempDir()
	cmd := exec.Command("go", "install", "github.com/anchore/syft/cmd/syft@"+syftVersion)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0")
	cmd.Dir = dir // outside of this module
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("syft cannot be installed: %v\n%s", err, out)
	}
	return filepath.Join(dir, "syft")
}

// rootfs writes the tar of a Debian system: $LAYERBUILD_ROOTFS, or that of make rootfs.
func rootfs(t *testing.T, to string) {
	t.Helper()
	from := os.Getenv("LAYERBUILD_ROOTFS")
	if from == "" {
		from = filepath.Join(lab.Top(), "examples", "debian-base", "rootfs.tar.zst")
	}
	if _, err := os.Stat(from); err != nil {
		t.Skipf("%v: make rootfs makes it", err)
	}
	lab.Output(t, "cp", from, to)
}
