package arch

import (
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
	// tabColumns is the width of a tab.
	tabColumns = 4
)

// root is the directory of the module.
var root = filepath.Join("..", "..")

// oldIdiom matches phrases that hide who acts, or that personify code, and "which is no" for "which
// is not a". The second part of the last one excepts "which is no longer".
var oldIdiom = regexp.MustCompile(`(?i)\b(` +
	`says? (that|whether|what|which|how|where|who|so)|(has|have) to say|(is|are|was|were) told|` +
	`lets? go|nobody|somebody|whoever|one's own|can(not)? be had|wants to|` +
	`(it|that|which|what) (is|are) no ([a-km-z]|l[a-np-z])\w*)\b`)

// commentIdiom matches relative clauses with "what" for which there is a noun, two words of which
// the usual ones are "completely" and "again", and comments of tests without a verb.
var commentIdiom = regexp.MustCompile(`(?i)\b(what it (is|has|was)|(is|are|was|were) what|` +
	`what (comes|came|follows|followed|belongs)|in whole|anew)\b|` +
	`^\s*(Test|Fuzz|Benchmark)\w+:`)

// userIdiom matches verbs of speech and thought. Programs, files and instructions are the subjects
// of sentences in documents, help and messages, so these verbs have no honest use there.
var userIdiom = regexp.MustCompile(
	`(?i)\b(says?|knows|((does|do) )?not know|sees|tells|speaks?|thinks?|believes?|remembers?)\b`)

// userNobody is the name, in comments, of the user with the id 65534.
const userNobody = "user nobody"

// oldNames are file names that did not describe the content of the file, with the words to use
// instead.
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

// A finding is a position in the source and the advice for it.
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
	messages,
	oldName,
	longLines,
}

// TestLint applies the checks to the module. make lint runs it.
func TestLint(t *testing.T) {
	goFiles, texts, scripts := files(t)
	if len(goFiles) < 100 || len(texts) < 40 || len(scripts) < 150 {
		t.Fatalf("only %d Go files, %d texts and %d testscripts below %s", len(goFiles),
			len(texts), len(scripts), root)
	}
	for _, kind := range []struct {
		names []string
		check func(name, text string) []finding
	}{{texts, textIdioms}, {scripts, scriptComments}} {
		for _, name := range kind.names {
			text, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range kind.check(name, string(text)) {
				t.Error(f)
			}
		}
	}
	for _, name := range goFiles {
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

// files returns the module's Go files, the files whose text a user or a newcomer reads (Markdown,
// scripts and the Makefile), and the testscripts. The names are paths from the module's root.
func files(t *testing.T) (goFiles, texts, scripts []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := name != "." && name != ".ci" && strings.HasPrefix(d.Name(), ".")
		if d.IsDir() && (hidden || name == "bin") {
			return fs.SkipDir
		}
		dir := path.Dir(name)
		switch ext := path.Ext(name); {
		case !d.Type().IsRegular():
		case ext == ".txtar":
			scripts = append(scripts, name)
		case strings.Contains(name, "testdata/"):
		case ext == ".go":
			goFiles = append(goFiles, name)
		case ext == ".md", ext == ".sh", name == "Makefile", dir == "scripts", dir == ".ci",
			name == "test/run/skips":
			texts = append(texts, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return goFiles, texts, scripts
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
		var text strings.Builder
		line := s.fset.Position(group.Pos()).Line
		for _, c := range group.List {
			text.WriteString(strings.TrimLeft(c.Text, "/") + "\n")
		}
		found = append(found, phrases(s.name, line, text.String(), oldIdiom, commentIdiom)...)
	}
	return found
}

// messages finds idioms in the strings of the program, such as errors, warnings, help and reports.
// A string without a space is a name, such as the user nobody.
func messages(s *source) []finding {
	if strings.HasSuffix(s.name, "_test.go") {
		return nil
	}
	var found []finding
	ast.Inspect(s.file, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING &&
			strings.Contains(l.Value, " ") {
			line := s.fset.Position(l.Pos()).Line
			found = append(found, phrases(s.name, line, l.Value, oldIdiom, userIdiom)...)
		}
		return true
	})
	return found
}

var (
	// quoted matches code in a line of Markdown.
	quoted = regexp.MustCompile("`[^`]*`")
	// indentation matches the end of a line and the white space after it.
	indentation = regexp.MustCompile(`\n[ \t]+`)
)

// textIdioms finds idioms in a Markdown file, outside of code, or in the comments of a script.
func textIdioms(name, text string) []finding {
	markdown := path.Ext(name) == ".md"
	var prose strings.Builder // as many lines as text
	fenced := false
	for line := range strings.Lines(text) {
		switch {
		case !markdown:
			if _, comment, ok := strings.Cut(line, "#"); ok {
				prose.WriteString(comment)
				continue
			}
		case strings.HasPrefix(line, "```"):
			fenced = !fenced
		case !fenced && !strings.HasPrefix(line, "    "):
			prose.WriteString(quoted.ReplaceAllString(line, "`"))
			continue
		}
		prose.WriteByte('\n')
	}
	return phrases(name, 1, prose.String(), oldIdiom, userIdiom)
}

// scriptComments finds idioms and long lines in the comments of a testscript. The files of the
// archive after the script are test data and have no rules.
func scriptComments(name, text string) []finding {
	var prose strings.Builder // as many lines as the script
	var found []finding
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "-- ") && strings.HasSuffix(line, " --") {
			break
		}
		if comment, ok := strings.CutPrefix(line, "#"); ok {
			prose.WriteString(comment)
			if w := columns(line); w > maxColumns {
				found = append(found, longLine(name, n, w))
			}
		}
		prose.WriteByte('\n')
	}
	return append(found, phrases(name, 1, prose.String(), oldIdiom, commentIdiom)...)
}

// phrases returns a finding for each match of the expressions in a text that begins in a line of a
// file. A phrase may be divided by the end of a line.
func phrases(name string, line int, text string, idioms ...*regexp.Regexp) []finding {
	text = indentation.ReplaceAllString(strings.ReplaceAll(text, userNobody, ""), "\n")
	joined := strings.ReplaceAll(text, "\n", " ")
	var found []finding
	seen := map[int]bool{} // where the phrases begin
	for _, idiom := range idioms {
		for _, at := range idiom.FindAllStringIndex(joined, -1) {
			if seen[at[0]] {
				continue
			}
			seen[at[0]] = true
			found = append(found, finding{
				token.Position{Filename: name, Line: line + strings.Count(text[:at[0]], "\n")},
				fmt.Sprintf("replace %q: name who acts, in plain words (a function "+
					"\"reports whether\", an error \"is returned when\")",
					joined[at[0]:at[1]])})
		}
	}
	return found
}

// longLines finds lines that are too long. A string with spaces can be divided, or begin the next
// line. So a long line is permitted only
//   - within a raw string of several lines,
//   - in a test, if it has an element of a table (a composite literal) that is a string, and
//   - if it has a string that does not fit a line, and that is raw, has no space or is in a test.
func longLines(s *source) []finding {
	lines := strings.Split(s.text, "\n")
	permitted := map[int]bool{}
	test := isTest(s.name)
	ast.PreorderStack(s.file, nil, func(n ast.Node, parents []ast.Node) bool {
		l, ok := n.(*ast.BasicLit)
		if !ok || l.Kind != token.STRING {
			return true
		}
		first, last := s.fset.Position(l.Pos()).Line, s.fset.Position(l.End()).Line
		for i := first; i <= last && first < last; i++ {
			permitted[i] = true
		}
		whole := test || l.Value[0] == '`' || !strings.Contains(l.Value, " ")
		line := lines[first-1]
		tabs := line[:len(line)-len(strings.TrimLeft(line, "\t"))]
		if whole && columns(tabs+l.Value+",") > maxColumns || test && isElement(parents) {
			permitted[first] = true
		}
		return true
	})
	var found []finding
	for i, line := range lines {
		if w := columns(line); w > maxColumns && !permitted[i+1] {
			found = append(found, longLine(s.name, i+1, w))
		}
	}
	return found
}

// isTest reports whether a file belongs to tests only.
func isTest(name string) bool {
	return strings.HasSuffix(name, "_test.go") || in(name, "test")
}

// isElement reports whether an expression, or the sum of strings that it is part of, is an element
// of a composite literal. parents are the nodes above it, the innermost last.
func isElement(parents []ast.Node) bool {
	for _, p := range slices.Backward(parents) {
		switch p.(type) {
		case *ast.BinaryExpr:
		case *ast.CompositeLit, *ast.KeyValueExpr:
			return true
		default:
			return false
		}
	}
	return false
}

// longLine returns the finding for the line n of a file, which has w columns.
func longLine(name string, n, w int) finding {
	return finding{token.Position{Filename: name, Line: n},
		fmt.Sprintf("break the line: it has %d columns, more than %d (a tab counts %d)", w,
			maxColumns, tabColumns)}
}

// columns returns the width of a line.
func columns(line string) int {
	return utf8.RuneCountInString(line) + strings.Count(line, "\t")*(tabColumns-1)
}

// oldName finds a file with one of the oldNames.
func oldName(s *source) []finding {
	if word, ok := oldNames[path.Base(s.name)]; ok {
		return []finding{{token.Position{Filename: s.name, Line: 1},
			"rename the file after its content: " + word}}
	}
	return nil
}

// TestTextIdioms plants idioms in texts.
func TestTextIdioms(t *testing.T) {
	tests := []struct {
		name, file, text string
		want             []string // the lines and phrases
	}{
		{"table", "docs/A.md", "# A\n| a | says why |\n", []string{"2 says"}},
		{"divided phrase", "README.md", "- It is\n  one's\n  own.\n", []string{"2 one's own"}},
		{"code", "README.md", "`f knows` it\n\n    f knows\n```\nf knows\n```\n", nil},
		{"after code", "a/README.md", "```\na\n```\nWhoever does\nnot know\n",
			[]string{"4 Whoever", "4 does not know"}},
		{"honest", "README.md", "It is no longer the user nobody. You may want to know.\n", nil},
		{"script", "scripts/a", "echo nobody # f tells\n# a\n", []string{"1 tells"}},
		{"Makefile", "Makefile", "a: # of somebody\n\tsays b\n", []string{"1 somebody"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, f := range textIdioms(tt.file, tt.text) {
				_, phrase, _ := strings.Cut(f.advice, `"`)
				phrase, _, _ = strings.Cut(phrase, `"`)
				got = append(got, fmt.Sprintf("%d %s", f.pos.Line, phrase))
				if f.pos.Filename != tt.file {
					t.Errorf("found in %s, want %s", f.pos.Filename, tt.file)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestScriptComments plants faults in a testscript.
func TestScriptComments(t *testing.T) {
	long := "#" + strings.Repeat("x", maxColumns)
	tests := []struct {
		name, text string
		want       []string
	}{
		{"idiom", "exec true\n# f says\n# whether it is.\n",
			[]string{`a.txtar:2: replace "says whether": name who acts, in plain words (a function "reports whether", an error "is returned when")`}},
		{"a clause for a noun", "# f removes what\n# follows.\n",
			[]string{`a.txtar:1: replace "what follows": name who acts, in plain words (a function "reports whether", an error "is returned when")`}},
		{"two comments", "# f says\nexec true\n# whether it is.\n", nil},
		{"command", "stderr 'says whether # nobody'\n", nil},
		{"file", "exec true\n-- Dockerfile --\n# f says whether it is.\n" + long + "\n", nil},
		{"long comment", "# f\n" + long[1:] + "x\n" + long + "\n",
			[]string{"a.txtar:3: break the line: it has 101 columns, more than 100 (a tab counts 4)"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, f := range scriptComments("a.txtar", tt.text) {
				got = append(got, f.String())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestFindings plants a fault in a file for each rule of the checks.
func TestFindings(t *testing.T) {
	long := strings.Repeat("x", maxColumns-len("// ")+1)
	words := strings.Repeat("word ", maxColumns/5)
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
		{"divided idiom", idioms, "a.go", "/* f is\n   or says\n   whether */\nfunc f() {}\n\n// it is no\n// error",
			[]string{
				`a.go:4: replace "says whether": name who acts, in plain words (a function "reports whether", an error "is returned when")`,
				`a.go:8: replace "it is no error": name who acts, in plain words (a function "reports whether", an error "is returned when")`,
			}},
		{"a clause for a noun", idioms, "a.go", "// f removes what it is\n// and what\n// follows.\nfunc f() {}",
			[]string{
				`a.go:3: replace "what it is": name who acts, in plain words (a function "reports whether", an error "is returned when")`,
				`a.go:4: replace "what follows": name who acts, in plain words (a function "reports whether", an error "is returned when")`,
			}},
		{"a label for a sentence", idioms, "a_test.go", "// TestF: it works.\nfunc TestF() {}",
			[]string{`a_test.go:3: replace " TestF:": name who acts, in plain words (a function "reports whether", an error "is returned when")`}},
		{"a clause in a message", messages, "a.go", "var a = \"that is what follows\"", nil},
		{"error", messages, "a.go", "var a = errors.New(\"f cannot \" +\n\t\"say where\")",
			[]string{`a.go:4: replace "say where": name who acts, in plain words (a function "reports whether", an error "is returned when")`}},
		{"help", messages, "a.go", "var a = `F a file\nthat f knows`",
			[]string{`a.go:4: replace "knows": name who acts, in plain words (a function "reports whether", an error "is returned when")`}},
		{"honest message", messages, "a.go",
			"var a, b = \"the root is no longer a directory; it has no known name\", \"nobody\"", nil},
		{"message of a test", messages, "a_test.go", "var a = \"f says so\"", nil},
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
		{"a message", longLines, "a.go", "var a = f(\"" + words + "\")",
			[]string{"a.go:3: break the line: it has 113 columns, more than 100 (a tab counts 4)"}},
		{"a long string without a space", longLines, "a.go", "var a = \"" + long + "\"", nil},
		{"a long raw string", longLines, "a.go", "var a = `" + words + "`", nil},
		{"a raw string that fits the next line", longLines, "a.go",
			"var a = f(`" + words[20:] + "`) + " + strings.Repeat("a", 20),
			[]string{"a.go:3: break the line: it has 116 columns, more than 100 (a tab counts 4)"}},
		{"a raw string of several lines", longLines, "a.go", "var a = `\n" + words + "`", nil},
		{"a message of a test", longLines, "a_test.go", "var a = f(\"" + words[20:] + "\", 1)+" +
			strings.Repeat("a", 20),
			[]string{"a_test.go:3: break the line: it has 117 columns, more than 100 (a tab counts 4)"}},
		{"a string of a test that does not fit", longLines, "a_test.go", "var a = f(\"" + words + "\")", nil},
		{"a table of a test", longLines, "test/a/a.go",
			"var a = t{{b, \"" + words[20:] + "\" + c, d}, " + strings.Repeat("a", 20) + "}", nil},
		{"a table", longLines, "a.go", "var a = t{{b: \"" + words + "\"}}",
			[]string{"a.go:3: break the line: it has 118 columns, more than 100 (a tab counts 4)"}},
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
