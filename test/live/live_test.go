package live

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/rounds"
	"github.com/layerbuild/layerbuild/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// TestLive builds changing contexts. Every build must succeed, and its layer must have the bytes
// from which its key was computed: a build with the image's files as its context must be a cache
// hit.
func TestLive(t *testing.T) {
	lab.Root(t)
	lab.Need(t, "tar")
	rounds.Run(t, "live-context", rounds.Options{Fixed: 6, Fresh: 3, Long: 600}, round)
}

// A shape is a Dockerfile that copies the context to /c. step is the step, in the build's progress,
// that must be cached; "" if there is none.
type shape struct {
	name, text, step string
	attrs            bool // extended attributes are kept
}

var shapes = []shape{
	{"written straight from the files", "FROM scratch\nCOPY . /c/\n", `COPY \. /c/`, true},
	{"copied, and its layer written meanwhile", "FROM scratch\nCOPY . /c/\nWORKDIR /w\n",
		`COPY \. /c/`, true},
	{"the directory itself", "FROM scratch\nCOPY --parents ./ /c/\n",
		`COPY --parents \./ /c/`, true},
	{"linked", "FROM scratch AS x\nCOPY --link . /c/\nFROM scratch\nCOPY --from=x / /\n",
		`COPY --link \. /c/`, true},
	{"a base", "FROM c\nWORKDIR /c\n", "", true},
	{"the beginning of a cache",
		"FROM busybox\nRUN --mount=type=cache,target=/m,from=c cp -a /m /c\n", "", false},
	{"by names", "FROM scratch\nCOPY d0 d[1-6] /c/\n", "", true},
	{"mounted", "FROM busybox\nRUN --mount=type=bind,target=/m cp -a /m /c\n",
		`RUN --mount`, false},
}

func round(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	l := lab.New(t)
	sh := shapes[r.IntN(len(shapes))]
	if strings.Contains(sh.text, "busybox") {
		l.Busybox()
	}
	ctx := filepath.Join(l.Dir, "ctx")
	populate(t, r, ctx)
	l.Write("Dockerfile", sh.text)
	stop := write(t, r, ctx, sh.attrs)
	for i := range 3 {
		name := fmt.Sprintf("live:%d", i)
		out := l.Command("build", "--build-context=c=ctx", "-f", "Dockerfile", "-t", name, "-o",
			"type=tar,dest="+name+".tar", "ctx")
		if log, err := out.CombinedOutput(); err != nil {
			stop()
			t.Fatalf("%s, build %d: %v\n%s", sh.name, i, err, log)
		}
	}
	stop()
	if sh.step == "" {
		return
	}
	for i := range 3 {
		name := fmt.Sprintf("live:%d", i)
		again := "again" + fmt.Sprint(i)
		if err := os.Mkdir(filepath.Join(l.Dir, again), 0o755); err != nil {
			t.Fatal(err)
		}
		lab.Output(t, "tar", "--xattrs", "--xattrs-include=user.*", "-C",
			filepath.Join(l.Dir, again), "-xpf", filepath.Join(l.Dir, name+".tar"))
		log, err := l.Command("build", "--progress=plain", "-f", "Dockerfile", "-t", name,
			filepath.Join(again, "c")).CombinedOutput()
		if err != nil {
			t.Fatalf("%s, build %d of the files of the image: %v\n%s", sh.name, i, err, log)
		}
		cached := regexp.MustCompile(`(?m)^#(\d+) \[.*` + sh.step).FindSubmatch(log)
		if cached == nil || !bytes.Contains(log, fmt.Appendf(nil, "\n#%s CACHED", cached[1])) {
			t.Fatalf("%s, build %d: what is in the image is not what its key was made of\n%s",
				sh.name, i, log)
		}
	}
}

// populate makes a context with enough files for a copy to take a while.
func populate(t *testing.T, r *rand.Rand, dir string) {
	t.Helper()
	for i := range 60 + r.IntN(200) {
		name := filepath.Join(dir, fmt.Sprintf("d%d/e%d/f%d", i%7, i%3, i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, bytes.Repeat([]byte{byte(i)}, r.IntN(100_000)),
			0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A writer changes its own files in a context, again and again. Its errors are ignored.
type writer struct {
	name  string
	attrs bool // with extended attributes
	do    func(path string, n int)
}

var writers = []writer{
	{"a log grows", false, func(p string, n int) {
		if f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644); err == nil {
			fmt.Fprintln(f, "some line of a log", n)
			f.Close()
		}
	}},
	{"a file is written anew", false, func(p string, n int) {
		os.WriteFile(p, fmt.Appendf(nil, "%06d", n), 0o644)
	}},
	{"bytes are replaced in place", false, func(p string, n int) {
		if f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE, 0o644); err == nil {
			f.WriteAt(fmt.Appendf(nil, "%06d", n), 0)
			f.Close()
		}
	}},
	{"with the time put back", false, func(p string, n int) {
		os.WriteFile(p, fmt.Appendf(nil, "%06d", n), 0o644)
		os.Chtimes(p, time.Unix(1, 0), time.Unix(1, 0))
	}},
	{"a file is replaced", false, func(p string, n int) {
		os.WriteFile(p+".new", fmt.Appendf(nil, "%06d", n), 0o644)
		os.Chtimes(p+".new", time.Unix(1, 0), time.Unix(1, 0))
		os.Rename(p+".new", p)
	}},
	{"a file shrinks and grows", false, func(p string, n int) {
		if n%50 == 0 {
			os.WriteFile(p, bytes.Repeat([]byte("x"), 300_000), 0o644)
		}
		os.Truncate(p, int64(n%50)*5000)
	}},
	{"a file is touched", false, func(p string, n int) {
		if n == 0 {
			os.WriteFile(p, []byte("same"), 0o644)
		}
		os.Chtimes(p, time.Now(), time.Now())
	}},
	{"a mode changes", false, func(p string, n int) {
		if n == 0 {
			os.WriteFile(p, []byte("same"), 0o644)
		}
		os.Chmod(p, os.FileMode(0o600+n%2*0o044))
	}},
	{"a directory's mode changes", false, func(p string, n int) {
		os.MkdirAll(p+"/sub", 0o755)
		os.Chmod(p, os.FileMode(0o700+n%2*0o055))
	}},
	{"attributes change", true, func(p string, n int) {
		os.MkdirAll(p, 0o755)
		os.WriteFile(p+"/f", []byte("same"), 0o644)
		for _, name := range []string{p, p + "/f"} {
			unix.Setxattr(name, "user.n", fmt.Appendf(nil, "%d", n), 0)
		}
	}},
	{"directories come and go", false, func(p string, n int) {
		os.MkdirAll(p+"/a/b", 0o755)
		os.WriteFile(p+"/a/b/f", fmt.Appendf(nil, "%d", n), 0o644)
		if n%3 != 0 {
			os.RemoveAll(p)
		}
	}},
	{"a directory is moved away and back", false, func(p string, n int) {
		if n == 0 {
			for i := range 40 {
				os.MkdirAll(fmt.Sprintf("%s/a%d", p, i%5), 0o755)
				os.WriteFile(fmt.Sprintf("%s/a%d/f%d", p, i%5, i), []byte("old"), 0o644)
			}
			return
		}
		os.Rename(p, p+".away")
		os.Rename(p+".away", p)
	}},
	{"a link leads elsewhere", false, func(p string, n int) {
		os.Symlink(fmt.Sprint("to", n), p+".new")
		os.Rename(p+".new", p)
	}},
	{"a name changes its type", false, func(p string, n int) {
		os.RemoveAll(p)
		switch n % 4 {
		case 0:
			os.WriteFile(p, fmt.Appendf(nil, "%d", n), 0o644)
		case 1:
			os.Mkdir(p, 0o755)
		case 2:
			os.Symlink("somewhere", p)
		case 3:
			unix.Mkfifo(p, 0o644)
		}
	}},
	{"a hard link comes and goes", false, func(p string, n int) {
		if n == 0 {
			os.WriteFile(p, []byte("linked"), 0o644)
		}
		os.Link(p, p+".2")
		os.Remove(p + ".2")
	}},
	{"linked files are written to", false, func(p string, n int) {
		if n == 0 {
			os.WriteFile(p, []byte("linked"), 0o644)
			os.Link(p, p+".2")
		}
		if f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0); err == nil {
			fmt.Fprintln(f, n)
			f.Close()
		}
	}},
}

// write starts writers in a context, and returns a function that stops them.
func write(t *testing.T, r *rand.Rand, dir string, attrs bool) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 1 + r.IntN(6) {
		w := writers[r.IntN(len(writers))]
		if w.attrs && !attrs {
			continue
		}
		path := filepath.Join(dir, fmt.Sprintf("d%d/e%d/live%d", r.IntN(7), r.IntN(3), i))
		pause := time.Duration(r.IntN(3000)) * time.Microsecond
		t.Logf("%s every %v: %s", w.name, pause, path)
		w.do(path, 0)
		wg.Go(func() {
			for n := 1; ctx.Err() == nil; n++ {
				w.do(path, n)
				time.Sleep(pause)
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}
