package drivers

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/rounds"
	"github.com/layerbuild/layerbuild/test/lab"
)

// TestOutline builds random Dockerfiles without a RUN on random base images: once on the outline of
// the image, and once with the image unpacked. The results are the same, errors too.
func TestOutline(t *testing.T) {
	lab.Root(t)
	outlined := 0
	l := lab.New(t)
	// Without the check of layers, an outline is made before the image is unpacked.
	l.Env = append(l.Env, "SOURCE_DATE_EPOCH=1700000000", "LAYERBUILD_CHECK_LAYERS=0")
	o := rounds.Options{Fixed: 20, Fresh: 5, Long: 500}
	rounds.Run(t, "outline", o, func(t *testing.T, seed uint64) {
		l := l.For(t)
		l.Dir = t.TempDir()
		g := &outlineGenerator{rand.New(rand.NewPCG(seed, 1))}
		made, err := imagetest.Make(dockerspec.DockerOCIImageConfig{}, g.layers()...)
		if err == nil {
			err = made.WriteLayout(filepath.Join(l.Dir, "base"), "base")
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "conf", "d/a", "d/conf", "d/e/b", "x/y/z"} {
			l.Write("context/"+name, g.text())
			// The file may be equal to one of the image.
			if err := os.Chtimes(filepath.Join(l.Dir, "context", name), at, at); err != nil {
				t.Fatal(err)
			}
		}
		dockerfile := g.dockerfile()
		l.Write("Dockerfile", dockerfile,
			"unpack", "FROM base AS x\nFROM scratch\nCOPY --from=x / /\n")
		build := func(file string) string {
			out, err := l.Command("build", "--progress=plain", "--build-context=base=oci-layout://"+
				filepath.Join(l.Dir, "base"), "-f", file, "-t", "x", "context").CombinedOutput()
			if err != nil && strings.Contains(string(out), "panic") {
				t.Errorf("%s", out)
			}
			return string(out)
		}
		l.State = filepath.Join(l.Dir, "outlined")
		got := build("Dockerfile")
		again := build("Dockerfile")
		l.State = filepath.Join(l.Dir, "unpacked")
		build("unpack")
		want := build("Dockerfile")
		if strings.Contains(got, "need only its directories") {
			outlined++
		}
		for _, out := range []string{got, again} {
			if a, b := result(out), result(want); a != b {
				t.Errorf("on an outline:\n%s\n\nunpacked:\n%s\n\n%s\n%s", a, b, dockerfile, g)
			}
		}
		for _, dir := range []string{"outlined", "unpacked"} {
			if err := os.RemoveAll(filepath.Join(l.Dir, dir)); err != nil {
				t.Error(err)
			}
		}
	})
	t.Logf("%d builds have used an outline", outlined)
	if outlined == 0 && !t.Failed() {
		t.Error("no build has used an outline")
	}
}

// result returns the digest of the image, or the error.
func result(out string) string {
	if _, text, ok := strings.Cut(out, "\nerror: "); ok {
		return text
	}
	at := strings.LastIndex(out, " sha256:")
	return out[max(at, 0):][:min(len(" sha256:")+64, len(out))]
}

// at is the time of all files.
var at = time.Unix(1_500_000_000, 0)

type outlineGenerator struct{ *rand.Rand }

func (g *outlineGenerator) String() string { return "base images: see the seed" }

func pick[T any](g *outlineGenerator, list ...T) T { return list[g.IntN(len(list))] }

func (g *outlineGenerator) text() string { return pick(g, "x", "y", "xx") }

// layers returns the layers of an image.
func (g *outlineGenerator) layers() [][]imagetest.Entry {
	exists := map[string]byte{"": tar.TypeDir}
	var all [][]imagetest.Entry
	for n := range g.IntN(3) + 1 {
		var list []imagetest.Entry
		own := map[string]bool{}
		add := func(h tar.Header, text string) {
			h.ModTime = at
			h.Uid, h.Gid = pick(g, 0, 0, 0, 7), pick(g, 0, 0, 0, 8)
			h.Size = int64(len(text))
			list = append(list, imagetest.TarFile(h, text))
			own[h.Name] = true
		}
		dirs := slices.Sorted(mapKeys(exists, tar.TypeDir))
		for range g.IntN(12) + 3 {
			dir := pick(g, dirs...)
			name := path.Join(dir, pick(g, "a", "conf", "d", "e", "etc", "link", "passwd", "x"))
			if own[name] || exists[name] == tar.TypeSymlink || dir == "etc" && g.IntN(3) > 0 {
				continue
			}
			// As other builders do, list the directories above an entry in each layer.
			for i := range name {
				if up := name[:i]; name[i] == '/' && !own[up] && n > 0 {
					add(tar.Header{Typeflag: tar.TypeDir, Name: up, Mode: 0o755}, "")
				}
			}
			switch k := g.IntN(10); {
			case exists[name] == tar.TypeDir && k < 3 && n > 0:
				exists = without(exists, name)
				dirs = slices.Sorted(mapKeys(exists, tar.TypeDir))
				list = append(list, imagetest.TarFile(tar.Header{Typeflag: tar.TypeReg,
					Name: path.Join(dir, ".wh."+path.Base(name))}, ""))
				own[name] = true
			case exists[name] == tar.TypeDir:
			case k < 3 && exists[name] == 0:
				add(tar.Header{Typeflag: tar.TypeDir, Name: name,
					Mode: pick[int64](g, 0o755, 0o700, 0o2775)}, "")
				exists[name] = tar.TypeDir
				dirs = append(dirs, name)
			case k < 4 && exists[name] == 0:
				add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Mode: 0o777,
					Linkname: pick(g, "a", "/d", "../e", "/etc/conf", "x/a")}, "")
				exists[name] = tar.TypeSymlink
			default:
				add(tar.Header{Typeflag: tar.TypeReg, Name: name,
					Mode: pick[int64](g, 0o644, 0o755)}, g.text())
				exists[name] = tar.TypeReg
			}
		}
		all = append(all, list)
	}
	return all
}

// mapKeys iterates over the keys that have the value.
func mapKeys(m map[string]byte, value byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k, v := range m {
			if v == value && !yield(k) {
				return
			}
		}
	}
}

// without returns the map without a name and the names below it.
func without(m map[string]byte, name string) map[string]byte {
	left := map[string]byte{}
	for k, v := range m {
		if k != name && !strings.HasPrefix(k, name+"/") {
			left[k] = v
		}
	}
	return left
}

// dockerfile returns a Dockerfile without a RUN.
func (g *outlineGenerator) dockerfile() string {
	var b strings.Builder
	b.WriteString("FROM base\n")
	for range g.IntN(5) + 1 {
		dest := "/" + path.Join(pick(g, "", "a", "d", "etc", "link", "x"),
			pick(g, "", "", "a", "conf", "d", "link", "new"))
		if g.IntN(2) == 0 {
			dest = strings.TrimSuffix(dest, "/") + "/"
		}
		flags := pick(g, "", "", "", " --chown=7:8", " --chmod=755", " --link",
			" --chown=0:0 --link")
		switch g.IntN(6) {
		case 0:
			fmt.Fprintf(&b, "WORKDIR %s\n", dest)
		case 1:
			fmt.Fprintf(&b, "COPY%s <<END %s\n%s\nEND\n", flags, dest, g.text())
		case 2:
			fmt.Fprintf(&b, "ADD%s a d/conf %s/\n", flags, strings.TrimSuffix(dest, "/"))
		default:
			fmt.Fprintf(&b, "COPY%s %s %s\n", flags,
				pick(g, "a", "conf", "d", ".", "d/e", "x"), dest)
		}
	}
	return b.String()
}
