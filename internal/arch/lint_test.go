package arch

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	// maxColumns is the longest line that fits two files side by side on a screen.
	maxColumns = 100
	// tabColumns is the width that a tab counts for.
	tabColumns = 4
	// longLiteral is the length of a string from which a line of code may be too long: an error or
	// an example that is divided cannot be searched for.
	longLiteral = 40
)

// root is the directory of the module.
var root = filepath.Join("..", "..")

// oldIdiom matches phrases that hide who acts, or that personify code.
var oldIdiom = regexp.MustCompile(`\b(says (whether|that)|says what|lets? go of|nobody|somebody|whoever)\b`)

// userNobody is how a comment names the user with the id 65534.
const userNobody = "user nobody"

// oldNames are file names that did not tell what is in the file, with the words to use instead.
var oldNames = map[string]string{
	"straight.go":   "layeronly",
	"forecast.go":   "predict",
	"carry.go":      "remotecache",
	"scratch.go":    "tempdir (scratch is the empty image)",
	"unchanged.go":  "noop",
	"spares.go":     "pool",
	"promise.go":    "lazy",
	"left.go":       "deferred",
	"graft.go":      "external",
	"flight.go":     "singleflight",
	"pump.go":       "chunk",
	"pipe.go":       "chunk",
	"beside.go":     "pidns",
	"processone.go": "init",
	"stub.go":       "mountpoint",
	"script.go":     "rawproc",
	"stand.go":      "the thing that the file makes",
}

// A finding is a place in the source and what to do about it.
type finding struct {
	pos    token.Position
	advice string
}

func (f finding) String() string {
	return fmt.Sprintf("%s:%d: %s", f.pos.Filename, f.pos.Line, f.advice)
}

// checks are applied to each Go file of the module.
var checks = []func(*source) []finding{
	undocumented,
	idioms,
	oldName,
	longLines,
}

// TestLint applies the checks to the module. make lint runs it.
func TestLint(t *testing.T) {
	files := goFiles(t)
	if len(files) < 100 {
		t.Fatalf("only %d Go files below %s", len(files), root)
	}
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		s := parse(t, name, string(text))
		for _, check := range checks {
			for _, f := range check(s) {
				t.Error(f)
			}
		}
	}
}

// goFiles returns the module's Go files, by their paths from its root.
func goFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := name != "." && strings.HasPrefix(d.Name(), ".")
		if d.IsDir() && (hidden || name == "bin" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.Type().IsRegular() && path.Ext(name) == ".go" {
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A source is a parsed Go file.
type source struct {
	name string // path from the module's root
	text string
	fset *token.FileSet
	file *ast.File
}

func parse(t *testing.T, name, text string) *source {
	t.Helper()
	s := &source{name: name, text: text, fset: token.NewFileSet()}
	var err error
	s.file, err = parser.ParseFile(s.fset, name, text,
		parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *source) finding(pos token.Pos, format string, args ...any) finding {
	return finding{s.fset.Position(pos), fmt.Sprintf(format, args...)}
}

// undocumented finds exported names without a doc comment that begins with the name.
func undocumented(s *source) []finding {
	if strings.HasSuffix(s.name, "_test.go") {
		return nil
	}
	var found []finding
	need := func(id *ast.Ident, doc *ast.CommentGroup) {
		switch text := doc.Text(); {
		case !id.IsExported():
		case text == "":
			found = append(found, s.finding(id.Pos(),
				"write a comment that begins with %q", id.Name))
		case !startsWith(text, id.Name):
			found = append(found, s.finding(id.Pos(),
				"begin the comment of %s with %q", id.Name, id.Name))
		}
	}
	for _, decl := range s.file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if r := receiver(d); r == "" || ast.IsExported(r) {
				need(d.Name, d.Doc)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					if d.Lparen.IsValid() {
						need(spec.Name, spec.Doc)
					} else {
						need(spec.Name, d.Doc)
					}
				case *ast.ValueSpec:
					// In a group, one comment beside each name or above all of them is enough.
					if d.Lparen.IsValid() && (d.Doc != nil ||
						spec.Doc == nil && spec.Comment != nil) {
						continue
					}
					for _, id := range spec.Names {
						if d.Lparen.IsValid() {
							need(id, spec.Doc)
						} else {
							need(id, d.Doc)
						}
					}
				}
			}
		}
	}
	return found
}

// receiver returns the name of a method's type, or "" for a function.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	typ := d.Recv.List[0].Type
	for {
		switch t := typ.(type) {
		case *ast.StarExpr:
			typ = t.X
		case *ast.IndexExpr:
			typ = t.X
		case *ast.IndexListExpr:
			typ = t.X
		case *ast.Ident:
			return t.Name
		default:
			panic("unreachable")
		}
	}
}

// startsWith reports whether a comment begins with a name, also after an article.
func startsWith(text, name string) bool {
	for _, article := range []string{"A ", "An ", "The "} {
		if rest, ok := strings.CutPrefix(text, article); ok && strings.HasPrefix(rest, name) {
			text = rest
			break
		}
	}
	rest, ok := strings.CutPrefix(text, name)
	return ok && strings.IndexAny(rest, " \n.,:;'") == 0
}

// idioms finds the old idiom in comments.
func idioms(s *source) []finding {
	var found []finding
	for _, group := range s.file.Comments {
		for _, c := range group.List {
			text := strings.ReplaceAll(c.Text, userNobody, "")
			if m := oldIdiom.FindString(text); m != "" {
				found = append(found, s.finding(c.Pos(),
					"replace %q: name who acts, in plain words "+
						"(a function \"reports whether\", an error \"is returned when\")", m))
			}
		}
	}
	return found
}

// longLines finds lines that are too long, but for those of long strings.
func longLines(s *source) []finding {
	exempt := map[int]bool{}
	ast.Inspect(s.file, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING && len(l.Value) >= longLiteral {
			first, last := s.fset.Position(l.Pos()).Line, s.fset.Position(l.End()).Line
			for n := first; n <= last; n++ {
				exempt[n] = true
			}
		}
		return true
	})
	var found []finding
	n := 0
	for scan := bufio.NewScanner(strings.NewReader(s.text)); scan.Scan(); {
		n++
		w := columns(scan.Text())
		if w <= maxColumns || exempt[n] {
			continue
		}
		found = append(found, finding{token.Position{Filename: s.name, Line: n},
			fmt.Sprintf("break the line: it has %d columns, more than %d (a tab counts %d)", w,
				maxColumns, tabColumns)})
	}
	return found
}

// columns returns the width of a line.
func columns(line string) int {
	return utf8.RuneCountInString(line) + strings.Count(line, "\t")*(tabColumns-1)
}

// oldName finds a file with a name from before.
func oldName(s *source) []finding {
	if word, ok := oldNames[path.Base(s.name)]; ok {
		return []finding{{token.Position{Filename: s.name, Line: 1},
			"rename the file after its content: " + word}}
	}
	return nil
}

// TestFindings plants a fault in a file for each rule of the checks.
func TestFindings(t *testing.T) {
	long := strings.Repeat("x", maxColumns-len("// ")+1)
	tests := []struct {
		name  string
		check func(*source) []finding
		file  string
		text  string
		want  []string
	}{
		{"function", undocumented, "a.go", "func F() {}\n\nfunc f() {}",
			[]string{`a.go:3: write a comment that begins with "F"`}},
		{"wrong name", undocumented, "a.go", "// Makes it.\nfunc F() {}",
			[]string{`a.go:4: begin the comment of F with "F"`}},
		{"longer name", undocumented, "a.go", "// Files are.\nfunc File() {}",
			[]string{`a.go:4: begin the comment of File with "File"`}},
		{"documented function", undocumented, "a.go", "// F makes it.\nfunc F() {}", nil},
		{"method", undocumented, "a.go",
			"type t struct{}\n\n// T is.\ntype T[K any] struct{}\n\nfunc (t) F() {}\nfunc (*T[K]) G() {}",
			[]string{`a.go:9: write a comment that begins with "G"`}},
		{"type", undocumented, "a.go", "type T int",
			[]string{`a.go:3: write a comment that begins with "T"`}},
		{"type with an article", undocumented, "a.go", "// A T is one.\ntype T int", nil},
		{"type in a group", undocumented, "a.go", "// Types.\ntype (\n\tT int\n)",
			[]string{`a.go:5: write a comment that begins with "T"`}},
		{"constant", undocumented, "a.go", "const C = 1",
			[]string{`a.go:3: write a comment that begins with "C"`}},
		{"second variable", undocumented, "a.go", "// a and B are.\nvar a, B = 1, 2",
			[]string{`a.go:4: begin the comment of B with "B"`}},
		{"constant in a group", undocumented, "a.go", "const (\n\tC = 1\n\tD = 2 // is two\n)",
			[]string{`a.go:4: write a comment that begins with "C"`}},
		{"group with a comment", undocumented, "a.go",
			"// The numbers.\nconst (\n\tC = 1\n\tD = 2\n)", nil},
		{"test file", undocumented, "a_test.go", "func F() {}", nil},
		{"idiom", idioms, "a.go", "// f says whether it is.\nfunc f() {}",
			[]string{`a.go:3: replace "says whether": name who acts, in plain words (a function "reports whether", an error "is returned when")`}},
		{"idiom inside", idioms, "a_test.go", "func f() {\n\tf() // nobody waits\n}",
			[]string{`a_test.go:4: replace "nobody": name who acts, in plain words (a function "reports whether", an error "is returned when")`}},
		{"not an idiom", idioms, "a.go",
			"// f reports whether it is; the user nobody may call it.\nvar f = \"// says that\"",
			nil},
		{"name", oldName, "internal/build/carry.go", "",
			[]string{"internal/build/carry.go:1: rename the file after its content: remotecache"}},
		{"other name", oldName, "internal/build/carrying.go", "", nil},
		{"long comment", longLines, "a.go", "// " + long,
			[]string{"a.go:3: break the line: it has 101 columns, more than 100 (a tab counts 4)"}},
		{"long block", longLines, "a.go", "/*\n   " + long + "\n*/",
			[]string{"a.go:4: break the line: it has 101 columns, more than 100 (a tab counts 4)"}},
		{"tabs", longLines, "a.go", "func f() {\n\t// " + long[4:] + "\n\t// " + long[5:] + "\n}",
			[]string{"a.go:4: break the line: it has 101 columns, more than 100 (a tab counts 4)"}},
		{"long code", longLines, "a.go", "var a = " + strings.Repeat("a+", 50) + "a",
			[]string{"a.go:3: break the line: it has 109 columns, more than 100 (a tab counts 4)"}},
		{"a long string", longLines, "a.go", "var a = `" + long + "`", nil},
		{"short strings", longLines, "a.go", "var a = " + strings.Repeat(`"abcdefgh"+`, 10) + `""`,
			[]string{"a.go:3: break the line: it has 120 columns, more than 100 (a tab counts 4)"}},
		{"a long comment beside a string", longLines, "a.go", "var a = `a` // " + long,
			[]string{"a.go:3: break the line: it has 113 columns, more than 100 (a tab counts 4)"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, f := range tt.check(parse(t, tt.file, "package p\n\n"+tt.text+"\n")) {
				got = append(got, f.String())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
