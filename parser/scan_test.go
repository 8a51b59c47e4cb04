package parser

import (
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// TestScans checks which stages, and whether the context, a scanner reads.
func TestScans(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		args       map[string]string
		want       string
	}{
		{"none", "FROM scratch AS a\nFROM a AS b\n", nil, ""},
		{"its own stage is no extra", "FROM scratch\nARG BUILDKIT_SBOM_SCAN_STAGE=true\n", nil, ""},
		{"a stage", "FROM scratch AS a\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nFROM scratch AS b\n" +
			"COPY --from=a / /\n", nil, "a"},
		{"a stage that is not needed", "FROM scratch AS a\nARG BUILDKIT_SBOM_SCAN_STAGE=true\n" +
			"FROM scratch AS b\n", nil, ""},
		{"without a name", "FROM scratch\nARG BUILDKIT_SBOM_SCAN_STAGE=1\nFROM scratch\n" +
			"COPY --from=0 / /\n", nil, "stage-0"},
		{"global", "ARG BUILDKIT_SBOM_SCAN_STAGE=true\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n" +
			"FROM scratch AS a\nFROM scratch AS b\nCOPY --from=a / /\n", nil, "a context"},
		{"global, off in a stage", "ARG BUILDKIT_SBOM_SCAN_STAGE=true\nFROM scratch AS a\n" +
			"ARG BUILDKIT_SBOM_SCAN_STAGE=false\nFROM scratch AS b\nCOPY --from=a / /\n", nil, ""},
		{"a list", "ARG BUILDKIT_SBOM_SCAN_STAGE=x,A\nFROM scratch AS a\nFROM scratch AS b\n" +
			"FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n", nil, "a"},
		{"the context of another stage", "FROM scratch AS a\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n" +
			"FROM scratch\nCOPY --from=a / /\n", nil, ""},
		{"inherited from the stage below", "FROM scratch AS a\n" +
			"ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nFROM a\n", nil, "context"},
		{"an argument of the command line", "FROM scratch\nARG BUILDKIT_SBOM_SCAN_CONTEXT\n",
			map[string]string{"BUILDKIT_SBOM_SCAN_CONTEXT": "true"}, "context"},
		{"that the Dockerfile does not declare", "FROM scratch\n",
			map[string]string{"BUILDKIT_SBOM_SCAN_CONTEXT": "true"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("Dockerfile", []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			p, err := f.Plan(PlanOptions{BuildArgs: tt.args})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Check(func(*Stage) (dockerspec.DockerOCIImage, error) {
				return dockerspec.DockerOCIImage{}, nil
			}, nil); err != nil {
				t.Fatal(err)
			}
			stages, context := p.Scans()
			var got []string
			for _, s := range stages {
				got = append(got, s.ScanName())
			}
			if context {
				got = append(got, "context")
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
