package snapshot

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
)

func unixTime(sec int64) time.Time { return time.Unix(sec, 0) }

// loopMount mounts a new file system of 512 MiB, made by the given command in a file, and returns
// its directory.
func loopMount(t testing.TB, mkfs string, args ...string) string {
	t.Helper()
	if mounttest.Current() != mounttest.Root {
		t.Skip("needs root for a loop device")
	}
	for _, program := range []string{mkfs, "losetup"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	dir := t.TempDir()
	image := dir + "/image"
	check(t, os.WriteFile(image, nil, 0o600))
	check(t, os.Truncate(image, 512<<20))
	if out, err := exec.Command(mkfs, append(args, image)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", mkfs, err, out)
	}
	out, err := exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		t.Skipf("no loop device: %v", err)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if err := exec.Command("losetup", "--detach", device).Run(); err != nil {
			t.Errorf("detach %s: %v", device, err)
		}
	})
	check(t, os.Mkdir(dir+"/mnt", 0o755))
	kind := strings.TrimPrefix(mkfs, "mkfs.")
	if err := unix.Mount(device, dir+"/mnt", kind, 0, ""); err != nil {
		t.Skipf("cannot mount %s: %v", kind, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir+"/mnt", 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir + "/mnt"
}
