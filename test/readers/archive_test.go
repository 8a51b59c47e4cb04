package readers

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/test/lab"
)

// large writes a context whose image has a layer of size bytes that cannot be compressed.
func large(l *lab.Lab, size int) {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(data)
	l.Write("ctx/large", string(data), "ctx/Dockerfile", "FROM scratch\nCOPY large /\n")
}

// TestAlignedArchive reads archives with other programs. The headers of their large blobs have a
// comment that moves the blob to a multiple of 4 KiB.
func TestAlignedArchive(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	large(l, 3<<20)
	for _, kind := range []string{"oci", "docker"} {
		file := filepath.Join(l.Dir, kind+".tar")
		l.Run("build", "-t", "a/b:c", "-o", "type="+kind+",dest="+file, "ctx")
		blob := "blobs/sha256/" + l.Image("a/b:c").Manifest.Layers[0].Digest.Encoded()
		for _, reader := range [][]string{
			{"tar", "-xOf", file, blob},
			{"busybox", "tar", "-xOf", file, blob},
			{"python3", "-c", "import sys,tarfile\n" +
				"sys.stdout.buffer.write(tarfile.open(sys.argv[1]).extractfile(sys.argv[2]).read())",
				file, blob},
		} {
			lab.Need(t, reader[0])
			got, want := lab.Output(t, reader[0], reader[1:]...), readBlob(t, l, blob)
			if got != want {
				t.Errorf("%s: %d bytes of %s from %s, want %d, or they differ", reader[0],
					len(got), blob, kind, len(want))
			}
		}
		lab.Need(t, "skopeo")
		to := filepath.Join(l.Dir, kind+".copy")
		lab.Output(t, "skopeo", "copy", "--insecure-policy", kind+"-archive:"+file, "oci:"+to+":x")
		img, err := imagetest.Open(to, "x")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := img.Config.RootFS.DiffIDs[0],
			l.Image("a/b:c").Config.RootFS.DiffIDs[0]; got != want {
			t.Errorf("skopeo copies %s from %s, want %s", got, kind, want)
		}
	}
}

func readBlob(t *testing.T, l *lab.Lab, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(l.State, "oci", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestSharedArchive exports to the file system of the state directory, btrfs: the blobs share their
// blocks with those of the state. The blob of the first export was written by the same process,
// that of the third was verified by the second.
func TestSharedArchive(t *testing.T) {
	lab.Root(t)
	lab.Need(t, "mkfs.btrfs")
	l := lab.New(t)
	large(l, 30<<20)
	image, dir := filepath.Join(l.Dir, "image"), filepath.Join(l.Dir, "btrfs")
	for _, err := range []error{os.WriteFile(image, nil, 0o600), os.Truncate(image, 512<<20),
		os.Mkdir(dir, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	lab.Output(t, "mkfs.btrfs", "-q", image)
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	l.State = filepath.Join(dir, "state")
	used := func() int64 {
		t.Helper()
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		var st unix.Statfs_t
		if err := unix.Syncfs(fd); err != nil {
			t.Fatal(err)
		}
		if err := unix.Fstatfs(fd, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Blocks-st.Bfree) * st.Bsize
	}
	export := func(name string) int64 {
		t.Helper()
		before := used()
		l.Run("build", "-t", "x", "-o", "type=oci,dest="+filepath.Join(dir, name), "ctx")
		return used() - before
	}
	l.Run("build", "-t", "x", "ctx")
	time.Sleep(50 * time.Millisecond) // a younger blob is not remembered as verified
	if grown := export("unverified.tar"); grown < 30<<20 {
		t.Errorf("an export of a blob that nobody has verified takes %d bytes", grown)
	}
	if grown := export("verified.tar"); grown > 4<<20 {
		t.Errorf("an export of a verified blob takes %d bytes", grown)
	}
	a, b := filepath.Join(dir, "unverified.tar"), filepath.Join(dir, "verified.tar")
	if out, err := exec.Command("cmp", a, b).CombinedOutput(); err != nil {
		t.Errorf("the archives differ: %s", out)
	}
	l.State = filepath.Join(dir, "other")
	l.Run("build", "-t", "y", "-o", "type=oci,dest="+filepath.Join(dir, "layout")+",tar=false",
		"ctx")
	blob := l.Image("y").Manifest.Layers[0].Digest.Encoded()
	shared := lab.Output(t, "filefrag", "-v",
		filepath.Join(dir, "layout", "blobs", "sha256", blob))
	if !strings.Contains(shared, "shared") {
		t.Errorf("the blob of a layout shares no block with the state's:\n%s", shared)
	}
}
