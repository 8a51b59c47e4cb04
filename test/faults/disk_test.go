package faults

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/test/lab"
)

// mountOn mounts a file system on a new directory and unmounts it at the end.
func mountOn(t *testing.T, at, kind, options string) {
	t.Helper()
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", at, kind, 0, options); err != nil {
		t.Skipf("mount %s: %v", kind, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmount %s: %v", at, err)
			unix.Unmount(at, unix.MNT_DETACH)
		}
	})
}

// TestFullState checks that a build fails with an error that names a remedy if the state directory
// is on a full disk, and that the next build succeeds if there is room.
func TestFullState(t *testing.T) {
	lab.Root(t)
	for _, driver := range []string{"overlay", "copy"} {
		t.Run(driver, func(t *testing.T) {
			l, fresh := crashLab(t), crashLab(t)
			want := digestOf(t, fresh, driver)
			for _, size := range []string{"16k", "200k", "1m", "2m", "4m", "6m"} {
				t.Run(size, func(t *testing.T) {
					at := filepath.Join(t.TempDir(), "full")
					mountOn(t, at, "tmpfs", "size="+size)
					small := *l
					small.State = filepath.Join(at, "state")
					r := run(t, build(&small, "--driver="+driver, "-f", "reference.df", "-t", "x"))
					if r.status == 0 {
						return // there was enough room
					}
					// A command of a step may print the message with other capital letters.
					if !strings.Contains(strings.ToLower(r.log), "no space left on device") {
						t.Errorf("status %d\n%s", r.status, tail(r.log))
					}
					clean(t, &small)
					if err := unix.Mount("none", at, "tmpfs", unix.MS_REMOUNT,
						"size=200m"); err != nil {
						t.Fatal(err)
					}
					if got := digestOf(t, &small, driver); got != want {
						t.Errorf("with room again the digest is %s, want %s", got, want)
					}
				})
			}
		})
	}
}

// TestFullDestination checks that an output that does not fit is an error, leaves no incomplete
// file, and does not affect other outputs.
func TestFullDestination(t *testing.T) {
	lab.Root(t)
	l := crashLab(t)
	at := filepath.Join(t.TempDir(), "full")
	mountOn(t, at, "tmpfs", "size=512k")
	for _, kind := range []string{"oci", "docker", "tar"} {
		dest := filepath.Join(at, "x."+kind)
		if err := os.WriteFile(dest, []byte("before"), 0o644); err != nil {
			t.Fatal(err)
		}
		refused(t, build(l, "-f", "reference.df", "-o", "type="+kind+",dest="+dest),
			"no space left on device")
		if raw, err := os.ReadFile(dest); err != nil || string(raw) != "before" {
			t.Errorf("type=%s: the file that was there has %d bytes, %v", kind, len(raw), err)
		}
		if names, err := os.ReadDir(at); err != nil || len(names) != 1 {
			t.Errorf("type=%s leaves %v, %v", kind, names, err)
		}
		if err := os.Remove(dest); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, build(l, "-f", "reference.df", "-o", "type=local,dest="+filepath.Join(at, "d")),
		"no space left on device")
	cmd := build(l, "-f", "reference.df", "-o", "type=tar,dest=-")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	cmd.Stdout = full
	refused(t, cmd, "no space left on device")
}

// TestReadOnlyState checks that builds fail with a read-only state directory, and that the error
// has the reason.
func TestReadOnlyState(t *testing.T) {
	lab.Root(t)
	l := crashLab(t)
	at := filepath.Join(t.TempDir(), "ro")
	mountOn(t, at, "tmpfs", "size=200m")
	l.State = filepath.Join(at, "state")
	digestOf(t, l, "overlay")
	if err := unix.Mount("none", at, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	refused(t, build(l, "-f", "reference.df"), "read-only file system")
	refused(t, l.Command("prune", "--all"), "read-only file system")
	clean(t, l)
}

// TestStateOnOverlay checks that another driver is used for a state directory on an overlay, on
// which overlay does not work, and that the digest is the same.
func TestStateOnOverlay(t *testing.T) {
	lab.Root(t)
	l, fresh := crashLab(t), crashLab(t)
	want := digestOf(t, fresh, "overlay")
	top := t.TempDir()
	for _, name := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(top, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	at := filepath.Join(top, "merged")
	mountOn(t, at, "overlay", "lowerdir="+top+"/lower,upperdir="+top+"/upper,workdir="+top+"/work")
	l.State = filepath.Join(at, "state")
	accepted(t, build(l, "-f", "reference.df", "-t", "reference"))
	if got := l.Image("reference").Descriptor.Digest.String(); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	clean(t, l)
}
