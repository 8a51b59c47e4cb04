package parser

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/goldentest"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// host is the build platform of all tests, so that they do not depend on the
// machine.
var host = ocispec.Platform{OS: "linux", Architecture: "amd64"}

// image is the configuration of a base image that tests use.
func image(name string) (dockerspec.DockerOCIImage, error) {
	var img dockerspec.DockerOCIImage
	img.Platform = host
	img.Config.Env = []string{"PATH=" + DefaultPath}
	img.Config.Cmd = []string{"sh"}
	switch name {
	case "busybox", "busybox:latest", "alpine":
	case "rich":
		img.Config.Env = []string{"FOO=base", "PATH=/bin"}
		img.Config.WorkingDir = "/start"
		img.Config.Entrypoint = []string{"init"}
		img.Config.Labels = map[string]string{"one": "0", "kept": "yes"}
		img.Config.ExposedPorts = map[string]struct{}{"22/tcp": {}}
	case "trig":
		img.Config.OnBuild = []string{"COPY . /src",
			"RUN --mount=from=busybox,target=/b make $WHAT", "ENV BUILT=1"}
	case "win":
		img.OS = "windows"
		img.Config.Env = []string{"A=b"}
	default:
		return img, errors.New("no such image")
	}
	return img, nil
}

// baseImage is image with the signature that Check and Text need. A context is an image without a
// configuration.
func baseImage(s *Stage) (dockerspec.DockerOCIImage, error) {
	if in, ok := s.Base.(ImageInput); ok {
		return image(in.Ref)
	}
	return dockerspec.DockerOCIImage{}, nil
}

// options reads the last line of a test file: # options: --build-arg A=b ...
func options(t testing.TB, src []byte) PlanOptions {
	o := PlanOptions{BuildPlatform: host, BuildArgs: map[string]string{}}
	_, line, _ := strings.Cut(string(src), "# options:")
	words := strings.Fields(line)
	for i := 0; i+1 < len(words); i += 2 {
		v := words[i+1]
		switch words[i] {
		case "--build-arg":
			k, v, _ := strings.Cut(v, "=")
			o.BuildArgs[k] = v
		case "--target":
			o.Target = v
		case "--label":
			o.Labels = append(o.Labels, v)
		case "--build-context":
			o.Contexts = append(o.Contexts, v)
		case "--all":
			o.AllStages = v == "yes"
		case "--ignore":
			o.Ignore = append(o.Ignore, v)
		case "--platform":
			p, err := ParsePlatform(v)
			if err != nil {
				t.Fatal(err)
			}
			o.Platform = p
		default:
			t.Fatalf("unknown option %q", words[i])
		}
	}
	return o
}

func planText(src []byte, o PlanOptions) (string, error) {
	f, err := Parse("Dockerfile", src)
	if err != nil {
		return "", err
	}
	p, err := f.Plan(o)
	if err != nil {
		return "", err
	}
	// A first walk must not affect the result of the second one.
	if _, err := p.walk(baseImage, func(*Stage, Step) {}); err != nil {
		return "", err
	}
	return p.Text(baseImage)
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.dockerfile")
	if err != nil || len(files) == 0 {
		t.Fatalf("Glob = %v, %v, want test files", files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".dockerfile")
		t.Run(name, func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := planText(src, options(t, src))
			if err != nil {
				t.Fatalf("plan: %v", err)
			}
			goldentest.Compare(t, strings.TrimPrefix(name, "testdata/")+".plan", got)
		})
	}
}
