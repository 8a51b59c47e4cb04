package state

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/rounds"
	"github.com/layerbuild/layerbuild/test/lab"
)

// busyDockerfile has a stage that all variants share, steps of each, and a cache mount.
const busyDockerfile = `FROM busybox AS shared
RUN --mount=type=cache,target=/c echo shared >/s && head -c 300000 /dev/zero >/c/f
FROM busybox
ARG N
RUN echo $N >/n && head -c 200000 /dev/zero >/z
COPY --from=shared /s /s
COPY many /many
RUN rm /z
COPY f /f
`

const variants = 8

// busy is a state on which builds and prunes run at once, with the digests that the builds must
// have.
type busy struct {
	*lab.Lab
	want  [variants]string
	clean []string // files of a state after one build and prune --all
}

func newBusy(t *testing.T, user string) *busy {
	l := lab.New(t)
	l.Busybox()
	l.Env = append(l.Env, "SOURCE_DATE_EPOCH=1700000000")
	l.Write("Dockerfile", busyDockerfile, "f", "file\n")
	for i := range 120 {
		l.Write(fmt.Sprintf("many/%d", i), strings.Repeat("y", 500*i))
	}
	if user != "" {
		l.As(user)
	}
	b := &busy{Lab: l}
	for i := range b.want {
		b.want[i] = strings.TrimSpace(l.Run("build", b.args(i)...))
	}
	l.Run("rm", b.names()...)
	l.Run("prune", "--all")
	b.clean = b.files(t)
	return b
}

func (b *busy) args(i int) []string {
	return []string{"-q", "-t", fmt.Sprintf("app%d", i), "--build-arg", fmt.Sprintf("N=%d", i), "."}
}

func (b *busy) names() []string {
	var list []string
	for i := range variants {
		list = append(list, fmt.Sprintf("app%d", i))
	}
	return list
}

// variable matches files whose names or presence may differ: locks, the index of a context,
// measured sizes, and files that a process has left which was killed between writing and renaming.
var variable = regexp.MustCompile(`^(oci/index\.json\.(old|copy)|cache/(usage|syncs(\.new)?|context/[0-9a-f]{32}|mountpoints/.*|(step|chain|sealed|remote)(/..)?|lock|builds|tables|mounts|verified)|snapshots/(full/)?(probe.*|ids(\.new)?|lock))$`)

// files returns the files of the state, without those that may differ.
func (b *busy) files(t *testing.T) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(b.State, func(path string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(b.State, path)
		if err == nil && !variable.MatchString(rel) {
			list = append(list, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// run starts a verb, and kills it after a while if that is not 0.
func (b *busy) run(verb string, kill time.Duration, args ...string) (string, error) {
	cmd := b.Command(verb, args...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Start(); err != nil {
		return "", err
	}
	if kill > 0 {
		timer := time.AfterFunc(kill, func() { killAll(cmd) })
		defer timer.Stop()
		_ = cmd.Wait()
		return "", nil
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, log.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// killAll kills a process and, if it was started through another program, its children.
func killAll(cmd *exec.Cmd) {
	pid := fmt.Sprint(cmd.Process.Pid)
	if children, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children"); err == nil &&
		filepath.Base(cmd.Path) == "runuser" {
		for child := range strings.FieldsSeq(string(children)) {
			_ = exec.Command("kill", "-9", child).Run()
		}
	}
	_ = cmd.Process.Kill()
}

// round runs eight builds and a prune at once, and kills some of them.
func (b *busy) round(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	var wg sync.WaitGroup
	for i := range variants {
		args, kill := b.args(i), time.Duration(0)
		switch r.IntN(4) {
		case 0:
			args = append(args, "--no-cache")
		case 1:
			args = append(args, "--keep-storage=1")
		}
		if r.IntN(3) == 0 {
			kill = time.Duration(1+r.IntN(1500)) * time.Millisecond
		}
		wg.Go(func() {
			got, err := b.run("build", kill, args...)
			if err != nil {
				t.Errorf("build %d: %v", i, err)
			} else if kill == 0 && got != b.want[i] {
				t.Errorf("build %d is %s, want %s", i, got, b.want[i])
			}
		})
	}
	flags := [][]string{nil, {"--all"}, {"--keep-storage=1m"}, {"--unused=1ms"}, {"-n"}}[r.IntN(5)]
	kill := time.Duration(r.IntN(2)*(1+r.IntN(500))) * time.Millisecond
	wg.Go(func() {
		if _, err := b.run("prune", kill, flags...); err != nil {
			t.Errorf("prune %v: %v", flags, err)
		}
	})
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, i := range []int{r.IntN(variants), r.IntN(variants)} {
		if got, err := b.run("build", 0, b.args(i)...); err != nil || got != b.want[i] {
			t.Errorf("afterwards build %d is %s, want %s: %v", i, got, b.want[i], err)
		}
	}
}

// whole removes everything, and compares the remaining files with those that remain after one
// build.
func (b *busy) whole(t *testing.T) {
	t.Helper()
	for _, name := range b.names() {
		_, _ = b.run("rm", 0, name) // the image may not exist
	}
	b.Run("prune", "--all")
	if got, want := strings.Join(b.files(t), "\n"), strings.Join(b.clean, "\n"); got != want {
		t.Errorf("after prune --all there is\n%s\nwant\n%s", got, want)
	}
}

func TestBusy(t *testing.T) {
	lab.Root(t)
	b := newBusy(t, "")
	rounds.Run(t, "state-busy-root", rounds.Options{Fixed: 2, Fresh: 1, Long: 80}, b.round)
	b.whole(t)
}

func TestBusyRootless(t *testing.T) {
	lab.Root(t)
	b := newBusy(t, lab.User(t, true))
	rounds.Run(t, "state-busy-user", rounds.Options{Fixed: 1, Fresh: 1, Long: 40}, b.round)
	b.whole(t)
}
