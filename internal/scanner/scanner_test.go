package scanner

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/attest"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// plan returns the plan of a Dockerfile whose stages are all from scratch.
func plan(t *testing.T, text string) *parser.Plan {
	t.Helper()
	f, err := parser.Parse("Dockerfile", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Plan(parser.PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Check(func(*parser.Stage) (dockerspec.DockerOCIImage, error) {
		return dockerspec.DockerOCIImage{}, nil
	}, nil); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestProtocol checks the variables and the mounts of a generator.
func TestProtocol(t *testing.T) {
	for _, tt := range []struct {
		text, env, mounts string
	}{
		{"FROM scratch\nCOPY a /\n",
			"A=1 BUILDKIT_SCAN_DESTINATION=/run/out/ BUILDKIT_SCAN_SOURCE=/run/src/core/sbom " +
				"BUILDKIT_SCAN_X=2 PATH=/p",
			"bind:/run/src/core/sbom tmpfs:/tmp"},
		{"FROM scratch AS s\nARG BUILDKIT_SBOM_SCAN_STAGE=1\nFROM scratch AS t\n" +
			"ARG BUILDKIT_SBOM_SCAN_CONTEXT=1\nCOPY --from=s / /\n",
			"A=1 BUILDKIT_SCAN_DESTINATION=/run/out/ BUILDKIT_SCAN_SOURCE=/run/src/core/sbom " +
				"BUILDKIT_SCAN_SOURCE_EXTRAS=/run/src/extras/ BUILDKIT_SCAN_STAGE_NAME=t " +
				"BUILDKIT_SCAN_X=2 PATH=/p",
			"bind:/run/src/core/sbom tmpfs:/tmp bind:/run/src/extras/sbom-s " +
				"bind:/run/src/extras/sbom-context"},
	} {
		s := &Scan{Plan: plan(t, tt.text), SBOM: attest.SBOM{Generator: "a",
			Parameters: map[string]string{"X": "2"}}}
		env := s.environment([]string{"PATH=/p", "A=1", "BUILDKIT_SCAN_SOURCE=/other"})
		slices.Sort(env)
		if got := strings.Join(env, " "); got != tt.env {
			t.Errorf("environment %s, want %s", got, tt.env)
		}
		var mounts []string
		for _, m := range s.mounts() {
			if m.Type == parser.MountBind && !m.ReadOnly {
				t.Errorf("%s is writable", m.Target)
			}
			mounts = append(mounts, string(m.Type)+":"+m.Target)
		}
		if got := strings.Join(mounts, " "); got != tt.mounts {
			t.Errorf("mounts %s, want %s", got, tt.mounts)
		}
	}
	s := &Scan{Plan: plan(t, "FROM scratch\n")}
	if env := s.environment(nil); !slices.Contains(env, "PATH="+parser.DefaultPath) {
		t.Errorf("without a PATH: %q", env)
	}
}

// TestRead reads what a generator has written, and hostile files.
func TestRead(t *testing.T) {
	statement := func(name string) string {
		return `{"predicateType":"` + attest.PredicateSPDX +
			`","predicate":{"name":"` + name + `"}}`
	}
	for _, tt := range []struct {
		name  string
		write func(dir string) error
		want  []string // names of files, or one error
	}{
		{"the image first", func(dir string) error {
			for _, name := range []string{"a.spdx.json", "sbom.spdx.json", "sbom-x.spdx.json"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(statement(name)),
					0o600); err != nil {
					return err
				}
			}
			return nil
		}, []string{"sbom.spdx.json", "a.spdx.json", "sbom-x.spdx.json"}},
		{"nothing", func(string) error { return nil },
			[]string{"error: it has written no file to /run/out"}},
		{"a directory", func(dir string) error { return os.Mkdir(filepath.Join(dir, "d"), 0o755) },
			[]string{"error: its file d: it is not a regular file"}},
		{"a link out of the image", func(dir string) error {
			return os.Symlink("/etc/passwd", filepath.Join(dir, "l"))
		}, []string{"error: its file l: openat2 /run/out/l: no such file or directory"}},
		{"no statement", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "x"), []byte("x"), 0o644)
		}, []string{"error: its file x: it is not an in-toto statement: invalid character 'x' " +
			"looking for beginning of value"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			out := filepath.Join(root, outDir)
			if err := os.MkdirAll(out, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tt.write(out); err != nil {
				t.Fatal(err)
			}
			dir, err := os.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			tree, err := source.NewTree(dir, source.TreeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			list, err := read(&inputs.Files{Tree: tree})
			var got []string
			for _, a := range list {
				got = append(got, a.Filename)
			}
			if err != nil {
				got = []string{"error: " + err.Error()}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
