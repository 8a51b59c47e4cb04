package faults

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/rounds"
	"github.com/layerbuild/layerbuild/test/lab"
)

// sharedBuilds are three Dockerfiles with some steps in common. Each RUN writes a number that no
// other run has, and the last step fails unless the numbers of the steps below it and of the stage
// from which it copies are those of one run. MARK makes the steps new.
var sharedBuilds = [3]string{
	"FROM busybox AS a\nRUN echo ran-a; cat /proc/sys/kernel/random/uuid > /a MARK\nRUN echo ran-b; cp /a /b; cat /proc/sys/kernel/random/uuid > /c\nFROM a\nCOPY --from=a /a /copied\nRUN echo ran-d; cmp /a /copied\n",
	"FROM busybox AS a\nRUN echo ran-a; cat /proc/sys/kernel/random/uuid > /a MARK\nRUN echo ran-b; cp /a /b; cat /proc/sys/kernel/random/uuid > /c\nRUN echo ran-e; cmp /a /b; cp /c /e\nRUN echo ran-f; cmp /c /e; cmp /a /b\n",
	"FROM busybox AS b\nRUN echo ran-g; cat /proc/sys/kernel/random/uuid > /g MARK\nFROM busybox AS c\nCOPY --from=b /g /h\nRUN echo ran-h; cp /h /i; cat /proc/sys/kernel/random/uuid > /j\nFROM c\nCOPY --from=b /g /g2\nRUN echo ran-k; cmp /g2 /h; cmp /h /i\n",
}

var ranStep = regexp.MustCompile(`[0-9.]+ ran-[a-z]`)

// TestSharedCache lets eight machines build three Dockerfiles with one cache (--cache) at once.
// Some are killed. Afterwards a machine with an empty state must find all steps of each Dockerfile
// that was built to its end: no result is lost. Layers of different runs must not be mixed, of
// which the commands of the Dockerfiles are a check, and of the image that is made last a check is
// made here.
func TestSharedCache(t *testing.T) {
	lab.Root(t)
	host := lab.DockerRegistry(t)
	l := lab.New(t)
	l.Busybox()
	cacheAt := host + "/team/cache"
	rounds.Run(t, "shared-cache", rounds.Options{Fixed: 1, Fresh: 1, Long: 20},
		func(t *testing.T, seed uint64) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			l := l.For(t)
			mark := fmt.Sprint("&& echo ", seed, " ", time.Now().UnixNano(), " > /mark")
			states := l.State + "s"
			defer os.RemoveAll(states)
			for i, text := range sharedBuilds {
				l.Write(fmt.Sprint(i, ".df"), strings.ReplaceAll(text, "MARK", mark))
			}
			var wg sync.WaitGroup
			var mu sync.Mutex
			complete := map[int]bool{}
			for i := range 8 {
				df, delay := i%len(sharedBuilds), time.Duration(rnd.IntN(300))*time.Millisecond
				kill := time.Duration(0)
				if i >= len(sharedBuilds) && rnd.IntN(2) == 0 {
					kill = time.Duration(rnd.IntN(800)) * time.Millisecond
				}
				wg.Go(func() {
					time.Sleep(delay)
					out, err := sharedBuild(l, filepath.Join(states, fmt.Sprint(i)), df, cacheAt,
						kill)
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						complete[df] = true
					} else if kill == 0 {
						t.Errorf("machine %d: %v\n%s", i, err, out)
					}
				})
			}
			wg.Wait()
			for df := range sharedBuilds {
				out, err := sharedBuild(l, filepath.Join(states, fmt.Sprint("last ", df)), df,
					cacheAt, 0)
				if err != nil || !complete[df] || ranStep.MatchString(out) {
					t.Errorf("Dockerfile %d: %v, complete %v; steps ran again:\n%s", df, err,
						complete[df], out)
				}
				if strings.Contains(out, "warning") {
					t.Errorf("Dockerfile %d:\n%s", df, out)
				}
			}
		})
}

// sharedBuild builds a Dockerfile with the cache, and kills the build after a time unless it is 0.
func sharedBuild(l *lab.Lab, state string, df int, cacheAt string,
	kill time.Duration) (string, error) {
	on := *l
	on.State = state
	cmd := on.Command("build", "--progress=plain", "--cache="+cacheAt, "-f", fmt.Sprint(df, ".df"),
		"-t", fmt.Sprint("img", df), ".")
	cmd.Env = append(cmd.Env, "TMPDIR="+os.TempDir())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	if kill > 0 {
		time.AfterFunc(kill, func() { cmd.Process.Kill() })
	}
	err := cmd.Wait()
	return out.String(), err
}
