package readers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// dockerfile makes an image with one file of each kind that a layer can hold, and a layer of
// several compressed blocks.
const dockerfile = `
FROM busybox
RUN mkdir -p /t/sub /t/gone /t/hidden && echo old > /t/old && echo keep > /t/keep && echo x > /t/hidden/x && touch -d '2001-02-03 04:05:06' /t/keep
RUN mknod /t/null c 1 3 && mkfifo -m 640 /t/fifo && ln /t/keep /t/sub/hard && ln -s ../keep /t/sub/soft && ln -s nowhere /t/dangling
RUN echo s > /t/suid && chown 1:200 /t/suid && chmod 6755 /t/suid && mkdir -m 1777 /t/sticky && echo i > /t/ids && chown 3000000:4000000 /t/ids
RUN rm /t/old && rm -r /t/gone && rm -r /t/hidden && mkdir /t/hidden && echo y > /t/hidden/y && echo was-dir > /t/tmp && rm /t/tmp && mkdir /t/tmp
RUN seq 1 1700000 > /t/seq
COPY ["xattr", "n a m e", "/t/"]
WORKDIR /t
USER daemon
ENV WHO=reader
EXPOSE 80
CMD ["sh", "-c", "echo started by $WHO as $(id -un) in $PWD; cat keep hidden/y"]
`

const started = "started by reader as daemon in /t\nkeep\ny\n"

// build builds the image as a layout in l.Dir/layout, as an archive for docker in l.Dir/docker.tar,
// and as files in l.Dir/local.
func build(t *testing.T) *lab.Lab {
	t.Helper()
	lab.Root(t)
	l := lab.New(t)
	l.Busybox()
	l.Write("ctx/Dockerfile", dockerfile, "ctx/xattr", "x\n", "ctx/n a m e",
		strings.Repeat("name ", 100))
	if err := syscall.Setxattr(filepath.Join(l.Dir, "ctx/xattr"), "user.colour",
		[]byte("red"), 0); err != nil {
		t.Logf("no user xattrs here: %v", err)
	}
	l.Run("build", "-t", "reader:v1", "-o", "type=oci,tar=false,dest=layout", "-o",
		"type=docker,dest=docker.tar", "-o", "type=local,dest=local", "ctx")
	return l
}

// oci returns the name of the layout for skopeo and umoci.
func oci(t *testing.T, l *lab.Lab, dir string) string {
	t.Helper()
	names, err := imagetest.Names(filepath.Join(l.Dir, dir))
	if err != nil || len(names) != 1 {
		t.Fatalf("%s: names %q, %v", dir, names, err)
	}
	img, err := os.ReadFile(filepath.Join(l.Dir, dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	// Both find an image of a layout by org.opencontainers.image.ref.name.
	_, rest, ok := strings.Cut(string(img), `"org.opencontainers.image.ref.name":"`)
	if !ok {
		t.Fatalf("%s/index.json has no name: %s", dir, img)
	}
	name, _, _ := strings.Cut(rest, `"`)
	return filepath.Join(l.Dir, dir) + ":" + name
}

func skopeo(t *testing.T, args ...string) string {
	t.Helper()
	return lab.Output(t, "skopeo", append([]string{"--insecure-policy"}, args...)...)
}

// TestSkopeo copies an image from a layout to an archive, to a registry and back, and reads the
// copies.
func TestSkopeo(t *testing.T) {
	lab.Need(t, "skopeo", "docker-registry")
	l := build(t)
	host := lab.DockerRegistry(t)
	want, err := imagetest.Open(filepath.Join(l.Dir, "layout"), "")
	if err != nil {
		t.Fatal(err)
	}
	archive, back := filepath.Join(l.Dir, "archive.tar"), filepath.Join(l.Dir, "back")
	skopeo(t, "copy", "--preserve-digests", "oci:"+oci(t, l, "layout"), "oci-archive:"+archive)
	skopeo(t, "copy", "--preserve-digests", "--dest-tls-verify=false", "oci-archive:"+archive,
		"docker://"+host+"/a/reader:v1")
	skopeo(t, "copy", "--preserve-digests", "--src-tls-verify=false",
		"docker://"+host+"/a/reader:v1", "oci:"+back+":reader")
	for _, path := range []string{archive, back} {
		got, err := imagetest.Open(path, "")
		if err != nil {
			t.Fatal(err)
		}
		if got.Descriptor.Digest != want.Descriptor.Digest {
			t.Errorf("%s: %s, want %s", path, got.Descriptor.Digest, want.Descriptor.Digest)
		}
	}
	out := skopeo(t, "inspect", "--format", "{{.Digest}} {{.Os}} {{.Env}}",
		"docker-archive:"+filepath.Join(l.Dir, "docker.tar"))
	if !strings.Contains(out, "linux") || !strings.Contains(out, "WHO=reader") {
		t.Errorf("skopeo inspect docker-archive: %s", out)
	}

	// The state directory itself is a layout, too.
	store := filepath.Join(l.State, "oci")
	img, err := imagetest.Open(store, "reader:v1")
	if err != nil {
		t.Fatal(err)
	}
	if img.Descriptor.Digest != want.Descriptor.Digest {
		t.Errorf("the store has %s, the layout %s", img.Descriptor.Digest, want.Descriptor.Digest)
	}

	// The program pulls what skopeo has pushed.
	fresh := lab.New(t)
	fresh.Run("pull", host+"/a/reader:v1")
	if got := fresh.Image(host + "/a/reader:v1").Descriptor.Digest; got != want.Descriptor.Digest {
		t.Errorf("pulled %s, want %s", got, want.Descriptor.Digest)
	}
	if got := fresh.Run("run", host+"/a/reader:v1"); got != started {
		t.Errorf("the pulled image prints %q", got)
	}
}

// TestZstd has skopeo decompress layers of several zstd frames.
func TestZstd(t *testing.T) {
	lab.Need(t, "skopeo", "zstd")
	l := build(t)
	l.Run("build", "-o", "type=oci,tar=false,dest=zstd,compression=zstd,force-compression=true,"+
		"name=reader:v1", "ctx")
	img, err := imagetest.Open(filepath.Join(l.Dir, "zstd"), "")
	if err != nil {
		t.Fatal(err)
	}
	frames := 0
	for _, d := range img.Manifest.Layers {
		blob := filepath.Join(l.Dir, "zstd/blobs/sha256", d.Digest.Encoded())
		lab.Output(t, "zstd", "-tq", blob)
		var n int
		list := lab.Output(t, "zstd", "-lv", blob)
		_, rest, _ := strings.Cut(list, "# Zstandard Frames: ")
		fmt.Sscan(rest, &n)
		frames = max(frames, n)
	}
	if frames < 2 {
		t.Errorf("the layer with the most zstd frames has %d", frames)
	}
	plain := filepath.Join(l.Dir, "plain")
	skopeo(t, "copy", "--dest-decompress", "oci:"+oci(t, l, "zstd"), "dir:"+plain)
	for _, id := range img.Config.RootFS.DiffIDs {
		if _, err := os.Stat(filepath.Join(plain, id.Encoded())); err != nil {
			t.Errorf("skopeo has decompressed no layer to %s: %v", id, err)
		}
	}
}

// TestRegistry pushes to a real registry, and builds on its images.
func TestRegistry(t *testing.T) {
	lab.Need(t, "docker-registry")
	lab.Root(t)
	host := lab.DockerRegistry(t)
	l := lab.New(t)
	l.Busybox()
	l.Write("Dockerfile", "FROM busybox\nRUN echo pushed > /f\n")
	l.Run("build", "-t", host+"/x/y:1", "--push", ".")
	other := lab.New(t)
	other.Write("Dockerfile", "FROM "+host+"/x/y:1\nRUN cat /f > /g\n")
	other.Run("build", "-t", "on-it", ".")
	if out := other.Run("run", "on-it", "cat", "/g"); out != "pushed\n" {
		t.Errorf("the image on the pushed one prints %q", out)
	}
	if other.Image("on-it").Manifest.Layers[1].Digest != l.Image(host +
		"/x/y:1").Manifest.Layers[1].Digest {
		t.Error("a pulled layer has another digest in the image on it")
	}
}

// TestUmoci compares the tree that umoci unpacks with the output of -o type=local, entry by entry:
// types, modes, owners, times, contents, links and attributes.
func TestUmoci(t *testing.T) {
	lab.Need(t, "umoci")
	l := build(t)
	bundle := filepath.Join(l.Dir, "bundle")
	lab.Output(t, "umoci", "unpack", "--image", oci(t, l, "layout"), bundle)
	show := fstree.Show{Owners: true, Times: true, Xattrs: true, Plain: true}
	want, err := fstree.Print(filepath.Join(bundle, "rootfs"), show)
	if err != nil {
		t.Fatal(err)
	}
	got, err := fstree.Print(filepath.Join(l.Dir, "local"), show)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(entries(want), entries(got)); diff != "" {
		t.Errorf("type=local (-umoci +ours):\n%s", diff)
	}
	if !strings.Contains(got, "t/hidden/y") || strings.Contains(got, "t/hidden/x") ||
		strings.Contains(got, "t/old") {
		t.Error("the tree is not that of the Dockerfile")
	}
}

// entries splits a tree into lines that are short enough for a diff. It leaves out the root, which
// the test has made.
func entries(tree string) []string {
	var all []string
	for line := range strings.Lines(tree) {
		if strings.HasPrefix(line, "dir . ") {
			continue
		}
		if line = strings.TrimSpace(line); len(line) > 300 {
			line = fmt.Sprintf("%s… (%d)", line[:300], len(line))
		}
		all = append(all, line)
	}
	return all
}

// TestPodman loads the archive and runs the image.
func TestPodman(t *testing.T) {
	lab.Need(t, "podman", "runc")
	l := build(t)
	dir, err := os.MkdirTemp("/tmp", "podman-") // podman's run directory may have 50 characters
	if err != nil {
		t.Fatal(err)
	}
	podman := func(args ...string) (string, error) {
		own := []string{"--root", dir + "/root", "--runroot", dir + "/run", "--tmpdir",
			dir + "/tmp", "--storage-driver", "vfs", "--cgroup-manager",
			"cgroupfs", "--runtime", "runc"}
		cmd := lab.Exec(t, "podman", append(own, args...)...)
		var log bytes.Buffer
		cmd.Stderr = &log
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("podman %s: %w\n%s", args[0], err, log.String())
		}
		return string(out), err
	}
	t.Cleanup(func() {
		unmountBelow(t, dir)
		lab.Output(t, "rm", "-rf", "--one-file-system", dir)
	})
	// Use limits that a container without CAP_SYS_RESOURCE may set.
	run := []string{"run", "--rm", "--network=host", "--ulimit=nofile=1024:1024",
		"--ulimit=nproc=500:500"}

	// First run an image that podman has made: if that fails too, the machine is the reason.
	control := filepath.Join(dir, "control")
	if err := os.MkdirAll(filepath.Join(control, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	lab.Output(t, "cp", "-L", lookup(t, "busybox"), control+"/bin/sh")
	lab.Output(t, "tar", "-C", control, "-cf", control+".tar", "bin")
	if _, err := podman("import", control+".tar", "control:1"); err != nil {
		t.Skip(err)
	}
	if _, err := podman(append(run, "control:1", "/bin/sh", "-c", "true")...); err != nil {
		t.Skip(err)
	}

	out, err := podman("load", "-i", filepath.Join(l.Dir, "docker.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "reader:v1") {
		t.Errorf("podman load prints %q", out)
	}
	if out, err = podman(append(run, "reader:v1")...); err != nil || out != started {
		t.Errorf("podman run prints %q, %v", out, err)
	}
	// podman makes a reference of the layout's path, and a reference has no capital letters.
	layout := filepath.Join(l.Dir, "layout")
	lab.Output(t, "cp", "-a", layout, dir+"/layout")
	if _, err = podman("pull", "oci:"+dir+"/layout"+
		strings.TrimPrefix(oci(t, l, "layout"), layout)); err != nil {
		t.Error(err)
	}
}

// TestDocker starts a docker daemon that loads the archive and runs the image.
func TestDocker(t *testing.T) {
	lab.Need(t, "dockerd", "docker", "containerd")
	l := build(t)
	dir, err := os.MkdirTemp("", "lb-dockerd-") // short, since sockets are below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unmountBelow(t, dir)
		lab.Output(t, "rm", "-rf", "--one-file-system", dir)
	})
	docker := startDocker(t, dir)
	out, err := docker("load", "-i", filepath.Join(l.Dir, "docker.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "reader:v1") {
		t.Errorf("docker load prints %q", out)
	}
	if out, err = docker("run", "--rm", "--network=host", "reader:v1"); err != nil ||
		out != started {
		t.Errorf("docker run prints %q, %v", out, err)
	}
	// docker computes the image's id from the config: it must be the digest of the config in the
	// layout.
	want, err := imagetest.Open(filepath.Join(l.Dir, "layout"), "")
	if err != nil {
		t.Fatal(err)
	}
	if out, err = docker("inspect", "--format", "{{.Id}}", "reader:v1"); err != nil ||
		strings.TrimSpace(out) != want.Manifest.Config.Digest.String() {
		t.Errorf("docker's id is %q, %v; the config is %s", out, err, want.Manifest.Config.Digest)
	}
}

// startDocker starts a daemon in dir and returns a function that runs docker commands on it.
func startDocker(t *testing.T, dir string) func(args ...string) (string, error) {
	t.Helper()
	sock := "unix://" + dir + "/sock"
	var log bytes.Buffer
	daemon := exec.Command("dockerd", "--iptables=false", "--bridge=none", "--data-root",
		dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid", "-H", sock)
	daemon.Stdout, daemon.Stderr = &log, &log
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := daemon.Start(); err != nil {
		t.Skip(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	t.Cleanup(func() {
		daemon.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Error("dockerd does not end")
			daemon.Process.Kill()
		}
	})
	docker := func(args ...string) (string, error) {
		cmd := lab.Exec(t, "docker", append([]string{"-H", sock}, args...)...)
		var log bytes.Buffer
		cmd.Stderr = &log
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("docker %s: %w\n%s", args[0], err, log.String())
		}
		return string(out), err
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, err := docker("version"); err == nil {
			return docker
		}
		select {
		case err := <-ended:
			ended <- err
			lines := strings.Split(strings.TrimSpace(log.String()), "\n")
			t.Skipf("no docker daemon on this machine: %v: %s", err, lines[len(lines)-1])
		default:
		}
		if time.Now().After(end) {
			t.Skip("dockerd does not answer within 30 s")
		}
	}
}

func lookup(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(err)
	}
	return path
}

// unmountBelow unmounts the mounts that podman and dockerd have left behind, the deepest first.
func unmountBelow(t *testing.T, dir string) {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			found = append(found, f[4])
		}
	}
	for i := len(found) - 1; i >= 0; i-- {
		if err := syscall.Unmount(found[i], syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", found[i], err)
		}
	}
}
