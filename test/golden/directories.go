package golden

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/test/lab"
)

// copies are instructions that copy, some of them after instructions that make the destination.
var copies = []string{
	"COPY . /",
	"COPY . /new/deep/",
	"COPY tree /new",
	"ADD tree /new",
	"WORKDIR /app\nCOPY tree .",
	"WORKDIR /app\nCOPY --chown=12:34 --chmod=640 tree .",
	"COPY --chmod=u+s,go-w,a+X tree /there/",
	"COPY tree/d0 /there\nCOPY tree /there",
	"COPY tree/links /\nCOPY tree /to/below/",
	"COPY --exclude=**/f1 --exclude=d1 tree /part",
	"COPY --parents tree/./d0 /parents/",
	"COPY --link tree /linked",
	"COPY --from=other / /from/",
	"COPY --from=other /kept /from/",
	"COPY --chown=7 --from=other /kept /",
}

// DirectoryFiles makes a random tree, and Dockerfiles for Directories.
func DirectoryFiles(t *testing.T, l *lab.Lab) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	top := filepath.Join(l.Dir, "tree")
	randomTree(t, rand.New(rand.NewPCG(seed, 0)), top, 3)
	// '-' and '.' come before '/'
	for _, name := range []string{"links", "a", "a/b", "a-b", "a.b"} {
		if err := os.MkdirAll(filepath.Join(top, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/real", filepath.Join(top, "links", "to")); err != nil {
		t.Fatal(err)
	}
	for i := range 150 { // enough files for a layer to be written while they are copied
		l.Write(fmt.Sprintf("tree/many/%03d", i), fmt.Sprint(i))
	}
	l.Write(".dockerignore", "*.df\n")
	for i, text := range copies {
		head := "FROM scratch AS other\nCOPY --chown=5:6 tree /kept\nFROM scratch\n" + text + "\n"
		l.Write(fmt.Sprint("last", i, ".df"), head,
			fmt.Sprint("middle", i, ".df"), head+"WORKDIR /\n")
	}
}

// Directories compares the layers of copies that are the last step of an image, and of copies that
// are not, with the layers of copying, a lab whose driver copies before the layer is written.
func Directories(t *testing.T, l, copying *lab.Lab) {
	copying.Dir = l.Dir
	for _, l := range []*lab.Lab{l, copying} {
		l.Env = append(l.Env, "SOURCE_DATE_EPOCH=1700000000")
	}
	for i, text := range copies {
		last, middle := fmt.Sprint("last", i), fmt.Sprint("middle", i)
		for _, name := range []string{middle, last} {
			l.Run("build", "--progress=quiet", "--no-cache", "-f", name+".df", "-t", name, ".")
		}
		copying.Run("build", "--progress=quiet", "--driver=copy", "-f", last+".df", "-t", last, ".")
		n := strings.Count(text, "\n")
		want := copying.Image(last)
		for _, name := range []string{middle, last} {
			if got := l.Image(
				name); got.Manifest.Layers[n].Digest != want.Manifest.Layers[n].Digest {
				t.Errorf("%s as in %s\ngot:\n%s\nwant:\n%s", text, name, l.Layer(name, n),
					copying.Layer(last, n))
			}
		}
	}
}

// randomTree makes a directory with every type of file that a COPY may find.
func randomTree(t *testing.T, rnd *rand.Rand, dir string, depth int) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(dir, 0o755))
	for i := range 2 + rnd.IntN(6) {
		name := filepath.Join(dir, fmt.Sprint("f", i))
		switch rnd.IntN(8) {
		case 0:
			must(os.Symlink([]string{"f0", "../..", "/etc/passwd", "nowhere"}[rnd.IntN(4)], name))
		case 1:
			if err := os.Link(filepath.Join(dir, "f0"), name); err == nil {
				continue // it has the attributes of the other name
			}
			fallthrough
		case 2:
			must(os.WriteFile(name, nil, 0o600))
			must(os.Truncate(name, int64(rnd.IntN(3<<20)))) // only a hole
		default:
			must(os.WriteFile(name, []byte(strings.Repeat("some text ", rnd.IntN(1000))), 0o644))
			if rnd.IntN(4) == 0 {
				must(unix.Setxattr(name, "user.note", []byte("x"), 0))
			}
		}
		if fi, err := os.Lstat(name); err == nil && fi.Mode().IsRegular() {
			must(os.Chmod(name, []os.FileMode{0o644, 0o755, 0o600, 0o755 | os.ModeSetuid,
				0o444}[rnd.IntN(5)]))
			must(os.Chtimes(name, time.Time{}, time.Unix(1600000000+rnd.Int64N(2e8),
				rnd.Int64N(1e9))))
		}
	}
	if depth == 0 {
		return
	}
	for i := range 1 + rnd.IntN(3) {
		sub := filepath.Join(dir, fmt.Sprint("d", i))
		randomTree(t, rnd, sub, depth-1)
		must(os.Chmod(sub, []os.FileMode{0o755, 0o700, 0o755 | os.ModeSticky,
			0o775 | os.ModeSetgid}[rnd.IntN(4)]))
		must(os.Chtimes(sub, time.Time{}, time.Unix(1600000000+rnd.Int64N(2e8), 0)))
	}
}
