package arch

import (
	"errors"
	"go/ast"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// testName matches the name of a test, a benchmark or a fuzz target.
	testName = regexp.MustCompile(`\b(Test|Benchmark|Fuzz)[A-Z]\w*`)
	// link matches the target of a link in Markdown that is not a URL or a place in the same file.
	link = regexp.MustCompile(`\]\(([^#:)]+)(#[^)]*)?\)`)
)

// TestReferences checks that the tests and files to which the module's Markdown refers exist.
func TestReferences(t *testing.T) {
	goFiles, texts, _ := files(t)
	tests := map[string]bool{}
	for _, name := range goFiles {
		if !strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parse(t, name, string(text)).file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				tests[f.Name.Name] = true
			}
		}
	}
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(root, name))
		return !errors.Is(err, fs.ErrNotExist)
	}
	for _, name := range texts {
		if path.Ext(name) != ".md" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, missing := range references(name, string(text), tests, exists) {
			t.Errorf("%s refers to %s, which does not exist", name, missing)
		}
	}
}

// references returns the names in a Markdown file that are not those of tests or files.
func references(name, text string, tests map[string]bool, exists func(string) bool) []string {
	var missing []string
	for _, test := range testName.FindAllString(text, -1) {
		if !tests[test] {
			missing = append(missing, test)
		}
	}
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		if target := path.Join(path.Dir(name), m[1]); !exists(target) {
			missing = append(missing, target)
		}
	}
	return missing
}

// TestReferencesFindings plants a fault for each kind of reference.
func TestReferencesFindings(t *testing.T) {
	const text = "`TestA` and TestB, FuzzA. [a](A.md), [b](../b#c), [c](https://c/d), [d](#d)\n"
	for _, tt := range []struct {
		name        string
		tests, file []string
		want        []string
	}{
		{"good", []string{"TestA", "TestB", "FuzzA"}, []string{"docs/A.md", "b"}, nil},
		{"no test", []string{"TestA"}, []string{"docs/A.md", "b"}, []string{"TestB", "FuzzA"}},
		{"no file", []string{"TestA", "TestB", "FuzzA"}, nil, []string{"docs/A.md", "b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tests := map[string]bool{}
			for _, name := range tt.tests {
				tests[name] = true
			}
			got := references("docs/B.md", text, tests,
				func(name string) bool { return slices.Contains(tt.file, name) })
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
