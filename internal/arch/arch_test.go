package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/layerbuild/layerbuild/"

// pkg is the information of go list about a package.
type pkg struct {
	Dir          string
	ImportPath   string
	Doc          string
	Imports      []string
	Deps         []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	TestImports  []string
	XTestImports []string
}

// room returns the package's path inside the module.
func (p pkg) room() string { return strings.TrimPrefix(p.ImportPath, module) }

// packages returns the module's packages.
func packages(t *testing.T) []pkg {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command")
	}
	all, err := list()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// list returns the output of go list, which it calls once.
var list = sync.OnceValues(func() ([]pkg, error) {
	out, err := goCommand("list", "-json=Dir,ImportPath,Doc,Imports,Deps,GoFiles,"+
		"TestGoFiles,XTestGoFiles,TestImports,XTestImports", "./...")
	if err != nil {
		return nil, err
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
})

// goCommand runs the go command in the module and returns its output.
func goCommand(args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, exit.Stderr)
	}
	return out, err
}

// in reports whether a room is one of the given rooms or below one of them.
func in(room string, rooms ...string) bool {
	return slices.ContainsFunc(rooms, func(r string) bool {
		return room == r || strings.HasPrefix(room, r+"/")
	})
}

// TestRoomsKeepApart checks that the six rooms depend neither on each other nor on internal/build,
// directly or through other rooms.
func TestRoomsKeepApart(t *testing.T) {
	rooms := []string{"parser", "executor", "snapshot", "diff", "export", "analyze"}
	for _, p := range packages(t) {
		for _, own := range rooms {
			if !in(p.room(), own) {
				continue
			}
			others := slices.DeleteFunc(append([]string{"internal/build", "cmd"}, rooms...),
				func(r string) bool { return r == own })
			for _, dep := range p.Deps {
				if room, ok := strings.CutPrefix(dep, module); ok && in(room, others...) {
					t.Errorf("%s depends on %s", p.room(), room)
				}
			}
		}
	}
}

// TestProgramWithoutTests checks that the program contains no package that exists for tests.
func TestProgramWithoutTests(t *testing.T) {
	for _, p := range packages(t) {
		if p.room() != "cmd/layerbuild" {
			continue
		}
		for _, dep := range p.Deps {
			room := strings.TrimPrefix(dep, module)
			if dep == "testing" || strings.HasPrefix(dep, module) &&
				(strings.HasSuffix(room, "test") && room != "internal/attest" ||
					in(room, "test", "internal/fstree")) {
				t.Errorf("the program depends on %s", dep)
			}
		}
	}
}

// TestSystemCalls checks that only the listed rooms make system calls. All rooms may use the
// constants and types of the packages for system calls.
func TestSystemCalls(t *testing.T) {
	allowed := []string{
		"executor", "snapshot", "diff", "internal/dirfd", "internal/mount", "internal/ns",
		"internal/safepath", "internal/source", "internal/unpack",
		"internal/filedata",       // copies without buffers, and finds holes
		"internal/hostfile",       // dup, for a file that cannot be opened again
		"internal/lock",           // flock, for all other rooms
		"internal/atomicfile",     // files without a name, and linking them to a name
		"internal/stagedir",       // renameat2, and the owner, mode and attributes of directories
		"internal/subprocess",     // kill, for a whole process group
		"internal/state",          // syncfs and statfs
		"internal/volume",         // identifies file systems
		"internal/smallfile",      // calls for which os makes too many calls
		"internal/layercheck",     // lists what os omits: owners, devices, xattrs
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
