package state

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/test/lab"
)

// TestBounded builds again and again, half of the time without the cache. The state must stay
// small, the last build's steps must be in the cache, and images with a name must be complete.
func TestBounded(t *testing.T) {
	l := lab.New(t)
	l.Busybox()
	l.Write("Dockerfile", "FROM busybox\nRUN head -c 300000 /dev/urandom >/a\nARG N\nRUN head -c 300000 /dev/urandom >/b && echo $N >/n\nCOPY f /f\n",
		"f", strings.Repeat("f", 100_000))
	l.Run("build", "-t", "kept", "--build-arg", "N=kept", ".")
	args := []string{"--keep-storage=4m", "-t", "app", "."}
	var began []time.Time
	for i := range 80 {
		more := []string{"--build-arg", fmt.Sprint("N=", i%5)}
		if i%2 == 1 {
			more = append(more, "--no-cache")
		}
		if i%7 == 0 {
			more = append(more, "-t", "other")
		}
		began = append(began, time.Now())
		l.Run("build", append(args, more...)...)
		size := int64(0)
		err := filepath.WalkDir(l.State, func(path string, _ fs.DirEntry, err error) error {
			if fi, e := os.Lstat(path); e == nil && fi.Mode().IsRegular() {
				size += fi.Size()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		// The limit is for data that may be collected, the images with a name, and the data of this
		// build. Collect also keeps data that were used in the second before the build began: on
		// average 0.7 MB for each build in that time.
		recent := 0
		for _, at := range began[:i] {
			if began[i].Sub(at) < 2*time.Second {
				recent++
			}
		}
		if limit := int64(11+recent) << 20; size > limit {
			t.Fatalf("build %d leaves %d bytes, want at most %d", i, size, limit)
		}
	}
	tp := &template{Lab: l}
	_, log, err := tp.try("build", append(args, "--progress=plain", "--build-arg", "N=4")...)
	if err != nil || strings.Count(log, "CACHED") < 3 {
		t.Errorf("the last build is not in the cache: %v\n%s", err, log)
	}
	if out := l.Run("run", "kept", "cat", "/n"); out != "kept\n" {
		t.Errorf("the image with a name has %q", out)
	}
}
