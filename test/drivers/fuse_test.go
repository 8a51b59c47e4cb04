package drivers

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/test/lab"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

func TestMain(m *testing.M) { lab.Main(m) }

const fuse = "--driver=fuse-overlayfs"

// everyStep has every kind of step and of mount, in several stages, and deletes and replaces files
// of lower layers. The fifo gets its mode from the command: fuse-overlayfs 1.13 and 1.14 ignore the
// umask when they make one.
const everyStep = `FROM busybox AS tools
WORKDIR /w/deep
RUN mkdir -p keep gone/sub both/d && echo 1 >keep/f && echo 2 >gone/sub/f && echo 3 >both/d/f && ln -s keep link && mkfifo -m 0644 pipe
COPY --chmod=0640 a dir /w/copied/
RUN rm -rf gone && mkdir -p gone/sub && echo new >gone/sub/g && rm both/d/f link && mv keep moved && chmod 0700 both
FROM tools AS cached
RUN --mount=type=cache,target=/cache echo cached >/cache/f && cp /cache/f /f
FROM scratch
COPY --from=tools /w /w
COPY --from=cached --link /f /linked/f
ADD archive.tar /added/
COPY <<END /here
inline
END
RUN --mount=from=busybox,source=/bin,target=/bin --mount=type=tmpfs,target=/t --mount=type=bind,from=tools,source=/w/deep,target=/m --mount=type=bind,source=dir,target=/ctx \
    cp /m/gone/sub/g /from-mount && cat /ctx/b >>/from-mount && echo x >/t/x && rm -r /w/copied && rm /added/dir/file
`

func context(t *testing.T, l *lab.Lab) {
	t.Helper()
	l.Busybox()
	var archive []imagetest.Entry
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "dir/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "dir/file", Mode: 0o640, Size: 5},
		{Typeflag: tar.TypeLink, Name: "hard", Linkname: "dir/file"},
	} {
		h.ModTime = time.Unix(1500000000, 0)
		archive = append(archive, imagetest.TarFile(h, "hello"[:h.Size]))
	}
	l.Write("a", "a\n", "dir/b", "b\n", "dir/sub/c", "c\n", "archive.tar",
		string(imagetest.Tar(t, archive...)),
		"Dockerfile", everyStep, ".dockerignore", "Dockerfile\n")
	l.Env = append(l.Env, "SOURCE_DATE_EPOCH=1700000000")
}

// users calls f for each way to run the program: as root, and as users with many ids and with one.
func users(t *testing.T, f func(t *testing.T, l *lab.Lab)) {
	for _, kind := range []string{"root", "range", "single id"} {
		t.Run(kind, func(t *testing.T) {
			lab.Root(t)
			l := lab.New(t)
			context(t, l)
			if kind != "root" {
				l.As(lab.User(t, kind == "range"))
			}
			l.Fuse()
			f(t, l)
		})
	}
}

// programs returns the running fuse-overlayfs processes that serve a directory of the lab. A
// process that has ended has no command line, even if process 1 has not waited for it yet.
func programs(t *testing.T, l *lab.Lab) (pids []int) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		line, err := os.ReadFile(name)
		program, _, _ := bytes.Cut(line, []byte{0})
		if err != nil || filepath.Base(string(program)) != "fuse-overlayfs" {
			continue
		}
		cwd, _ := os.Readlink(filepath.Join(filepath.Dir(name), "cwd"))
		if strings.HasPrefix(cwd, l.State) || bytes.Contains(line, []byte(l.State)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// nothingLeft waits until no fuse-overlayfs process and no mount of the lab is left.
func nothingLeft(t *testing.T, l *lab.Lab) {
	t.Helper()
	var left string
	for range 500 {
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		left = ""
		if pids := programs(t, l); len(pids) > 0 {
			left = fmt.Sprint("processes ", pids)
		} else if bytes.Contains(mounts, []byte(l.State)) {
			left = string(mounts)
		}
		if left == "" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("left behind: %s", left)
}

// TestFuse checks that a build with every kind of step has the same digest as on overlay, also from
// the cache, and that prune removes all its files.
func TestFuse(t *testing.T) {
	root := lab.New(t)
	lab.Root(t)
	context(t, root)
	root.Run("build", "-t", "img", ".")
	want := root.Image("img")
	users(t, func(t *testing.T, l *lab.Lab) {
		for _, again := range []string{"cold", "cached"} {
			l.Run("build", fuse, "-t", "img", ".")
			got := l.Image("img")
			if got.Descriptor.Digest != want.Descriptor.Digest {
				for n := range want.Manifest.Layers {
					if diff := cmp.Diff(root.Layer("img", n), l.Layer("img", n)); diff != "" {
						t.Errorf("%s: layer %d (-overlay +fuse-overlayfs)\n%s", again, n, diff)
					}
				}
				t.Fatalf("%s: the digest is %s, not %s", again, got.Descriptor.Digest,
					want.Descriptor.Digest)
			}
			nothingLeft(t, l)
		}
		if got := l.Run("run", fuse, "busybox", "sh", "-c", "echo x >/x; cat /x"); got != "x\n" {
			t.Errorf("run printed %q", got)
		}
		l.Run("prune", "--all", "--force")
		left, err := filepath.Glob(filepath.Join(l.State, "snapshots", "fuse", "*", "fs"))
		if err != nil || len(left) > 0 {
			t.Errorf("after prune there is %q, %v", left, err)
		}
		nothingLeft(t, l)
	})
}

// TestFuseVolume checks that changes below a volume with the option O are seen by the command, and
// thrown away when it ends.
func TestFuseVolume(t *testing.T) {
	users(t, func(t *testing.T, l *lab.Lab) {
		data := filepath.Join(l.Dir, "dir")
		before, err := os.Stat(filepath.Join(data, "b"))
		if err != nil {
			t.Fatal(err)
		}
		l.Write("volume", "FROM busybox\nRUN echo changed >/data/b && rm -r /data/sub && "+
			"mkdir /data/new && cat /data/b >/seen\nRUN cat /data/b /data/sub/c >>/seen && "+
			"test ! -e /data/new\nRUN cat /seen\n")
		volume := "--volume=" + data + ":/data:O"
		l.Run("build", fuse, volume, "-t", "volume", "-f", "volume", ".")
		for _, args := range [][]string{{"volume", "cat", "/seen"}, {"volume", "sh", "-c",
			"cat /data/b /data/sub/c; rm -r /data/*; ls -A /data; echo x >/data/b; cat /data/b"}} {
			want := map[bool]string{true: "changed\nb\nc\n", false: "b\nc\nx\n"}[len(args) == 3]
			if got := l.Run("run", append([]string{fuse, volume}, args...)...); got != want {
				t.Errorf("run %q printed %q, want %q", args, got, want)
			}
		}
		after, err := os.Stat(filepath.Join(data, "b"))
		if err != nil || !os.SameFile(before, after) || after.ModTime() != before.ModTime() {
			t.Errorf("the file is another one: %v", err)
		}
		if names, err := filepath.Glob(data + "/*"); err != nil || len(names) != 2 {
			t.Errorf("the directory has %q, %v", names, err)
		}
		nothingLeft(t, l)
	})
}

// TestDriversInTurn builds on one state with one driver after another, each time with one more
// step: the image must have the same digest as on a new state.
func TestDriversInTurn(t *testing.T) {
	lab.Root(t)
	l, fresh := lab.New(t), lab.New(t)
	context(t, l)
	context(t, fresh)
	l.Fuse()
	file := everyStep
	for i, driver := range []string{"overlay", "fuse-overlayfs", "copy",
		"overlay", "fuse-overlayfs"} {
		file += fmt.Sprintf("COPY <<E /w/deep/both/%d\n%s\nE\n", i, driver)
		for _, l := range []*lab.Lab{fresh, l} {
			l.Write("Dockerfile", file)
		}
		l.Run("build", "--driver="+driver, "-t", "img", ".")
		fresh.Run("build", "--no-cache", "-t", "img", ".")
		if got, want := l.Image("img").Descriptor.Digest,
			fresh.Image("img").Descriptor.Digest; got != want {
			t.Errorf("build %d, on %s: the digest is %s, not %s", i, driver, got, want)
		}
	}
	l.Run("prune", "--all", "--force")
	err := filepath.WalkDir(filepath.Join(l.State, "snapshots"),
		func(path string, e os.DirEntry, err error) error {
			if err == nil && e.Name() == "info.json" {
				t.Errorf("%s is left after prune --all", path)
			}
			return err
		})
	if err != nil {
		t.Error(err)
	}
}

// slow starts a build whose last step waits, and returns it when the step has begun.
func slow(t *testing.T, l *lab.Lab) (stop func(syscall.Signal) string) {
	t.Helper()
	l.Write("Dockerfile.slow",
		"FROM busybox\nRUN mkdir /d && echo 1 >/d/f\nRUN rm -r /d && echo begun; sleep 1000\n")
	cmd := l.Command("build", fuse, "--progress=plain", "--no-cache", "-f", "Dockerfile.slow", ".")
	// so that signals reach all processes, as from a terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	buf := make([]byte, 4096)
	for !strings.Contains(log.String(), " begun\n") {
		n, err := out.Read(buf)
		log.Write(buf[:n])
		if err != nil {
			cmd.Wait()
			t.Fatalf("%v\n%s", err, log.String())
		}
	}
	return func(s syscall.Signal) string {
		if s != 0 {
			if err := syscall.Kill(-cmd.Process.Pid, s); err != nil {
				t.Error(err)
			}
		}
		log.ReadFrom(out)
		cmd.Wait()
		return log.String()
	}
}

// TestFuseInterrupt checks that ^C and kill -9 leave neither a process nor a mount behind, and that
// the next build works.
func TestFuseInterrupt(t *testing.T) {
	users(t, func(t *testing.T, l *lab.Lab) {
		for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
			stop := slow(t, l)
			if len(programs(t, l)) == 0 {
				t.Error("found no process while the step ran: nothingLeft would test nothing")
			}
			stop(s)
			nothingLeft(t, l)
		}
		l.Run("build", fuse, ".")
	})
}

// TestFuseKillAnytime kills builds at random moments.
func TestFuseKillAnytime(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	users(t, func(t *testing.T, l *lab.Lab) {
		start := time.Now()
		l.Run("build", fuse, "-t", "img", "--no-cache", ".")
		whole := time.Since(start)
		want := l.Image("img").Descriptor.Digest
		for range 4 {
			cmd := l.Command("build", fuse, "--no-cache", ".")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(random.Int64N(int64(whole))))
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			cmd.Wait()
			nothingLeft(t, l)
		}
		l.Run("build", fuse, "-t", "img", "--no-cache", ".")
		if got := l.Image("img").Descriptor.Digest; got != want {
			t.Errorf("after the kills the digest is %s, not %s", got, want)
		}
	})
}

// TestFuseProgramDies ends fuse-overlayfs during a build. The build must fail at once, with an
// error that has the reason and the instruction, and leave nothing behind.
func TestFuseProgramDies(t *testing.T) {
	users(t, func(t *testing.T, l *lab.Lab) {
		stop := slow(t, l)
		for _, pid := range programs(t, l) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		log := stop(0)
		for _, part := range []string{"Dockerfile.slow:3",
			"the step's files were lost: mount fuse-overlayfs: the program has ended: signal: killed"} {
			if !strings.Contains(log, part) {
				t.Errorf("no %q in\n%s", part, log)
			}
		}
		nothingLeft(t, l)
		l.Run("build", fuse, ".")
	})
}

// TestHardLinksToLowerFiles unpacks a layer with hard links to files of the layer below, in
// directories that it does not list. The directories keep their times with every driver.
func TestHardLinksToLowerFiles(t *testing.T) {
	lab.Root(t)
	entry := func(kind byte, name, link string) imagetest.Entry {
		return imagetest.TarFile(tar.Header{Typeflag: kind, Name: name, Linkname: link,
			Mode: 0o755}, "")
	}
	made, err := imagetest.Make(dockerspec.DockerOCIImageConfig{},
		[]imagetest.Entry{entry(tar.TypeDir, "./", ""), entry(tar.TypeDir, "a", ""),
			entry(tar.TypeDir, "a/b", ""), entry(tar.TypeReg, "a/b/f", ""),
			entry(tar.TypeReg, "a/b/g", ""), entry(tar.TypeDir, "c", ""),
			entry(tar.TypeReg, "c/f", ""), entry(tar.TypeSymlink, "l", "c")},
		[]imagetest.Entry{entry(tar.TypeLink, "f", "a/b/f"), entry(tar.TypeLink, "g", "a/b/g"),
			entry(tar.TypeLink, "h", "l/f")})
	if err != nil {
		t.Fatal(err)
	}
	for _, driver := range []string{"overlay", "copy", "fuse-overlayfs"} {
		l := lab.New(t)
		l.Fuse()
		if err := made.WriteLayout(filepath.Join(l.Dir, "base"), "base"); err != nil {
			t.Fatal(err)
		}
		l.Write("Dockerfile", "FROM scratch\nCOPY --from=base / /to\n")
		l.Run("build", "--driver="+driver, "--build-context", "base=oci-layout://base:base", "-t",
			"img", ".")
		entries, err := l.Image("img").Layer(0)
		if err != nil || len(entries) != 11 {
			t.Fatalf("%s: %d entries, %v, want 11", driver, len(entries), err)
		}
		for _, e := range entries {
			if e.Header.ModTime.Unix() != 1700000000 { // that of all entries of imagetest.Make
				t.Errorf("%s: the time of %s is %v", driver, e.Path, e.Header.ModTime)
			}
		}
	}
}
