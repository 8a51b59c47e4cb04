package readers

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/test/lab"
)

// TestAttested has skopeo and podman read images with attestations from a registry: in both forms
// of the manifest that holds them, and in the index of an image for two platforms.
func TestAttested(t *testing.T) {
	lab.Need(t, "skopeo", "docker-registry", "podman")
	lab.Root(t)
	host := lab.DockerRegistry(t)
	const (
		runs   = "FROM busybox\nRUN echo attested > /f\n"
		copies = "FROM scratch\nCOPY Dockerfile /\n"
	)
	for tag, tt := range map[string]struct {
		dockerfile string
		flags      []string
	}{
		"image":    {runs, []string{"--output=type=image,oci-artifact=false"}},
		"artifact": {runs, []string{"--output=type=image,oci-artifact=true"}},
		"index":    {copies, []string{"--platform=linux/amd64,linux/arm64"}},
	} {
		t.Run(tag, func(t *testing.T) {
			l := lab.New(t)
			l.Busybox()
			l.Write("Dockerfile", tt.dockerfile)
			name := host + "/attested/app:" + tag
			l.Run("build", append(tt.flags, "--provenance=true", "--sbom=true", "-t", name,
				"--push", ".")...)
			want := l.Image(name)
			out := skopeo(t, "inspect", "--tls-verify=false", "--format", "{{.Digest}}",
				"docker://"+name)
			if got := out[:len(out)-1]; got != want.Root().String() {
				t.Errorf("skopeo inspect: %s, want the index %s", got, want.Root())
			}
			one, all := filepath.Join(l.Dir, "one"), filepath.Join(l.Dir, "all")
			skopeo(t, "copy", "--src-tls-verify=false", "docker://"+name, "oci:"+one+":x")
			skopeo(t, "copy", "--all", "--preserve-digests", "--src-tls-verify=false",
				"docker://"+name, "oci:"+all+":x")
			for dir, statements := range map[string]int{one: 0, all: 2} {
				got, err := imagetest.Open(dir, "")
				if err != nil {
					t.Fatal(err)
				}
				list, err := got.Attestations()
				if err != nil || len(list) != statements ||
					got.Descriptor.Digest != want.Descriptor.Digest {
					t.Errorf("%s: %s with %d attestations, %v; want %s with %d", dir,
						got.Descriptor.Digest, len(list), err, want.Descriptor.Digest, statements)
				}
			}
			pull(t, name, want.Manifest.Config.Digest.Encoded())
		})
	}
}

// pull has podman pull an image, whose ID is id.
func pull(t *testing.T, name, id string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "podman-") // podman's run directory may have 50 characters
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unmountBelow(t, dir)
		lab.Output(t, "rm", "-rf", "--one-file-system", dir)
	})
	out := lab.Output(t, "podman", "--root", dir+"/root", "--runroot", dir+"/run", "--tmpdir",
		dir+"/tmp", "--storage-driver", "vfs", "pull", "-q", "--tls-verify=false", name)
	if out != id+"\n" {
		t.Errorf("podman pull prints %q, want %q", out, id)
	}
}
