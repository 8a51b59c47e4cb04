package state

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
)

// TestBounded builds again and again, half of the time without the cache: the state stays small, the last build's steps are in
// the cache, and images with a name are whole.
func TestBounded(t *testing.T) {
	l := lab.New(t)
	l.Busybox()
	l.Write("Dockerfile", "FROM busybox\nRUN head -c 300000 /dev/urandom >/a\nARG N\nRUN head -c 300000 /dev/urandom >/b && echo $N >/n\nCOPY f /f\n",
		"f", strings.Repeat("f", 100_000))
	l.Run("build", "-t", "kept", "--build-arg", "N=kept", ".")
	args := []string{"--keep-storage=4m", "-t", "app", "."}
	for i := range 30 {
		more := []string{"--build-arg", fmt.Sprint("N=", i%5)}
		if i%2 == 1 {
			more = append(more, "--no-cache")
		}
		if i%7 == 0 {
			more = append(more, "-t", "other")
		}
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
		// What may be collected, the images with a name, and what this build has made.
		if size > 11<<20 {
			t.Fatalf("build %d leaves %d bytes", i, size)
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
