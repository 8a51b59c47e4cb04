package dist

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestImage makes the ordinary image, whose packages come from Debian's servers. It checks with
// skopeo's copy of each architecture that all programs are of that architecture, and has podman run
// the image of the machine's architecture, in which layerbuild builds. It runs only if
// LAYERBUILD_DIST is set.
func TestImage(t *testing.T) {
	if os.Getenv("LAYERBUILD_DIST") == "" {
		t.Skip("LAYERBUILD_DIST is not set: the test downloads Debian packages, and takes minutes")
	}
	for _, name := range []string{"mmdebstrap", "skopeo", "podman", "runc"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatal(err)
		}
	}
	goCommand := goOrSkip(t)
	archs := []string{runtime.GOARCH}
	if os.Getenv("LAYERBUILD_DIST") == "all" {
		archs = []string{"amd64", "arm64"}
	}
	source, out := filepath.Join(t.TempDir(), "source"), filepath.Join(t.TempDir(), "dist")
	tagged(t, source)
	cmd := distCommand(goCommand, source, out, strings.Join(archs, ","), "image", "umask 022")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, arch := range archs {
		layout := filepath.Join(t.TempDir(), "layout")
		output(t, "skopeo", "copy", "-q", "--override-arch", arch,
			"oci-archive:"+filepath.Join(out, "layerbuild-1.2.3-image.oci.tar"), "oci:"+layout+":x")
		t.Run(arch, func(t *testing.T) { checkPrograms(t, layout, arch) })
		if arch == runtime.GOARCH {
			t.Run("run", func(t *testing.T) { runImage(t, layout) })
		}
	}
}

// output runs a command and returns its output.
func output(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, log.Bytes())
	}
	return out
}

// checkPrograms checks the architecture of an image in a layout and of each program in its layers.
func checkPrograms(t *testing.T, layout, arch string) {
	var image struct {
		Architecture string
		Layers       []string
		Labels       map[string]string
	}
	data := output(t, "skopeo", "inspect", "--override-arch", arch, "oci:"+layout+":x")
	if err := json.Unmarshal(data, &image); err != nil {
		t.Fatal(err)
	}
	if image.Architecture != arch ||
		image.Labels["org.opencontainers.image.version"] != "v1.2.3" {
		t.Errorf("architecture %s, labels %v", image.Architecture, image.Labels)
	}
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
	programs := map[string]bool{}
	for _, digest := range image.Layers {
		blob := read(t, filepath.Join(layout, "blobs", strings.Replace(digest, ":", "/", 1)))
		z, err := gzip.NewReader(bytes.NewReader(blob))
		if err != nil {
			t.Fatal(err)
		}
		for tr := tar.NewReader(z); ; {
			h, err := tr.Next()
			if err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(tr)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(content, []byte(elf.ELFMAG)) {
				continue
			}
			f, err := elf.NewFile(bytes.NewReader(content))
			if err != nil {
				t.Errorf("%s: %v", h.Name, err)
			} else if f.Machine != machine {
				t.Errorf("%s is for %v, want %v", h.Name, f.Machine, machine)
			}
			programs[path.Base(h.Name)] = true
		}
	}
	for _, name := range []string{"layerbuild", "bash", "dash", "git", "newgidmap", "newuidmap", "ssh",
		"docker-credential-acr-env", "docker-credential-ecr-login", "docker-credential-gcr"} {
		if !programs[name] {
			t.Errorf("the image has no program %s", name)
		}
	}
}

// runImage has podman run an image: as CI systems do it, with a shell in place of the entrypoint,
// and with a build in it, as root and as another user.
func runImage(t *testing.T, layout string) {
	if os.Getuid() != 0 {
		t.Skip("the test needs root")
	}
	dir, err := os.MkdirTemp("/tmp", "podman-") // podman's run directory may have 50 characters
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeMounted(t, dir) })
	podman := func(args ...string) *exec.Cmd {
		return exec.Command("podman", append([]string{"--root", dir + "/root", "--runroot",
			dir + "/run", "--tmpdir", dir + "/tmp", "--storage-driver", "vfs", "--cgroup-manager",
			"cgroupfs", "--runtime", "runc"}, args...)...)
	}
	// podman makes a reference of the layout's path, and a reference has no capital letters.
	output(t, "cp", "-a", layout, dir+"/layout")
	id, err := podman("pull", "-q", "oci:"+dir+"/layout:x").Output()
	if err != nil {
		t.Fatal(err)
	}
	// The base image is made of the shell of the container.
	const script = `set -euo pipefail
export LAYERBUILD_ROOT=/tmp/state
mkdir -p /tmp/context/bin
cp -L /bin/dash /tmp/context/bin/sh
for lib in /lib*/ld-linux* /lib/*/libc.so.6; do
	mkdir -p "/tmp/context${lib%/*}"
	cp -L "$lib" "/tmp/context$lib"
done
printf 'FROM scratch\nCOPY . /\nRUN echo built > /file\n' > /tmp/Dockerfile
layerbuild build -f /tmp/Dockerfile -t it /tmp/context
layerbuild run it sh -c 'read a < /file; echo it was $a'
git init -q /tmp/repo
/kaniko/executor --help > /dev/null
`
	for name, flags := range map[string][]string{
		"default":    nil,
		"privileged": {"--privileged"},
		// The rights of examples/kubernetes.
		"admin": {"--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined",
			"--security-opt=apparmor=unconfined"},
		"root": {"--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"},
		"user": {"--user=layerbuild", "--security-opt=seccomp=unconfined",
			"--security-opt=apparmor=unconfined"},
	} {
		t.Run(name, func(t *testing.T) {
			// Use limits that a container without CAP_SYS_RESOURCE may set.
			run := slices.Concat([]string{"run", "--rm", "--network=host",
				"--ulimit=nofile=1024:1024", "--ulimit=nproc=500:500"}, flags)
			image := strings.TrimSpace(string(id))
			out, err := podman(append(run, image, "--version")...).CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), "layerbuild v1.2.3") {
				t.Fatalf("--version: %v\n%s", err, out)
			}
			out, err = podman(append(run, "--entrypoint=", image, "bash", "-c",
				script)...).CombinedOutput()
			built := err == nil && strings.HasSuffix(string(out), "it was built\n")
			// The default seccomp profile permits a build in some versions of podman.
			refused := name == "default" &&
				strings.Contains(string(out), "it needs a seccomp profile that allows ")
			if !built && !refused {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// removeMounted removes a directory and what is mounted below it.
func removeMounted(t *testing.T, dir string) {
	t.Helper()
	points := strings.Fields(string(read(t, "/proc/self/mountinfo")))
	slices.Reverse(points)
	for _, point := range points {
		if strings.HasPrefix(point, dir+"/") {
			if err := syscall.Unmount(point, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	}
	output(t, "rm", "-rf", "--one-file-system", dir)
}
