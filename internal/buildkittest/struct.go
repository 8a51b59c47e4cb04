package buildkittest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// Struct is a struct of BuildKit.
type Struct struct {
	File string // its file in BuildKit's module
	Name string
	// Without lists the names, in JSON, of the fields that the other struct does not have.
	Without []string
}

// field is the form of a struct's field in JSON.
type field struct {
	kind      string // of the value, such as number
	omitEmpty bool
}

// Compare fails the test if the struct ours has another form in JSON than BuildKit's struct,
// except for the fields that ours does not have. It skips the test if there is no copy of
// BuildKit's source.
func Compare(t testing.TB, ours any, theirs Struct) {
	t.Helper()
	want := theirs.fields(t)
	got := map[string]field{}
	of := reflect.TypeOf(ours)
	for f := range of.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		got[name] = field{kindOf(f.Type), options == "omitempty"}
	}
	for name, f := range got {
		switch w, ok := want[name]; {
		case !ok:
			t.Errorf("%v: BuildKit's %s has no field %q", of, theirs.Name, name)
		case f != w && f.kind == "object" && w.kind == "object":
			// a struct that is always there, for a pointer that is always set
		case f != w:
			t.Errorf("%v: %q is %+v, and in BuildKit's %s %+v", of, name, f, theirs.Name, w)
		}
	}
	for name := range want {
		if _, ok := got[name]; ok == slices.Contains(theirs.Without, name) {
			t.Errorf("%v: has %q: %v, but the test expects otherwise", of, name, ok)
		}
	}
}

func (s Struct) fields(t testing.TB) map[string]field {
	t.Helper()
	file := parse(t, s.File)
	var found *ast.StructType
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.TypeSpec); ok && spec.Name.Name == s.Name {
			found, _ = spec.Type.(*ast.StructType)
		}
		return found == nil
	})
	if found == nil {
		t.Fatalf("BuildKit's %s has no struct %s", s.File, s.Name)
	}
	fields := map[string]field{}
	for _, f := range found.Fields.List {
		if f.Tag == nil || !ast.IsExported(f.Names[0].Name) {
			continue
		}
		tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json")
		name, options, _ := strings.Cut(tag, ",")
		fields[name] = field{kindIn(f.Type), options == "omitempty"}
	}
	return fields
}

// parse parses a file of BuildKit's module.
func parse(t testing.TB, name string) *ast.File {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}",
		"github.com/moby/buildkit").Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Skipf("no module cache with BuildKit's source: %v", err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// kindOf returns the kind of JSON value that encoding/json makes of a type.
func kindOf(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t.Kind() == reflect.Pointer:
		return kindOf(t.Elem())
	case t == reflect.TypeFor[[]byte]():
		return "base64"
	case t.Kind() == reflect.Slice:
		return "list of " + kindOf(t.Elem())
	case t.Kind() == reflect.Struct:
		return "object"
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		return "number"
	}
	return t.Kind().String()
}

// kindIn returns the same for a type in source text.
func kindIn(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return kindIn(e.X)
	case *ast.ArrayType:
		if elem, ok := e.Elt.(*ast.Ident); ok && elem.Name == "byte" {
			return "base64"
		}
		return "list of " + kindIn(e.Elt)
	case *ast.SelectorExpr:
		switch e.Sel.Name {
		case "Time":
			return "time"
		case "Digest":
			return "string"
		}
	case *ast.Ident:
		switch e.Name {
		case "int", "int32", "int64":
			return "number"
		case "string", "bool":
			return e.Name
		case "RequestType":
			return "string"
		}
	}
	return "object"
}

// Const returns the text of a constant string in a file of BuildKit's module. It skips the test if
// there is no copy of BuildKit's source.
func Const(t testing.TB, name, file string) string {
	t.Helper()
	var value string
	ast.Inspect(parse(t, file), func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && spec.Names[0].Name == name &&
			len(spec.Values) == 1 {
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
				value = strings.Trim(lit.Value, "`\"")
			}
		}
		return value == ""
	})
	if value == "" {
		t.Fatalf("BuildKit's %s has no constant %s", file, name)
	}
	return value
}
