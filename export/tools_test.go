package export

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// These tests read our outputs with other tools. Each test is skipped if its tool is not installed.

// tool returns a function that runs a program in dir and returns its standard output: podman 5
// warns on standard error. It fails the test when the program fails.
func tool(t *testing.T, dir, name string, always ...string) func(args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	return func(args ...string) string {
		t.Helper()
		cmd := exec.Command(name, append(append([]string{}, always...), args...)...)
		cmd.Dir = dir
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, stderr.String())
		}
		return string(out)
	}
}

// busybox returns an image that can be run.
func busybox(t *testing.T) *Image {
	t.Helper()
	made, err := imagetest.Busybox()
	if errors.Is(err, imagetest.ErrNoBusybox) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &Image{Root: made.Descriptor, Content: blobs(made.Blobs)}
}

// exported writes img in every format into a new directory, with two names and with none.
func exported(t *testing.T, img *Image) string {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	for _, spec := range []string{
		"type=oci,dest=oci.tar,name=bb:1,name=quay.io/x/bb:2", "type=oci,dest=oci-unnamed.tar",
		"type=docker,dest=docker.tar,name=bb:1,name=quay.io/x/bb:2",
		"type=docker,dest=docker-unnamed.tar",
		"type=oci,tar=false,dest=layout,name=bb:1,name=quay.io/x/bb:2",
	} {
		if err := run(t, Env{}, spec, img); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// config returns the digest of img's config, which engines use as the image ID.
func config(t *testing.T, img *Image) digest.Digest {
	t.Helper()
	m, err := Describe(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	return m.Config
}

func TestSkopeo(t *testing.T) {
	img := testImage(t, "amd64")
	dir := exported(t, img)
	skopeo := tool(t, dir, "skopeo", "--insecure-policy", "--override-os", "linux",
		"--override-arch", "amd64")
	for _, from := range []string{"oci-archive:oci.tar:1", "oci-archive:oci.tar:2",
		"oci-archive:oci-unnamed.tar", "oci-archive:docker.tar:2", "oci:layout:1"} {
		raw := skopeo("inspect", "--raw", from)
		if got := digest.FromString(raw); got != img.Root.Digest {
			t.Errorf("skopeo reads %s as %s, want %s", from, got, img.Root.Digest)
		}
	}
	for _, from := range []string{"docker-archive:docker.tar:bb:1",
		"docker-archive:docker.tar:quay.io/x/bb:2", "docker-archive:docker-unnamed.tar",
		"docker-archive:oci.tar:bb:1"} {
		var got ocispec.Image
		if err := json.Unmarshal([]byte(skopeo("inspect", "--config", from)), &got); err != nil ||
			len(got.RootFS.DiffIDs) != 2 {
			t.Errorf("skopeo reads the config of %s as %+v (%v)", from, got, err)
		}
	}
}

// An image is the same after it is converted from our archive to skopeo's docker archive, then to
// an OCI layout, and then to an archive again.
func TestSkopeoRoundTrip(t *testing.T) {
	img := testImage(t, "amd64")
	dir := exported(t, img)
	skopeo := tool(t, dir, "skopeo", "--insecure-policy", "--override-os", "linux",
		"--override-arch", "amd64")
	skopeo("copy", "oci-archive:oci.tar:1", "docker-archive:theirs.tar:bb:1")
	skopeo("copy", "docker-archive:theirs.tar", "oci:back:1")
	skopeo("copy", "--preserve-digests", "oci-archive:oci.tar:2", "oci:straight:2")
	want := config(t, img)
	for name, layout := range map[string]string{"by a docker archive": "back",
		"straight": "straight"} {
		ix, err := readIndex(filepath.Join(dir, layout))
		if err != nil || len(ix.Manifests) != 1 {
			t.Fatalf("%s: index %+v (%v)", name, ix, err)
		}
		g, err := readGraph(t.Context(), layoutFetcher(filepath.Join(dir, layout)), ix.Manifests[0])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(g.manifests) != 1 || g.manifests[0].config.Digest != want {
			t.Errorf("%s the config is %s, want %s", name, g.manifests[0].config.Digest, want)
		}
		if layout == "straight" && ix.Manifests[0].Digest != img.Root.Digest {
			t.Errorf("%s the manifest is %s, want %s", name,
				ix.Manifests[0].Digest, img.Root.Digest)
		}
	}
}

type layoutFetcher string

func (l layoutFetcher) Fetch(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return os.Open(filepath.Join(string(l), blobPath(d)))
}

func TestSkopeoIndex(t *testing.T) {
	img := testIndex(t)
	dir := t.TempDir()
	t.Chdir(dir)
	if err := run(t, Env{}, "type=oci,dest=index.tar,name=bb:1", img); err != nil {
		t.Fatal(err)
	}
	skopeo := tool(t, dir, "skopeo", "--insecure-policy")
	skopeo("copy", "--all", "--preserve-digests", "oci-archive:index.tar:1", "oci:all:1")
	ix, err := readIndex(filepath.Join(dir, "all"))
	if err != nil || len(ix.Manifests) != 1 || ix.Manifests[0].Digest != img.Root.Digest {
		t.Errorf("skopeo copied %+v (%v), want %s", ix.Manifests, err, img.Root.Digest)
	}
}

// umoci unpacks our layout to the same files as our export to a directory.
func TestUmoci(t *testing.T) {
	img := busybox(t)
	dir := exported(t, img)
	umoci := tool(t, dir, "umoci")
	if got := strings.Fields(umoci("ls", "--layout", "layout")); cmp.Diff([]string{"1", "2"},
		got) != "" {
		t.Errorf("umoci lists %q, want 1 and 2", got)
	}
	umoci("unpack", "--rootless", "--image", "layout:2", "bundle")
	img.Trees = []Tree{{Tar: func(ctx context.Context, w io.Writer) error {
		// The image has a single layer: its file system.
		g, err := readGraph(ctx, img.Content, img.Root)
		if err != nil {
			return err
		}
		r, err := g.open(ctx, img.Content, g.manifests[0].layers[0])
		if err != nil {
			return err
		}
		defer r.Close()
		z, err := gzip.NewReader(r)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, z)
		return err
	}}}
	if err := run(t, Env{}, "files", img); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(listDir(t, "bundle/rootfs"), listDir(t, "files")); diff != "" {
		t.Errorf("our directory differs from umoci's (-umoci +ours):\n%s", diff)
	}
}

// listDir lists the content of a directory: type and mode, size of files, target of links.
func listDir(t *testing.T, dir string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		line := strings.TrimPrefix(path, dir) + " " + fi.Mode().String() + " " +
			fi.ModTime().UTC().Format(time.RFC3339)
		switch {
		case fi.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + digest.FromBytes(data).String()
		case fi.Mode().Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// podman loads all our archives, and runs the loaded images.
func TestPodman(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes ten seconds")
	}
	if os.Geteuid() != 0 {
		t.Skip("podman is tried as root only: a rootless one wants a session of its own")
	}
	img := busybox(t)
	dir := exported(t, img)
	state, err := os.MkdirTemp("/tmp", "pm") // podman refuses a path of more than 50 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, state) })
	podman := tool(t, dir, "podman", "--root", state+"/root", "--runroot", state+"/run",
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs")
	id := config(t, img).Encoded()
	for file, want := range map[string][]string{
		"oci.tar":         {"localhost/bb:1", "quay.io/x/bb:2"},
		"docker.tar":      {"localhost/bb:1", "quay.io/x/bb:2"},
		"oci-unnamed.tar": {"sha256:" + id}, "docker-unnamed.tar": {"sha256:" + id},
	} {
		out := podman("load", "-i", file)
		for _, w := range want {
			if !strings.Contains(out, "Loaded image: "+w) {
				t.Errorf("podman load of %s says\n%swant %s", file, out, w)
			}
		}
		if got := strings.TrimSpace(podman("image", "inspect", "--format", "{{.Id}}",
			want[0])); got != id {
			t.Errorf("podman loaded %s as %s, want %s", file, got, id)
		}
		podman("rmi", "-a", "-f")
	}
	podman("load", "-i", "docker.tar")
	var messages []string
	for _, runtime := range []string{"crun", "runc"} {
		path, err := exec.LookPath(runtime)
		if err != nil {
			continue
		}
		// Set limits: podman's defaults may be higher than this process may set.
		cmd := exec.Command("podman", "--root", state+"/root", "--runroot", state+"/run",
			"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
			"--runtime", path, "run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024",
			"--ulimit", "nproc=1024:1024", "bb:1", "echo", "it runs")
		out, err := cmd.CombinedOutput()
		if err == nil && strings.Contains(string(out), "it runs") {
			return
		}
		if !strings.Contains(string(out), "cgroup") &&
			!strings.Contains(string(out), "Operation not permitted") {
			t.Errorf("podman run with %s: %v\n%s", runtime, err, out)
		}
		messages = append(messages, lastLine(string(out)))
	}
	t.Skipf("podman loads our archives, but cannot run anything here: %s",
		strings.Join(messages, "; "))
}

// dockerd (Debian's is 20.10, which does not support OCI archives) loads our archives and runs the
// loaded images. A Spec without a destination loads into it.
func TestDocker(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes ten seconds")
	}
	if os.Geteuid() != 0 {
		t.Skip("dockerd wants root")
	}
	img := busybox(t)
	dir := exported(t, img)
	docker := tool(t, dir, "docker", "-H", "unix://"+startDocker(t))
	id := config(t, img).String()
	for file, want := range map[string][]string{
		"oci.tar": {"bb:1", "quay.io/x/bb:2"}, "docker.tar": {"bb:1", "quay.io/x/bb:2"},
		"oci-unnamed.tar": {id}, "docker-unnamed.tar": {id},
	} {
		out := docker("load", "-i", file)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("docker load of %s says\n%swant %s", file, out, w)
			}
		}
		if got := strings.TrimSpace(docker("image", "inspect", "--format", "{{.Id}}",
			want[0])); got != id {
			t.Errorf("docker loaded %s as %s, want %s", file, got, id)
		}
		docker("rmi", "-f", id)
	}
	if err := run(t, Env{}, "type=docker,name=loaded:1", img); err != nil {
		t.Fatal(err)
	}
	if out := docker("run", "--rm", "--network", "none", "loaded:1", "echo",
		"it runs"); !strings.Contains(out, "it runs") {
		t.Errorf("docker run says %q", out)
	}
}

// startDocker starts a dockerd for the test, sets DOCKER_HOST to its socket, and returns the
// socket.
func startDocker(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"dockerd", "containerd", "docker"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
	dir, err := os.MkdirTemp("", "dockerd") // a socket's name must be short
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "sock")
	var log bytes.Buffer
	cmd := exec.Command("dockerd", "--iptables=false", "--bridge=none", "--storage-driver=vfs",
		"--data-root", dir+"/data",
		"--exec-root", dir+"/exec", "--pidfile", dir+"/pid", "-H", "unix://"+socket)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		select {
		case <-exited:
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
			<-exited
		}
		// Unmount before the directory is removed: removing would delete files in mounts.
		exec.Command("umount", "-q", dir+"/data").Run()
		remove(t, dir)
	})
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	for range 150 {
		select {
		case err := <-exited:
			exited <- err
			t.Skipf("dockerd does not run here: %v\n%s", err, lastLine(log.String()))
		default:
		}
		if exec.Command("docker", "version").Run() == nil {
			return socket
		}
		time.Sleep(100 * time.Millisecond) // the kernel reports no event for this
	}
	t.Skip("dockerd does not answer")
	return ""
}

// remove removes the files of an engine in dir, except those that are still mounted.
func remove(t *testing.T, dir string) {
	if out, err := exec.Command("rm", "-rf", "--one-file-system",
		dir).CombinedOutput(); err != nil {
		t.Logf("remove %s: %v: %s", dir, err, out)
	}
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
