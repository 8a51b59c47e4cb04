package faults

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/rounds"
	"github.com/layerbuild/layerbuild/test/lab"
)

// crashBuilds are builds that spend their time in different parts of the program. MARK is replaced
// by a new word each time, so that little is cached.
var crashBuilds = []string{
	"FROM busybox\nRUN echo MARK > /a && sleep 0.05\nRUN mkdir /d && for i in $(seq 200); do echo MARK $i > /d/$i; done\nCOPY src /src\n",
	"FROM scratch\nCOPY src /src\nCOPY <<E /mark\nMARK\nE\nCOPY src /again\n",
	"FROM busybox AS a\nRUN head -c 3000000 /dev/urandom > /r; echo MARK\nFROM busybox AS b\nRUN --mount=type=cache,target=/c echo MARK >> /c/f; sleep 0.1\nFROM a\nCOPY --from=b /bin /b\nRUN rm -rf /bin/ar && sleep 0.05\n",
	"FROM busybox\nADD src.tar /ar\nRUN sleep 100 & echo MARK > /x; true\nWORKDIR /w/MARK\nRUN --mount=type=secret,id=s --mount=type=tmpfs,target=/t cp -r /bin /t && echo MARK > y\n",
}

// reference is a build whose digest is the same each time.
const reference = "FROM busybox AS a\nRUN mkdir -p /x/y && echo 1 > /x/y/z && rm -rf /home\nFROM busybox\nCOPY src /src\nCOPY --from=a /x /x\nADD src.tar /ar\nRUN rm /src/f3 && echo done > /done\n"

func crashLab(t *testing.T) *lab.Lab {
	l := lab.New(t)
	l.Busybox()
	for i := range 50 {
		l.Write(fmt.Sprintf("src/f%d", i), strings.Repeat(fmt.Sprint(i), 1000*i))
	}
	l.Write("secret", "s", ".dockerignore", "*.df\nout*\ntmp\n", "reference.df", reference)
	lab.Output(t, "tar", "-C", l.Dir, "--mtime=@0", "-cf", filepath.Join(l.Dir, "src.tar"), "src")
	lab.Output(t, "find", filepath.Join(l.Dir, "src"), "-exec", "touch", "-d",
		"@1600000000", "{}", "+")
	tmp := filepath.Join(l.Dir, "tmp")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	l.Env = append(l.Env, "SOURCE_DATE_EPOCH=1700000000", "TMPDIR="+tmp)
	return l
}

// TestKills kills builds with SIGKILL at random moments. After each kill, no process and no mount
// must remain. After some, a build must have the right digest, no output may be incomplete, and
// prune must remove all remaining files.
func TestKills(t *testing.T) {
	lab.Root(t)
	for _, driver := range []string{"overlay", "copy"} {
		t.Run(driver, func(t *testing.T) {
			l, fresh := crashLab(t), crashLab(t)
			want := digestOf(t, fresh, driver)
			fresh.Run("prune", "--all", "--driver="+driver)
			empty := files(t, fresh.State)
			n := 0
			rounds.Run(t, "kills-"+driver, rounds.Options{Fixed: 6, Fresh: 4, Long: 500},
				func(t *testing.T, seed uint64) {
					rnd := rand.New(rand.NewPCG(seed, 0))
					killOne(t, l, rnd, driver)
					if n++; n%5 != 0 {
						return
					}
					if got := digestOf(t, l, driver); got != want {
						t.Errorf("after kills the digest is %s, want %s", got, want)
					}
					out := l.Run("prune", "--all", "--driver="+driver)
					if now := files(t, l.State); len(now) > len(empty)+5 {
						t.Errorf("%d files are left after prune, %d in a state without kills:\n%s",
							len(now), len(empty), out+tally(now, l.State))
					}
					if left := files(t, filepath.Join(l.Dir, "tmp")); len(left) > 0 {
						t.Errorf("left in the temporary directory: %q", left)
					}
				})
		})
	}
}

func killOne(t *testing.T, l *lab.Lab, rnd *rand.Rand, driver string) {
	t.Helper()
	mark := fmt.Sprintf("mark%d", rnd.Uint64())
	l.Write("kill.df", strings.ReplaceAll(crashBuilds[rnd.IntN(len(crashBuilds))], "MARK", mark))
	out := filepath.Join(l.Dir, "out.tar")
	if err := os.WriteFile(out, []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := l.Command("build", "--progress=quiet", "--driver="+driver, "--secret=id=s,src=secret",
		"-f", "kill.df", "-t", "reference", "-o", "type=oci,dest=out.tar", ".")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Duration(rnd.IntN(400)) * time.Millisecond)
	cmd.Process.Signal(syscall.SIGKILL)
	killed := cmd.Wait() != nil
	for range 200 { // the kernel ends the children, but not at once
		if len(processes(mark)) == 0 && len(processes(l.State)) == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	clean(t, l)
	for _, p := range processes(mark) {
		t.Errorf("left behind: %s", p)
	}
	raw, err := os.ReadFile(out)
	if err != nil || killed && string(raw) != "before" && len(raw) < 10_000 {
		t.Errorf("a killed build leaves an output of %d bytes, %v", len(raw), err)
	}
}

func digestOf(t *testing.T, l *lab.Lab, driver string) string {
	t.Helper()
	accepted(t, build(l, "--driver="+driver, "-f", "reference.df", "-t", "reference"))
	return l.Image("reference").Descriptor.Digest.String()
}

// files lists the files below dir, without directories.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestTogether runs eight builds and a prune at once on one state, and checks the digest of each
// build.
func TestTogether(t *testing.T) {
	lab.Root(t)
	l, fresh := crashLab(t), crashLab(t)
	want := digestOf(t, fresh, "overlay")
	n := 2
	if whole() {
		n = 50
	}
	for range n {
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				args := []string{"-f", "reference.df", "-t", fmt.Sprint("reference", i)}
				if i%3 == 0 {
					args = append(args, "--no-cache")
				}
				if r := run(t, build(l, args...)); r.status != 0 {
					t.Errorf("build %d: status %d\n%s", i, r.status, tail(r.log))
				}
			})
		}
		wg.Go(func() {
			if r := run(t, l.Command("prune", "--all")); r.status != 0 &&
				!strings.Contains(r.log, "build") {
				t.Errorf("prune: status %d\n%s", r.status, tail(r.log))
			}
		})
		wg.Wait()
		for i := range 8 {
			if got := l.Image(fmt.Sprint("reference", i)).Descriptor.Digest.String(); got != want {
				t.Errorf("build %d has the digest %s, want %s", i, got, want)
			}
		}
		clean(t, l)
	}
}

// tally counts files by the first three parts of their names below dir.
func tally(files []string, dir string) string {
	n := map[string]int{}
	for _, f := range files {
		parts := strings.SplitN(strings.TrimPrefix(f, dir+"/"), "/", 4)
		n[strings.Join(parts[:min(3, len(parts))], "/")]++
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(n)) {
		fmt.Fprintln(&b, name, n[name])
	}
	return b.String()
}
