package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/analyze"
)

var update = flag.Bool("update", false, "rewrite docs/CONFIGURATION.md")

// readElsewhere are variables of the list that are read by Go's library or passed on by their
// names.
var readElsewhere = []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "GIT_SSL_CAINFO",
	"SSL_CERT_FILE", "SSL_CERT_DIR"}

// ofOurOwn are variables that layerbuild sets for its child processes.
var ofOurOwn = []string{"_LAYERBUILD_NS"}

// The list of environment variables has all variables that the source reads.
func TestVariables(t *testing.T) {
	listed := map[string]bool{}
	for _, v := range variables {
		for name := range strings.SplitSeq(v.name, ", ") {
			if listed[name] {
				t.Errorf("%s is listed twice", name)
			}
			listed[name] = true
		}
	}
	read := variablesOfSource(t)
	if len(read) < 10 {
		t.Fatalf("the source reads %q only", slices.Sorted(maps.Keys(read)))
	}
	for name, at := range read {
		if !listed[name] && !slices.Contains(ofOurOwn, name) {
			t.Errorf("%s: %s is not in the list", at, name)
		}
	}
	for name := range listed {
		if read[name] == "" && !slices.Contains(readElsewhere, name) {
			t.Errorf("%s is in the list, and nothing reads it", name)
		}
	}
}

// variablesOfSource returns the constants that the packages of the program pass to os.Getenv,
// os.LookupEnv and functions named getenv, with a position of each.
func variablesOfSource(t *testing.T) map[string]string {
	t.Helper()
	source := readings{constants: map[string]string{}, read: map[string]string{}}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		name := d.Name()
		// Skip tests: rounds and the packages whose names end in test.
		if path != root && (name[0] == '.' || name == "testdata" || name == "bench" ||
			name == "rounds" || strings.HasSuffix(name, "test")) {
			return fs.SkipDir
		}
		return source.add(path)
	})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for name, at := range source.read {
		if constant, ok := source.constants[name]; ok {
			name = constant
		} else if strings.Contains(name, ".") {
			continue // a variable
		}
		found[name] = at
	}
	return found
}

// readings are the calls that read the environment, and the constants of all packages.
type readings struct {
	constants map[string]string // by PACKAGE.NAME
	read      map[string]string // the argument, a literal's value or PACKAGE.NAME, with a position
}

// add adds the package in a directory.
func (r readings) add(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	set := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, value := range n.Values {
					if s, ok := literal(value); ok {
						r.constants[file.Name.Name+"."+n.Names[i].Name] = s
					}
				}
			case *ast.CallExpr:
				if name := argument(n, file.Name.Name); name != "" {
					r.read[name] = set.Position(n.Pos()).String()
				}
			}
			return true
		})
	}
	return nil
}

// argument returns the argument of a call, in the package pkg, that reads the environment: the
// value of a literal, or PACKAGE.NAME. For other calls it returns "".
func argument(call *ast.CallExpr, pkg string) string {
	var function string
	switch f := call.Fun.(type) {
	case *ast.Ident:
		function = f.Name
	case *ast.SelectorExpr:
		function = f.Sel.Name
	}
	if !slices.Contains([]string{"getenv", "Getenv", "LookupEnv"}, function) ||
		len(call.Args) != 1 {
		return ""
	}
	switch arg := call.Args[0].(type) {
	case *ast.BasicLit:
		s, _ := literal(arg)
		return s
	case *ast.Ident:
		return pkg + "." + arg.Name
	case *ast.SelectorExpr:
		if of, ok := arg.X.(*ast.Ident); ok {
			return of.Name + "." + arg.Sel.Name
		}
	}
	return ""
}

// literal returns the value of a string literal.
func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// The configuration files accept the keys and the examples of the list.
func TestSettingsFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	var yaml strings.Builder
	for _, f := range settingsFiles {
		for _, k := range f.keys {
			if f.path == analyze.ConfigFile {
				fmt.Fprintf(&yaml, "%s: %s\n", k.name, k.example)
				continue
			}
			if err := os.WriteFile(file, []byte(k.name+" = "+k.example+" # a comment\n"),
				0o600); err != nil {
				t.Fatal(err)
			}
			if value, _, err := configured(file, k.name); value != k.example || err != nil {
				t.Errorf("%s = %s: %q, %v", k.name, k.example, value, err)
			}
		}
	}
	c, err := analyze.ParseConfig(analyze.ConfigFile, []byte(yaml.String()))
	if err != nil || c.FailOver == nil || len(c.FailOn) == 0 || len(c.Accept) == 0 || c.Base == "" {
		t.Errorf("the keys of %s: %+v, %v", analyze.ConfigFile, c, err)
	}
	for _, path := range configFiles(&env{getenv: func(string) string { return "" }}) {
		if !strings.Contains(settingsFiles[0].path, path) {
			t.Errorf("%s is not in the list", path)
		}
	}
}

// docs/CONFIGURATION.md is generated from the lists. -update rewrites it.
func TestConfigurationPage(t *testing.T) {
	name := filepath.Join("..", "..", "docs", "CONFIGURATION.md")
	var b strings.Builder
	b.WriteString("# Configuration\nA flag on the command line has precedence over an environment variable, and an environment variable " +
		"over a\nconfiguration file. The man page layerbuild(5) has the same tables.\n\n## Files\n")
	for _, f := range settingsFiles {
		fmt.Fprintf(&b, "### `%s`\n%s\n\n| key | example | meaning |\n| --- | --- | --- |\n",
			strings.ReplaceAll(f.path, ", ", "`, `"), f.text)
		for _, k := range f.keys {
			fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", k.name, k.example, k.text)
		}
		b.WriteByte('\n')
	}
	b.WriteString("## Environment variables\n| name | meaning |\n| --- | --- |\n")
	for _, v := range variables {
		fmt.Fprintf(&b, "| `%s` | %s |\n", strings.ReplaceAll(v.name, ", ", "`, `"), v.text)
	}
	if *update {
		if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(name)
	if err != nil || string(have) != b.String() {
		t.Errorf("docs/CONFIGURATION.md is not that of the lists (%v); -update rewrites it", err)
	}
}
