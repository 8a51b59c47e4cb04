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
	"golang.org/x/sys/unix"

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
		l.Write("context/ar.tar", string(imagetest.Tar(t, g.layers()[0]...)), "context/p/x", "x",
			"Dockerfile", dockerfile)
		// A step may replace the users of the image by a link.
		if err := os.Symlink(pick(g, "/d/passwd", "../x/passwd", "a"),
			filepath.Join(l.Dir, "context/p/passwd")); err != nil {
			t.Fatal(err)
		}
		if bothWays(t, l) {
			outlined++
		}
	})
	t.Logf("%d builds have used an outline", outlined)
	if outlined == 0 && !t.Failed() {
		t.Error("no build has used an outline")
	}
}

// bothWays builds the Dockerfile of a lab on the outline of the layout base and again with the same
// state, and on the unpacked base, and compares the results. It reports whether there was an
// outline.
func bothWays(t *testing.T, l *lab.Lab) bool {
	t.Helper()
	l.Write("unpack", "FROM base AS x\nFROM scratch\nCOPY --from=x / /\n")
	build := func(state, file string) string {
		l.State = filepath.Join(l.Dir, state)
		out, _ := l.Command("build", "--progress=plain", "--build-context=base=oci-layout://"+
			filepath.Join(l.Dir, "base"), "-f", file, "-t", "x", "context").CombinedOutput()
		if strings.Contains(string(out), "goroutine ") {
			t.Errorf("%s", out)
		}
		return string(out)
	}
	got := build("outlined", "Dockerfile")
	again := build("outlined", "Dockerfile")
	build("unpacked", "unpack")
	want := build("unpacked", "Dockerfile")
	for _, out := range []string{got, again} {
		if a, b := result(out), result(want); a != b {
			dockerfile, _ := os.ReadFile(filepath.Join(l.Dir, "Dockerfile"))
			t.Errorf("on an outline:\n%s\n\nunpacked:\n%s\n\n%s", a, b, dockerfile)
		}
	}
	for _, dir := range []string{"outlined", "unpacked"} {
		if err := os.RemoveAll(filepath.Join(l.Dir, dir)); err != nil {
			t.Error(err)
		}
	}
	return strings.Contains(got, "its directories are unpacked")
}

// TestOutlineCases builds both ways where the layer of a step depends on more of the base than the
// step reads.
func TestOutlineCases(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	l.Env = append(l.Env, "SOURCE_DATE_EPOCH=1700000000", "LAYERBUILD_CHECK_LAYERS=0")
	const passwd = "app:x:7:8::/:/x\n"
	entry := func(kind byte, name, text string) imagetest.Entry {
		h := tar.Header{Typeflag: kind, Name: name, Mode: 0o644, ModTime: at}
		switch kind {
		case tar.TypeDir:
			h.Mode = 0o755
		case tar.TypeReg:
			h.Size = int64(len(text))
		case tar.TypeSymlink, tar.TypeLink:
			h.Linkname, text = text, ""
		}
		return imagetest.TarFile(h, text)
	}
	dir := func(name string) imagetest.Entry { return entry(tar.TypeDir, name, "") }
	file := func(name, text string) imagetest.Entry { return entry(tar.TypeReg, name, text) }
	for _, tt := range []struct {
		name     string
		base     []imagetest.Entry
		context  []imagetest.Entry
		archive  []imagetest.Entry
		commands string
	}{
		{"the users are behind a link", []imagetest.Entry{dir("usr"), dir("usr/etc"),
			file("usr/etc/passwd", passwd), entry(tar.TypeSymlink, "etc", "usr/etc")},
			nil, nil, "COPY --chown=app f /g\nUSER app\nWORKDIR /w\n"},
		{"a step moves the users", []imagetest.Entry{dir("etc"), file("etc/passwd", passwd),
			dir("usr"), file("usr/passwd", "app:x:9:9::/:/x\n")},
			[]imagetest.Entry{dir("p"), entry(tar.TypeSymlink, "p/passwd", "../usr/passwd")}, nil,
			"COPY p/ /etc/\nCOPY --chown=app f /g\n"},
		{"an archive makes a directory anew", []imagetest.Entry{dir("d"), file("d/x", "x"),
			file("d/y", "y")}, nil,
			[]imagetest.Entry{file("d", "f"), dir("d"), file("d/new", "n")}, "ADD ar.tar /\n"},
		{"an archive links to a file of the base", []imagetest.Entry{file("x", "x")}, nil,
			[]imagetest.Entry{entry(tar.TypeLink, "y", "x")}, "ADD ar.tar /\n"},
		{"two names of a link", []imagetest.Entry{dir("l"), entry(tar.TypeSymlink, "l/a", "t"),
			entry(tar.TypeLink, "l/b", "l/a")},
			[]imagetest.Entry{dir("src"), entry(tar.TypeSymlink, "src/a", "t")}, nil,
			"COPY src/ /l/\n"},
		{"two names of the users", []imagetest.Entry{dir("etc"), file("etc/passwd", passwd),
			entry(tar.TypeLink, "etc/passwd-", "etc/passwd")},
			[]imagetest.Entry{file("passwd", passwd)}, nil, "COPY passwd /etc/\n"},
		{"an equal file", []imagetest.Entry{file("f", "f")}, nil, nil, "COPY f /\n"},
		{"a late opaque mark", []imagetest.Entry{dir("usr"), dir("usr/share"),
			file("usr/share/f", "f"), file("usr/.wh..wh..opq", "")}, nil, nil,
			"COPY f /usr/share/\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := l.For(t)
			l.Dir = t.TempDir()
			made, err := imagetest.Make(dockerspec.DockerOCIImageConfig{}, tt.base)
			if err == nil {
				err = made.WriteLayout(filepath.Join(l.Dir, "base"), "base")
			}
			if err != nil {
				t.Fatal(err)
			}
			l.Write("context/f", "f", "Dockerfile", "FROM base\n"+tt.commands,
				"context/ar.tar", string(imagetest.Tar(t, tt.archive...)))
			for _, e := range tt.context {
				name := filepath.Join(l.Dir, "context", e.Path)
				switch e.Header.Typeflag {
				case tar.TypeDir:
					err = os.Mkdir(name, 0o755)
				case tar.TypeSymlink:
					err = os.Symlink(e.Header.Linkname, name)
				default:
					err = os.WriteFile(name, e.Data, 0o644)
				}
				if err == nil {
					ts := unix.NsecToTimespec(at.UnixNano())
					err = unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{ts, ts},
						unix.AT_SYMLINK_NOFOLLOW)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chtimes(filepath.Join(l.Dir, "context/f"), at, at); err != nil {
				t.Fatal(err)
			}
			bothWays(t, l)
		})
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

// pick returns one of the values.
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
			case k < 5 && exists[name] == 0:
				if len(list) == 0 {
					continue
				}
				to := pick(g, list...).Header
				if !strings.Contains(to.Name, ".wh.") && (to.Typeflag == tar.TypeReg ||
					to.Typeflag == tar.TypeSymlink) {
					add(tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to.Name}, "")
					exists[name] = tar.TypeReg
				}
			case path.Base(name) == "passwd":
				add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644},
					pick(g, "app:x:7:8::/:/x\n", "app:x:8:7::/:/x\n"))
				exists[name] = tar.TypeReg
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
			" --chown=0:0 --link", " --chown=app", " --chown=app")
		switch g.IntN(8) {
		case 0:
			fmt.Fprintf(&b, "WORKDIR %s\n", dest)
		case 1:
			fmt.Fprintf(&b, "COPY%s <<END %s\n%s\nEND\n", flags, dest, g.text())
		case 2:
			fmt.Fprintf(&b, "ADD%s a d/conf %s/\n", flags, strings.TrimSuffix(dest, "/"))
		case 3:
			fmt.Fprintf(&b, "ADD%s ar.tar %s\n", flags, dest)
		case 4:
			fmt.Fprintf(&b, "USER app\nWORKDIR %s\n", dest)
		default:
			fmt.Fprintf(&b, "COPY%s %s %s\n", flags,
				pick(g, "a", "conf", "d", ".", "d/e", "x", "p", "p"), dest)
		}
	}
	return b.String()
}
