package source

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/layerbuild/layerbuild/internal/volume"
	"golang.org/x/sys/unix"
)

// imageMaker makes a file system image of a directory, with given ctimes.
type imageMaker struct {
	kind string
	make func(dir, image string) *exec.Cmd
}

var imageMakers = []imageMaker{
	{"squashfs", func(dir, image string) *exec.Cmd {
		return exec.Command("mksquashfs", dir, image, "-all-time", "1000000000", "-mkfs-time",
			"1000000000", "-all-root", "-quiet", "-no-progress")
	}},
	{"erofs", func(dir, image string) *exec.Cmd {
		return exec.Command("mkfs.erofs", "-T", "1000000000", "--all-root", image, dir)
	}},
	// A file system of the allow-list. The two images have different UUIDs.
	{"ext4", func(dir, image string) *exec.Cmd {
		return exec.Command("sh", "-ec", `mkfs.ext4 -q -F -d "$0" "$1" 8M
			for f in / /f; do for field in ctime @1000000000 ctime_extra 0; do echo $field; done | while read field && read value; do
				debugfs -w -R "set_inode_field $f $field $value" "$1"
			done; done`, dir, image)
	}},
}

// twoImages makes two images that contain the same name, size and times, but different bytes.
func twoImages(t *testing.T, maker imageMaker) (a, b string) {
	t.Helper()
	var images []string
	for _, text := range []string{"one", "two"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{filepath.Join(dir, "f"), dir} {
			ts := unix.NsecToTimespec(1e18)
			if err := unix.UtimesNanoAt(unix.AT_FDCWD, name,
				[]unix.Timespec{ts, ts}, 0); err != nil {
				t.Fatal(err)
			}
		}
		image := filepath.Join(t.TempDir(), "image")
		cmd := maker.make(dir, image)
		if out, err := cmd.CombinedOutput(); errors.Is(err, exec.ErrNotFound) {
			t.Skip(err)
		} else if err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
		images = append(images, image)
	}
	return images[0], images[1]
}

// mounted mounts a file system until the test ends or the returned function is called.
func mounted(t *testing.T, args ...string) (unmount func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		t.Skipf("mount %q: %v: %s", args, err, out)
	}
	done := false
	unmount = func() {
		if done {
			return
		}
		done = true
		if out, err := exec.Command("umount", args[len(args)-1]).CombinedOutput(); err != nil {
			t.Fatalf("umount: %v: %s", err, out)
		}
	}
	t.Cleanup(unmount)
	return unmount
}

// digestAt matches a directory with an index and without one. It returns the digest with the index,
// and the number of files that were read.
func digestAt(t *testing.T, dir, index string) (got string, n int) {
	t.Helper()
	open := func(o TreeOptions) *Tree {
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		tree, err := NewTree(f, o)
		if err != nil {
			t.Fatal(err)
		}
		got = string(matchAll(t, tree).Digest)
		n = read(tree)
		if err := tree.Close(); err != nil {
			t.Fatal(err)
		}
		return tree
	}
	open(TreeOptions{})
	fresh := got
	open(TreeOptions{IndexFile: index})
	if got != fresh {
		t.Errorf("digest with the index %s, without %s", got, fresh)
	}
	return got, n
}

// An image that replaces another one with the same inode numbers and times is recognized as another
// one.
func TestIndexOfImages(t *testing.T) {
	for _, maker := range imageMakers {
		t.Run(maker.kind, func(t *testing.T) {
			a, b := twoImages(t, maker)
			at, index := t.TempDir(), filepath.Join(t.TempDir(), "index")
			var digests [2]string
			var inodes [2]uint64
			for i, image := range []string{a, b} {
				unmount := mounted(t, "-o", "loop,ro", "-t", maker.kind, image, at)
				var st unix.Stat_t
				if err := unix.Stat(filepath.Join(at, "f"), &st); err != nil {
					t.Fatal(err)
				}
				inodes[i] = st.Ino
				if st.Ctim.Sec != 1e9 {
					t.Fatalf("ctime %d, want that of the image", st.Ctim.Sec)
				}
				digests[i], _ = digestAt(t, at, index)
				unmount()
			}
			if inodes[0] != inodes[1] {
				t.Fatalf("inodes %d: the images do not test anything", inodes)
			}
			if digests[0] == digests[1] {
				t.Error("two images have one digest")
			}
		})
	}
}

// The file systems below an overlay cannot be identified. Digests of its files are used as long as
// it is mounted. Another overlay at the same mount point is recognized as another one, even if all
// times and numbers are the same.
func TestIndexOfOverlay(t *testing.T) {
	a, b := twoImages(t, imageMakers[0])
	lower, at, index := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "index")
	top := t.TempDir()
	mounted(t, "-t", "tmpfs", "none", top)
	for _, name := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(top, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var digests [2]string
	for i, image := range []string{a, b} {
		below := mounted(t, "-o", "loop,ro", image, lower)
		above := mounted(t, "-t", "overlay", "-o",
			"lowerdir="+lower+",upperdir="+top+"/upper,workdir="+top+"/work", "overlay", at)
		digests[i], _ = digestAt(t, at, index)
		f, err := os.Open(at)
		if err != nil {
			t.Fatal(err)
		}
		trusted := volume.Of(int(f.Fd()), 0).ID != 0
		f.Close()
		again, n := digestAt(t, at, index)
		if again != digests[i] || trusted && n > 0 {
			t.Errorf("%d files were read again in the same mount", n)
		}
		above()
		below()
	}
	if digests[0] == digests[1] {
		t.Error("what was mounted later was taken for what was mounted before")
	}
}

// Files of other types of file systems are read each time.
func TestIndexTrusts(t *testing.T) {
	dir := makeTree(t, "file f x\n")
	age()
	tree := openTree(t, dir, TreeOptions{})
	matchAll(t, tree)
	if tree.index.rootFS.ID == 0 {
		t.Skip("the test's directory is on a file system that is not trusted")
	}
	if read(tree) != 1 {
		t.Fatalf("%d files remembered, want 1", read(tree))
	}
	untrusted := openTree(t, dir, TreeOptions{})
	untrusted.index.rootFS.ID = 0
	for range 2 {
		if got, want := matchAll(t, untrusted).Digest, matchAll(t, tree).Digest; got != want {
			t.Errorf("digest %s, want %s", got, want)
		}
	}
	if n := known(untrusted); n != 0 {
		t.Errorf("%d files of a file system that is not trusted are remembered", n)
	}
}
