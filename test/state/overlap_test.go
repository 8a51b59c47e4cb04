package state

import (
	"bytes"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/test/lab"
)

// overlapDockerfile has two targets: "long" runs until the other target "stop" has run, and "short"
// ends soon.
const overlapDockerfile = `FROM busybox AS base
RUN yes base | head -c 200000 >/base
FROM base AS long
RUN yes long | head -c 200000 >/long
RUN --mount=type=cache,id=gate,target=/c echo begun >/c/begun; until [ -e /c/stop ]; do sleep 0.1; done; cp /c/begun /begun
COPY --from=base /base /copied
FROM busybox AS stop
ARG N
RUN --mount=type=cache,id=gate,target=/c touch /c/stop; echo $N >/n
FROM base AS short
ARG N
RUN --mount=type=cache,id=short,target=/c yes $N | tee /c/f | head -c 400000 >/n
COPY f /f
RUN cat /n /f | head -c 300000 >/m
`

// TestOverlap runs builds that always overlap. The state must stay small, because each build
// collects the data that no other build uses, and every build must have the right image. The build
// that runs all the time must keep the data that it has found and made at its beginning.
func TestOverlap(t *testing.T) {
	l := lab.New(t)
	l.Busybox()
	l.Env = append(l.Env, "SOURCE_DATE_EPOCH=1700000000")
	l.Write("Dockerfile", overlapDockerfile, "f", strings.Repeat("file\n", 100))
	const kinds, builds, workers = 4, 15, 2
	short := func(n int) []string {
		return []string{"-q", "--target=short", "--build-arg", fmt.Sprint("N=", n),
			"--keep-storage=1m", "."}
	}
	var want [kinds]string
	for i := range want {
		want[i] = l.Run("build", short(i)...)
	}
	stop := []string{"-q", "--target=stop", "--keep-storage=off", "."}
	l.Run("build", stop...)
	wantLong := l.Run("build", "-q", "--target=long", ".")
	l.Run("prune", "--all")

	long := l.Command("build", "-q", "--target=long", "--keep-storage=1m", ".")
	var out, log bytes.Buffer
	long.Stdout, long.Stderr = &out, &log
	if err := long.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- long.Wait() }()
	var most int64
	var mu sync.Mutex
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for i := range builds {
				n := (w + i) % kinds
				args := short(n)
				if i%2 == 1 {
					args = append(args, "--no-cache")
				}
				cmd := l.Command("build", args...)
				var log bytes.Buffer
				cmd.Stderr = &log
				got, err := cmd.Output()
				if err != nil || string(got) != want[n] {
					t.Errorf("build %d of worker %d is %q, want %q: %v\n%s", i, w, got,
						want[n], err, log.String())
					return
				}
				mu.Lock()
				most = max(most, stateSize(t, l.State))
				mu.Unlock()
			}
		})
	}
	group.Wait()
	select {
	case err := <-ended:
		t.Errorf("the long build has ended before the others: %v\n%s", err, log.String())
		return
	default:
	}
	l.Run("build", append(stop, "--build-arg", "N=again")...)
	if err := <-ended; err != nil || out.String() != wantLong {
		t.Errorf("the long build is %q, want %q: %v\n%s", out.String(), wantLong, err, log.String())
	}
	// One build makes about 1.2 MB. The data of the long build, the limit, and the data of the last
	// builds are together far below the data of all builds, which are about 27 MB.
	if limit := int64(18 << 20); most > limit {
		t.Errorf("the state had up to %d bytes, want at most %d", most, limit)
	}
	t.Logf("the state had up to %d bytes", most)
}

// stateSize returns the disk space of the state directory, which builds may change meanwhile.
func stateSize(t *testing.T, dir string) int64 {
	t.Helper()
	var n int64
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			n += st.Blocks * 512
		}
		return nil
	})
	return n
}
