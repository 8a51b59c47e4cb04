package executor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/mount"
)

// overlayOn returns a step on an overlay of an image with mount points below it, and the upper
// directory.
func overlayOn(t *testing.T, im *image, a Action) (s *Spec, upper string) {
	t.Helper()
	dir := t.TempDir()
	upper = filepath.Join(dir, "upper")
	for _, name := range []string{upper, filepath.Join(dir, "work")} {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s = im.spec(a)
	s.MountPoints = filepath.Join(dir, "points")
	if err := MakeMountPoints(s.MountPoints, filepath.Dir(s.MountPoints), "new-"); err != nil {
		t.Fatal(err)
	}
	s.Root = []mount.Mount{{Type: "overlay", Lower: []string{im.dir}, Upper: upper,
		Work: filepath.Join(dir, "work"), Options: []string{"index=off"}}}
	if userNS {
		s.Root[0].Options = append(s.Root[0].Options, "userxattr")
	}
	return s, upper
}

func runOn(t *testing.T, s *Spec) string {
	t.Helper()
	var out strings.Builder
	if _, err := Run(t.Context(), s, &out, &out); err != nil {
		if strings.Contains(err.Error(), "mount overlay") {
			t.Skip(err)
		}
		t.Fatalf("%v\n%s", err, &out)
	}
	return out.String()
}

func TestMountPointsBelowTheImage(t *testing.T) {
	im := newBusybox(t)
	points := []string{"/dev", "/etc", "/etc/hosts", "/etc/resolv.conf", "/proc", "/sys"}
	for _, tt := range []struct {
		name   string
		image  func()
		script string
		want   []string // in the upper directory
	}{
		{"nothing there", func() {},
			"test -c /dev/null && test -s /etc/hosts && test -e /proc/1 && ls /", nil},
		{"copied up and left as it was", func() {},
			"chmod 755 /etc; touch /etc/x; rm /etc/x; touch -d @77 /etc", nil},
		{"mode set", func() {}, "chmod 711 /etc", []string{"/etc"}},
		{"something made", func() {}, "mkdir /etc/new; echo x > /etc/x",
			[]string{"/etc", "/etc/new", "/etc/x"}},
		{"a directory there", func() { im.mkdir("etc/conf.d"); im.write("etc/motd", "hi", 0o600) },
			"cat /etc/motd; test -s /etc/hosts", nil},
		{"hosts is a link", func() { im.link("../run/hosts", "etc/hosts") },
			"test -s /run/hosts && rm /etc/motd", []string{"/etc", "/etc/motd"}},
		{"etc is a link", func() {
			os.Rename(im.path("etc"), im.path("real"))
			im.link("real", "etc")
		}, "test -s /real/resolv.conf", []string{"/real"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.image()
			s, upper := overlayOn(t, im, shell(tt.script))
			runOn(t, s)
			var got []string
			for _, line := range snapshotTree(t, upper)[1:] {
				got = append(got, strings.Fields(line)[0])
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("the upper directory (-want +got)\n%s", diff)
			}
			var left []string
			for _, line := range snapshotTree(t, s.MountPoints)[1:] {
				left = append(left, strings.Fields(line)[0])
			}
			if diff := cmp.Diff(points, left); diff != "" {
				t.Errorf("the mount points (-want +got)\n%s", diff)
			}
		})
	}
}

func TestMakeMountPointsAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "points")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := MakeMountPoints(dir, filepath.Dir(dir), "new-"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if names, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(names) != 1 {
		t.Errorf("got %v, %v", names, err)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("got %v, %v", fi.Mode(), err)
	}
}

// TestMakeMountPointsAgain checks that a damaged directory is replaced, also by several processes
// at once.
func TestMakeMountPointsAgain(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"a missing name": func(dir string) error {
			return os.Remove(filepath.Join(dir, "etc/hosts"))
		},
		"a file instead": func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o644))
		},
		"empty": func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755))
		},
		"a link in place": func(dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, "dev")),
				os.Symlink("x", filepath.Join(dir, "dev")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "points")
			if err := errors.Join(MakeMountPoints(dir, filepath.Dir(dir), "new-"),
				damage(dir)); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					if err := MakeMountPoints(dir, filepath.Dir(dir), "new-"); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if !wholeMountPoints(dir) {
				t.Error("it is still damaged")
			}
			if names, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(names) != 1 {
				t.Errorf("left are %v, %v", names, err)
			}
		})
	}
}

// A mount point to which the command has added an attribute is kept, as on an overlay.
func TestMountPointWithAttribute(t *testing.T) {
	dir := t.TempDir()
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	var s mountpoints
	defer s.close()
	for _, name := range []string{"plain", "marked"} {
		fd, err := s.place(root, "/"+name, true)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	if err := unix.Setxattr(filepath.Join(dir, "marked"), "user.a", []byte("v"), 0); err != nil {
		t.Skipf("the file system has no attributes: %v", err)
	}
	for _, m := range s.made {
		if err := m.remove(); err != nil {
			t.Fatal(err)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 || left[0].Name() != "marked" {
		t.Errorf("left are %v, want only the marked one", left)
	}
}
