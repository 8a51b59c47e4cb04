package rootless

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/test/golden"
	"github.com/layerbuild/layerbuild/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// TestSameDigest checks that every image has root's digest if a user with a range of subordinate
// ids builds it.
func TestSameDigest(t *testing.T) {
	user := lab.User(t, true)
	compare(t, user, golden.Images)
}

// TestSingleID checks that, without a range, images in which all files belong to root have root's
// digest.
func TestSingleID(t *testing.T) {
	user := lab.User(t, false)
	var images []golden.Image
	for _, img := range golden.Images {
		if !img.Owners {
			images = append(images, img)
		}
	}
	compare(t, user, images)
}

// TestFuseOverlay checks the same for the driver that is used if the kernel does not let users
// mount overlayfs.
func TestFuseOverlay(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		name := map[bool]string{true: "range", false: "single id"}[ranges]
		t.Run(name, func(t *testing.T) {
			user := lab.User(t, ranges)
			var images []golden.Image
			for _, img := range golden.Images {
				if ranges || !img.Owners {
					images = append(images, img)
				}
			}
			compare(t, user, images, "--driver=fuse-overlayfs")
		})
	}
}

// compare builds the images as root and as the user, who adds flags, and compares the digests.
func compare(t *testing.T, user string, images []golden.Image, flags ...string) {
	want, got := lab.New(t), lab.New(t)
	golden.Context(t, want)
	golden.Context(t, got)
	got.As(user)
	if len(flags) > 0 {
		got.Fuse()
	}
	for _, img := range images {
		t.Run(img.Name, func(t *testing.T) {
			w, g := golden.Build(want, img), golden.Build(got, img, flags...)
			if w == g {
				return
			}
			for n := range want.Image(img.Name).Manifest.Layers {
				t.Errorf("%s: root has %s, %s has %s; layer %d:\n%s---\n%s", img.Name, w, user, g,
					n, want.Layer(img.Name, n), got.Layer(img.Name, n))
			}
		})
	}
}

// TestCopiedDirectories runs golden.Directories as an unprivileged user.
func TestCopiedDirectories(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		user := lab.User(t, ranges)
		l, copying := lab.New(t), lab.New(t)
		golden.DirectoryFiles(t, l)
		l.As(user)
		copying.As(user)
		golden.Directories(t, l, copying)
	}
}

// TestSingleIDWarns checks that there is one warning about owners that cannot be set, and that the
// build continues.
func TestSingleIDWarns(t *testing.T) {
	l := lab.New(t)
	user := lab.User(t, false)
	l.Write("f", "f\n", "Dockerfile", "FROM scratch\nCOPY --chown=1234:5678 f /\n")
	l.As(user)
	cmd := l.Command("build", "--progress=plain", "-t", "img", ".")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	if text := log.String(); !strings.Contains(text, "1234") ||
		!strings.Contains(strings.ToLower(text), "warning") {
		t.Errorf("no warning about the owner 1234 in\n%s", text)
	}
	if got := l.Layer("img", 0); !strings.Contains(got, `file f 0644`) {
		t.Errorf("the layer holds %s", got)
	}
}

// TestDescriptors checks that a build reads files that it inherits as open descriptors of any
// number, and that several steps may use a secret that can be read only once. The pipes belong to
// root and have the mode 0600, like those of a shell where sudo starts the build as another user:
// the build cannot open them and uses their descriptors.
func TestDescriptors(t *testing.T) {
	const dockerfile = "FROM busybox\nCOPY f /\nRUN --mount=type=secret,id=s test $(cat /run/secrets/s) = one\nRUN --mount=type=secret,id=s test $(cat /run/secrets/s) = one && ! readlink /proc/self/fd/5\n"
	const scratch = "FROM scratch\nCOPY f /\n"
	context := archive(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY inside /\n",
		"inside": "x"})
	for _, test := range []struct {
		name  string
		args  []string
		files []string // from number 3 on
		stdin string
	}{
		{"context", []string{"/dev/fd/3"}, []string{context}, ""},
		{"context as standard input", []string{"/dev/stdin"}, nil, context},
		{"context that is a Dockerfile", []string{"/dev/fd/4"},
			[]string{"", "FROM scratch\nENV a=b\n"}, ""},
		{"named context", []string{"-f", "/dev/fd/4", "--build-context=more=/dev/fd/3", "."},
			[]string{context, "FROM scratch\nCOPY --from=more inside /x\n"}, ""},
		{"configuration", []string{"-f", "/dev/fd/3", "--analyze", "--config=/dev/fd/4", "."},
			[]string{scratch, "fail-over: 1g\n"}, ""},
		{"Dockerfile", []string{"-f", "/dev/fd/3", "."}, []string{scratch}, ""},
		{"Dockerfile and secret", []string{"-f", "/dev/fd/3", "--secret=id=s,src=/dev/fd/4", "."},
			[]string{dockerfile, "one"}, ""},
		{"secret and Dockerfile", []string{"-f", "/dev/fd/5", "--secret=id=s,src=/proc/self/fd/3",
			"."}, []string{"one", "", dockerfile}, ""},
		{"Dockerfile on standard input", []string{"-f", "-", "--secret=id=s,src=/dev/fd/3", "."},
			[]string{"one"}, dockerfile},
		{"secret on standard input", []string{"-f", "/dev/fd/6", "--secret=id=s,src=/dev/stdin",
			"."}, []string{"", "", "", dockerfile}, "one"},
	} {
		for _, user := range []string{"", lab.User(t, true), lab.User(t, false)} {
			t.Run(test.name+" "+user, func(t *testing.T) {
				l := lab.New(t)
				l.Busybox()
				l.Write("f", "f\n")
				if user != "" {
					l.As(user)
				}
				cmd := l.Command("build", append([]string{"--progress=plain", "--no-cache"},
					test.args...)...)
				var log bytes.Buffer
				cmd.Stdout, cmd.Stderr, cmd.Stdin = &log, &log, pipe(t, test.stdin)
				for _, content := range test.files {
					cmd.ExtraFiles = append(cmd.ExtraFiles, pipe(t, content))
				}
				if err := cmd.Run(); err != nil {
					t.Errorf("%v\n%s", err, log.String())
				}
			})
		}
	}
}

// TestDescriptorsWritten checks that a build can write its outputs to pipes of another user.
func TestDescriptorsWritten(t *testing.T) {
	for flag, want := range map[string]string{"--iidfile=/dev/fd/3": "sha256:",
		"--metadata-file=/proc/self/fd/3": "{", "--output=type=tar,dest=/dev/fd/3": "f\x00"} {
		for _, user := range []string{"", lab.User(t, true), lab.User(t, false)} {
			t.Run(flag+" "+user, func(t *testing.T) {
				l := lab.New(t)
				l.Write("f", "f\n", "Dockerfile", "FROM scratch\nCOPY f /\n")
				if user != "" {
					l.As(user)
				}
				r, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				cmd := l.Command("build", flag, ".")
				var log bytes.Buffer
				cmd.Stderr, cmd.ExtraFiles = &log, []*os.File{w}
				err = cmd.Run()
				w.Close()
				if got, _ := io.ReadAll(r); err != nil || !strings.HasPrefix(string(got), want) {
					t.Errorf("the pipe has %.40q, want %q…: %v\n%s", got, want, err, log.String())
				}
			})
		}
	}
}

// archive returns a tar of files.
func archive(t *testing.T, files map[string]string) string {
	t.Helper()
	var entries []imagetest.Entry
	for name, content := range files {
		entries = append(entries, imagetest.TarFile(tar.Header{Name: name, Mode: 0o644}, content))
	}
	return string(imagetest.Tar(t, entries...))
}

// pipe makes a pipe that contains a text and that only root may open.
func pipe(t *testing.T, text string) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	_, err = w.WriteString(text)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestPruneLeavesNothingForeign checks that prune --all removes files of subordinate ids, which the
// user cannot remove with rm.
func TestPruneLeavesNothingForeign(t *testing.T) {
	user := lab.User(t, true)
	l := lab.New(t)
	golden.Context(t, l)
	l.As(user)
	for _, img := range golden.Images {
		golden.Build(l, img)
	}
	l.Run("prune", "--all", "--force")
	err := filepath.WalkDir(filepath.Join(l.State, "snapshots"),
		func(path string, e os.DirEntry, err error) error {
			if err == nil && e.Name() == "info.json" {
				t.Errorf("%s is left after prune --all", path)
			}
			return nil // directories of other users cannot be read
		})
	if err != nil {
		t.Error(err)
	}
}
