package diff

import (
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// fewDescriptors sets so low a limit of open files that no directory of a layer is kept open.
func fewDescriptors(t *testing.T) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 128, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	var taken []*os.File
	t.Cleanup(func() {
		for _, f := range taken {
			f.Close()
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Fatal(err)
		}
	})
	for {
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, f)
		if f.Fd() >= 64 {
			return
		}
	}
}

// TestFewDescriptors runs the tests of layers with a limit so low that each directory of a layer is
// opened again for each use.
func TestFewDescriptors(t *testing.T) {
	needRoot(t)
	fewDescriptors(t)
	before := openFiles(t)
	t.Run("WriteUpper", TestWriteUpper)
	t.Run("Inherit", TestInherit)
	t.Run("Golden", TestGolden)
	if after := openFiles(t); after > before {
		t.Errorf("%d files are open, %d were", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// TestManyLayers writes a layer over more layers than the limit of open files.
func TestManyLayers(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	const dirs = "dir a 0755 @100\ndir a/b 0755 @100\n"
	const after = "dir a/b 0755 @100\ndir a 0755 @100"
	tree := Tree{Dir: mustMake(t, mkdir(t, top+"/upper"), dirs+
		"whiteout a/b/0\nwhiteout a/b/299\nfile a/b/150 0644 @100 y\nfile a/b/151 0644 @100 x\n"+
		after)}
	for i := range 300 {
		lower := fmt.Sprintf("%s/%d", top, i)
		tree.Lower = append(tree.Lower, mustMake(t, mkdir(t, lower),
			fmt.Sprintf("%sfile a/b/%d 0644 @100 x\n%s", dirs, i, after)))
	}
	want := "dir a 0755\ndir a/b 0755\n- a/b/.wh.0\n- a/b/.wh.299\nfile a/b/150 0644 y\n"
	var layer []byte
	t.Run("few descriptors", func(t *testing.T) {
		fewDescriptors(t)
		layer = write(t, tree, Options{})
	})
	if d := cmp.Diff(want, describe(t, layer)); d != "" {
		t.Errorf("layer differs (-want +got):\n%s", d)
	}
}
