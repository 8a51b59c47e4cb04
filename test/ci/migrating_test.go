package ci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
)

// TestMigrating runs the examples of the pages docs/FROM_*.md, those of each page in a place of
// their own.
func TestMigrating(t *testing.T) {
	for _, page := range []string{"FROM_DOCKER", "FROM_BUILDAH", "FROM_KANIKO", "FROM_DIVE"} {
		text, err := os.ReadFile(filepath.Join(lab.Top(), "docs", page+".md"))
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for line := range strings.Lines(string(text)) {
			if command, ok := strings.CutPrefix(line, "    "); ok {
				lines = append(lines, strings.TrimSpace(command))
			}
		}
		t.Run(page, func(t *testing.T) {
			if len(lines) < 3 {
				t.Fatalf("%d examples", len(lines))
			}
			migrate(t, lines)
		})
	}
}

// migrate runs lines of a section. Each must succeed, and those with a name in the registry must
// push to it.
func migrate(t *testing.T, lines []string) {
	s := newSite(t)
	docker := filepath.Join(s.Dir, ".docker")
	credentials(t, s, docker)
	s.Write("Dockerfile",
		"FROM busybox AS app\nARG VERSION=1\nCOPY file /\nRUN echo $VERSION >/v\n")
	pushes := false
	for _, line := range lines {
		here := strings.ReplaceAll(line, "registry.example.com", s.Registry.Host)
		out, err := s.run(t, []string{"sh", "-euc"}, here, "DOCKER_CONFIG="+docker)
		if err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
		pushes = pushes || here != line
		if strings.Contains(out, password) {
			t.Errorf("%s: the output has the password", line)
		}
	}
	log := strings.Join(s.Registry.Log(), "\n")
	if pushes && !strings.Contains(log, "PUT /v2/team/app/manifests/") {
		t.Errorf("nothing was pushed:\n%s", log)
	}
}
