// Package arch keeps the rooms apart: who may import whom, and who may make system calls.
package arch

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/layerbuild/layerbuild/"

type pkg struct {
	Dir        string
	ImportPath string
	Doc        string
	Imports    []string
	Deps       []string
	GoFiles    []string
}

// room is the package's path inside the module.
func (p pkg) room() string { return strings.TrimPrefix(p.ImportPath, module) }

// packages lists the module's packages, without their tests.
func packages(t *testing.T) []pkg {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command")
	}
	cmd := exec.Command("go", "list", "-json=Dir,ImportPath,Doc,Imports,Deps,GoFiles", "./...")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			all = append(all, p)
		}
	}
	return all
}

// in reports whether a room is one of the given ones or inside one.
func in(room string, rooms ...string) bool {
	return slices.ContainsFunc(rooms, func(r string) bool { return room == r || strings.HasPrefix(room, r+"/") })
}

// TestRoomsKeepApart: the six rooms know neither each other nor the conductor, not even through
// others.
func TestRoomsKeepApart(t *testing.T) {
	rooms := []string{"parser", "executor", "snapshot", "diff", "export", "analyze"}
	for _, p := range packages(t) {
		for _, own := range rooms {
			if !in(p.room(), own) {
				continue
			}
			others := slices.DeleteFunc(append([]string{"internal/build", "cmd"}, rooms...), func(r string) bool { return r == own })
			for _, dep := range p.Deps {
				if room, ok := strings.CutPrefix(dep, module); ok && in(room, others...) {
					t.Errorf("%s depends on %s", p.room(), room)
				}
			}
		}
	}
}

// TestOnlyOneImports: each of these libraries has one room that knows it.
func TestOnlyOneImports(t *testing.T) {
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, "github.com/moby/buildkit/") {
				if !in(p.room(), "parser") {
					t.Errorf("%s imports %s: only parser may", p.room(), imp)
				}
				if !strings.HasPrefix(imp, "github.com/moby/buildkit/frontend/dockerfile/") {
					t.Errorf("%s imports %s: nothing of buildkit but its Dockerfile language", p.room(), imp)
				}
			}
		}
	}
}

// TestProgramWithoutTests: nothing that is made for tests ends in the program.
func TestProgramWithoutTests(t *testing.T) {
	for _, p := range packages(t) {
		if p.room() != "cmd/layerbuild" {
			continue
		}
		for _, dep := range p.Deps {
			room := strings.TrimPrefix(dep, module)
			if dep == "testing" || strings.HasPrefix(dep, module) && (strings.HasSuffix(room, "test") || in(room, "test", "internal/fstree")) {
				t.Errorf("the program depends on %s", dep)
			}
		}
	}
}

// TestSystemCalls: the kernel is called in few rooms. Constants and types are for everybody.
func TestSystemCalls(t *testing.T) {
	allowed := []string{
		"executor", "snapshot", "diff", "internal/mount", "internal/ns", "internal/safepath", "internal/source", "internal/unpack",
		"internal/hostfile",       // dup, for a file that cannot be opened again
		"internal/lock",           // flock, for all other rooms
		"internal/atomicfile",     // files without a name, and the link that gives them one
		"internal/stagedir",       // renameat2, and the owner, mode and attributes of directories
		"internal/state",          // syncfs and statfs
		"internal/smallfile",      // what os makes too many of
		"internal/layercheck",     // lists what os does not tell: owners, devices, attributes
		"internal/fstree", "test", // in tests only
	}
	for _, p := range packages(t) {
		if in(p.room(), allowed...) {
			continue
		}
		for _, name := range p.GoFiles {
			for _, call := range systemCalls(t, filepath.Join(p.Dir, name)) {
				t.Errorf("%s makes a system call: %s", p.room(), call)
			}
		}
	}
}

// conversions look like calls in the syntax.
var conversions = []string{"Signal", "Errno"}

// systemCalls lists the calls of functions of syscall and x/sys/unix in a file.
func systemCalls(t *testing.T, path string) []string {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, imp := range file.Imports {
		at, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if at == "syscall" || at == "golang.org/x/sys/unix" {
			name := filepath.Base(at)
			if imp.Name != nil {
				name = imp.Name.Name
			}
			names[name] = true
		}
	}
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || slices.Contains(conversions, sel.Sel.Name) {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && names[x.Name] {
			found = append(found, fset.Position(call.Pos()).String()+" "+x.Name+"."+sel.Sel.Name)
		}
		return true
	})
	return found
}

// TestEveryRoomIsDocumented: each package, other than main programs, is in a table of
// docs/ARCHITECTURE.md.
func TestEveryRoomIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages(t) {
		if p.room() == "bench" || in(p.room(), "test/run") {
			continue
		}
		if !strings.Contains(string(text), "`"+p.room()+"`") {
			t.Errorf("docs/ARCHITECTURE.md does not name %s", p.room())
		}
	}
}

// TestEveryRoomHasASign: each package says in a sentence what it is.
func TestEveryRoomHasASign(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.room())
		}
	}
}
