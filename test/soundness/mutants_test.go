package soundness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	goparser "go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mutantsEnv selects the mutants that TestMutants builds and tests: "all", or names separated by
// commas.
const mutantsEnv = "LAYERBUILD_MUTANTS"

// A mutant is the program with one rule of the cache broken by a change of its source.
type mutant struct {
	name, rule string
	by         string // the test that has found it, which runs first
	// the changed files: their text, by name below the top of the checkout
	files map[string]string
}

// readMutants reads testdata/mutants.txt. Each replaced text occurs once in its file, so that a
// mutant does not depend on the order of the source.
func readMutants(t *testing.T) []mutant {
	raw, err := os.ReadFile("testdata/mutants.txt")
	if err != nil {
		t.Fatal(err)
	}
	var list []mutant
	for _, record := range strings.Split(strings.TrimSpace(string(raw)), "\n\n") {
		head, edits, _ := strings.Cut(record, "\n")
		m := mutant{files: map[string]string{}}
		m.name, m.rule, _ = strings.Cut(head, ": ")
		if by := regexp.MustCompile(`(?m)^found by (\w+)( in round \d+)?$`).FindStringSubmatch(
			edits); by != nil {
			m.by = by[1]
		} else {
			t.Errorf("mutant %s: the table does not name the test that has found it", m.name)
		}
		edit := regexp.MustCompile(`(?m)^([a-z].*)\n((?:-.*\n)+)((?:\+.*\n?)+)`)
		for _, e := range edit.FindAllStringSubmatch(edits, -1) {
			file, before, after := e[1], lineTexts(e[2]), lineTexts(e[3])
			text, changed := m.files[file]
			if !changed {
				raw, err := os.ReadFile(filepath.Join("../..", file))
				if err != nil {
					t.Fatal(err)
				}
				text = string(raw)
			}
			if n := strings.Count(text, before); n != 1 {
				t.Errorf("mutant %s: %s has %d times\n%s", m.name, file, n, before)
			}
			m.files[file] = strings.Replace(text, before, after, 1)
		}
		if len(m.files) == 0 {
			t.Errorf("mutant %s changes nothing", m.name)
		}
		list = append(list, m)
	}
	return list
}

// lineTexts removes the first character of each line, and the last line break.
func lineTexts(s string) string {
	return strings.TrimSuffix(regexp.MustCompile(`(?m)^.`).ReplaceAllString(strings.TrimSuffix(s,
		"\n"), ""), "\n")
}

// TestMutants checks that the mutants compile. With LAYERBUILD_MUTANTS it makes them, and each must
// be found by a test.
func TestMutants(t *testing.T) {
	list := readMutants(t)
	chosen := os.Getenv(mutantsEnv)
	var c *compiler
	if chosen == "" {
		c = newCompiler(t)
	}
	for _, m := range list {
		t.Run(m.name, func(t *testing.T) {
			if chosen == "all" || slices.Contains(strings.Split(chosen, ","), m.name) {
				m.found(t)
			} else if chosen == "" {
				c.check(t, &m)
			}
		})
	}
}

// compiler checks types with the packages that the go command has compiled.
type compiler struct {
	packages map[string]compiled // by directory below the top of the checkout
	exports  map[string]string   // the files with exported types, by import path
}

type compiled struct {
	Dir, ImportPath, Export string
	GoFiles                 []string
}

func newCompiler(t *testing.T) *compiler {
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=Dir,ImportPath,Export,GoFiles",
		"./cmd/layerbuild")
	cmd.Dir, cmd.Env = top, append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	c := &compiler{packages: map[string]compiled{}, exports: map[string]string{}}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p compiled
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		c.exports[p.ImportPath] = p.Export
		if dir, err := filepath.Rel(top, p.Dir); err == nil {
			c.packages[dir] = p
		}
	}
	return c
}

// check checks the types of the packages that a mutant changes.
func (c *compiler) check(t *testing.T, m *mutant) {
	for file := range m.files {
		p, ok := c.packages[filepath.Dir(file)]
		if !ok {
			t.Fatalf("%s is not in a package of the program", file)
		}
		fset := token.NewFileSet()
		var files []*ast.File
		for _, name := range p.GoFiles {
			var text any // nil: use the text of the file
			if changed, ok := m.files[filepath.Join(filepath.Dir(file), name)]; ok {
				text = changed
			}
			f, err := goparser.ParseFile(fset, filepath.Join(p.Dir, name), text, 0)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		conf := types.Config{Importer: importer.ForCompiler(fset, "gc",
			func(path string) (io.ReadCloser, error) { return os.Open(c.exports[path]) })}
		if _, err := conf.Check(p.ImportPath, fset, files, nil); err != nil {
			t.Errorf("mutant %s does not compile: %v", m.name, err)
		}
	}
}

// found builds a mutant and runs the tests of this package with it, until one of them fails.
func (m *mutant) found(t *testing.T) {
	bin := m.build(t)
	defer os.Remove(bin)
	missed := ""
	tests := []string{m.by}
	for _, test := range []string{"TestInputs", "TestNewest", "TestSoundness"} {
		if test != m.by {
			tests = append(tests, test)
		}
	}
	for _, test := range tests {
		cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.v", "-test.timeout=0")
		cmd.Env = append(os.Environ(), "LAYERBUILD="+bin)
		out, err := cmd.CombinedOutput()
		rounds := bytes.Count(out, []byte("=== RUN   "+test+"/seed"))
		if err != nil {
			why := regexp.MustCompile(`only (warm|cold): .*|does not show.*|build that changes nothing|of one run and of another|has not run|build.* failed|has no layer`).Find(out)
			t.Logf("%s (%s): found by %s in round %d: %s", m.name, m.rule, test, rounds, why)
			return
		}
		missed += fmt.Sprintf(" %d rounds of %s", rounds, test)
	}
	t.Errorf("%s (%s): not found by%s", m.name, m.rule, missed)
}

// build makes a mutant. It does not change the checkout.
func (m *mutant) build(t *testing.T) string {
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	replace := map[string]string{}
	for i, file := range slices.Sorted(maps.Keys(m.files)) {
		changed := filepath.Join(dir, fmt.Sprintf("%d.go", i))
		replace[filepath.Join(top, file)] = changed
		if err := os.WriteFile(changed, []byte(m.files[file]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "layerbuild")
	cmd := exec.Command("go", "build", "-overlay="+filepath.Join(dir, "overlay.json"), "-trimpath",
		"-tags=nethttpomithttp2", "-ldflags=-s", "-o", bin, "./cmd/layerbuild")
	cmd.Dir, cmd.Env = top, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mutant %s does not build: %v\n%s", m.name, err, out)
	}
	return bin
}
