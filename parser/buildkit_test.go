package parser

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// lintCase is a Dockerfile with the results of DockerfileLint of BuildKit v0.34.2
// (frontend/dockerfile/dockerfile2llb): warnings as "LINE RULE DETAIL", and the error. The
// Dockerfiles are random combinations of valid and invalid lines. They have no base images, so that
// no registry is needed.
type lintCase struct {
	Src      string            `json:"src"`
	Target   string            `json:"target"`
	Args     map[string]string `json:"args"`
	Warnings []string          `json:"warnings"`
	Error    string            `json:"error"`
}

// A check has the findings of BuildKit's check. If BuildKit stops at an error, this check may find
// more: it continues with the stages that do not depend on the mistake.
func TestLintAsBuildKit(t *testing.T) {
	f, err := os.Open("testdata/buildkit_lint.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); n++ {
		var c lintCase
		if err := json.Unmarshal(s.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		got, err := lintText(c)
		for _, w := range c.Warnings {
			if !slices.Contains(got, w) {
				t.Errorf("case %d: %q is not found in\n%s\nfound: %q, %v", n, w, c.Src, got, err)
			}
		}
		for _, w := range got {
			if c.Error == "" && !slices.Contains(c.Warnings, w) {
				t.Errorf("case %d: %q is found, not by BuildKit, in\n%s", n, w, c.Src)
			}
		}
		if (err != nil) != (c.Error != "") {
			t.Errorf("case %d: error %v, BuildKit's is %q, of\n%s", n, err, c.Error, c.Src)
		}
	}
	if n < 300 {
		t.Errorf("%d cases", n)
	}
}

// lintText checks a Dockerfile like --check, and returns the findings and the error.
func lintText(c lintCase) ([]string, error) {
	file, err := Parse("Dockerfile", []byte(c.Src))
	if file == nil {
		return nil, err
	}
	p, err := file.Plan(PlanOptions{BuildArgs: c.Args, Target: c.Target, AllStages: c.Target == "",
		BuildPlatform: host})
	if p == nil {
		return nil, err
	}
	if err == nil {
		err = p.Check(baseImage, nil)
	}
	if err == nil {
		err = p.Violations()
	}
	var lint *LintError
	if errors.As(err, &lint) && !strings.HasPrefix(lint.Error(),
		"lint violation found for rules: ") {
		err = fmt.Errorf("unexpected words: %w", err)
	}
	var found []string
	for _, w := range p.Warnings() {
		if line := fmt.Sprintf("%d %s %s", w.Range.Start, w.Rule,
			w.Msg); !slices.Contains(found, line) {
			found = append(found, line)
		}
	}
	return found, err
}
