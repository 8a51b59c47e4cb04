package arch

import (
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestArchitecture compares docs/ARCHITECTURE.md with the module: its tables must list each
// package, its drawing must have the rooms of each floor, and all packages and files that it names
// must exist.
func TestArchitecture(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	var rooms []string
	for _, p := range packages(t) {
		rooms = append(rooms, p.room())
	}
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(root, name))
		return err == nil
	}
	for _, problem := range architecture(string(text), rooms, floors, exists) {
		t.Error(problem)
	}
}

var (
	// code matches a text between backquotes.
	code = regexp.MustCompile("`([^`\n]+)`")
	// drawing matches the drawing of the floors, from the top down.
	drawing = regexp.MustCompile("(?s)## Rooms\n.*?```\n(.*?)```")
)

// architecture returns the changes that a text of docs/ARCHITECTURE.md needs.
func architecture(text string, rooms []string, floors []floor, exists func(string) bool) []string {
	const doc = "docs/ARCHITECTURE.md"
	var problems []string
	named := map[string]bool{} // named in the first cell of a table's row
	for line := range strings.Lines(text) {
		if cells := strings.Split(line, "|"); len(cells) > 2 && cells[0] == "" {
			for _, m := range code.FindAllStringSubmatch(cells[1], -1) {
				named[m[1]] = true
			}
		}
	}
	top := map[string]bool{} // the directories of the module that have packages
	for _, room := range rooms {
		first, _, _ := strings.Cut(room, "/")
		top[first] = true
		if !named[room] {
			problems = append(problems, doc+": no table has a row for `"+room+
				"`: add one that says what the package does")
		}
	}
	mentioned := map[string]bool{}
	for _, m := range code.FindAllStringSubmatch(text, -1) {
		mentioned[m[1]] = true
	}
	for _, name := range slices.Sorted(maps.Keys(mentioned)) {
		first, _, inside := strings.Cut(name, "/")
		if inside && top[first] && !strings.Contains(name, " ") && !exists(name) {
			problems = append(problems, doc+" names `"+name+
				"`, which does not exist: remove or correct it")
		}
	}

	var want strings.Builder
	for _, f := range slices.Backward(floors) {
		var names []string
		for _, a := range f.rooms {
			names = append(names, a.room)
		}
		want.WriteString(draw(f.name, names))
	}
	if m := drawing.FindStringSubmatch(text); m == nil || m[1] != want.String() {
		problems = append(problems, doc+
			": the drawing of the rooms differs from floors (internal/arch/rooms_test.go). It is:\n"+want.String())
	}
	return problems
}

// draw returns the lines of a floor.
func draw(name string, rooms []string) string {
	const indent = 18
	var b strings.Builder
	line := name + strings.Repeat(" ", indent-len(name))
	for i, room := range rooms {
		if i > 0 && len(line)+1+len(room) > maxColumns {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = strings.Repeat(" ", indent)
		}
		line += room + " "
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
	return b.String()
}

// TestArchitectureFindings plants a fault for each rule.
func TestArchitectureFindings(t *testing.T) {
	plan := []floor{{"low", []allowed{{"internal/a", ""}}}, {"high", []allowed{{"b", ""}}}}
	good := "## Rooms\n```\n" + draw("high", []string{"b"}) + draw("low", []string{"internal/a"}) +
		"```\n" +
		"| `internal/a` | it |\n| `b` | it |\n"
	exists := func(name string) bool { return name == "internal/a" || name == "b" }
	tests := []struct{ name, text, want string }{
		{"good", good, ""},
		{"prose", good + "See `internal/a`.\n", ""},
		{"a row is missing", strings.Replace(good, "| `b`", "| b", 1),
			"docs/ARCHITECTURE.md: no table has a row for `b`"},
		{"a row for no package", good + "| `internal/c` | it |\n",
			"docs/ARCHITECTURE.md names `internal/c`, which does not exist"},
		{"prose about no package", good + "See `internal/c`.\n",
			"docs/ARCHITECTURE.md names `internal/c`, which does not exist"},
		{"drawing", strings.Replace(good, "internal/a\n", "a\n", 1),
			"docs/ARCHITECTURE.md: the drawing of the rooms differs"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := architecture(tt.text, []string{"b", "internal/a"}, plan, exists)
			if tt.want == "" && got == nil {
				return
			}
			if len(got) != 1 || tt.want == "" || !strings.HasPrefix(got[0], tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestPackagesAreDocumented reads the doc.go of each package, which describes the purpose, the
// imports, the side effects and the tests of the package.
func TestPackagesAreDocumented(t *testing.T) {
	list := packages(t)
	all := map[string]bool{}
	for _, p := range list {
		all[p.room()] = true
	}
	for _, p := range list {
		text := packageComment(t, p.Dir, "doc.go")
		if text == "" {
			t.Errorf("%s/doc.go: write a package comment, in the manner of the other packages",
				p.room())
			continue
		}
		for _, name := range p.GoFiles {
			if name != "doc.go" && packageComment(t, p.Dir, name) != "" {
				t.Errorf("%s/%s: move the package comment to doc.go", p.room(), name)
			}
		}
		d := door{room: p.room(), text: text, imports: rooms(p.room(), p.Imports),
			tested: len(p.TestGoFiles)+len(p.XTestGoFiles) > 0}
		if in(p.room(), "test") {
			d.imports = rooms(p.room(), slices.Concat(p.Imports, p.TestImports, p.XTestImports))
		}
		for _, name := range p.GoFiles {
			d.calls = d.calls || len(systemCalls(t, filepath.Join(p.Dir, name))) > 0
		}
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			d.fuzz = append(d.fuzz, fuzzTargets(t, filepath.Join(p.Dir, name))...)
		}
		for _, problem := range d.problems(all) {
			t.Errorf("%s/doc.go: %s", p.room(), problem)
		}
	}
}

// packageComment returns the package comment of a file, "" if there is no such file.
func packageComment(t *testing.T, dir, name string) string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil,
		parser.PackageClauseOnly|parser.ParseComments)
	if os.IsNotExist(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return file.Doc.Text()
}

// fuzzFunc matches the declaration of a fuzz target.
var fuzzFunc = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

func fuzzTargets(t *testing.T, path string) (names []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range fuzzFunc.FindAllSubmatch(text, -1) {
		names = append(names, string(m[1]))
	}
	return names
}

// A door is a package comment, with the facts that it must state.
type door struct {
	room    string
	text    string
	imports []string // the rooms that the package imports
	tested  bool     // the package has tests of its own
	fuzz    []string // the package's fuzz targets
	calls   bool     // the package makes system calls
}

var (
	importsSentence = regexp.MustCompile(`It imports ([^.]*)\.`)
	testCommand     = regexp.MustCompile(`go test((?: \./[a-z/]*[a-z])+)`)
	callsWords      = regexp.MustCompile(`[Ii]t makes (?:system calls|(?:the|one) system call)`)
	fuzzWord        = regexp.MustCompile(`\bFuzz[A-Z]\w*`)
)

// problems returns the changes that the comment needs. all has the rooms of the module.
func (d door) problems(all map[string]bool) (list []string) {
	text := strings.Join(strings.Fields(d.text), " ")
	name := filepath.Base(d.room)
	if !strings.HasPrefix(text, "Package "+name+" ") &&
		!strings.HasPrefix(text, "Command "+name+" ") {
		list = append(list, `begin with "Package `+name+`" and what it is for`)
	}

	var short []string
	for _, imp := range d.imports {
		short = append(short, strings.TrimPrefix(strings.TrimPrefix(imp, "internal/"), "test/"))
	}
	want := "no other package of the module"
	if n := len(short); n == 1 {
		want = short[0]
	} else if n > 1 {
		want = strings.Join(short[:n-1], ", ") + " and " + short[n-1]
	}
	m := importsSentence.FindStringSubmatch(text)
	// A long list may be in the table alone.
	if m == nil || m[1] != want && (len(short) < 10 ||
		m[1] != "the packages that internal/arch lists") {
		list = append(list, `write "It imports `+want+
			`.", and whether it makes system calls, starts processes, uses the network, and what it writes to`)
	}

	if calls := callsWords.MatchString(text); calls && !d.calls {
		list = append(list, "the package makes no system calls: correct the comment")
	} else if !calls && d.calls {
		list = append(list, `write "It makes system calls", and what for`)
	}

	commands := testCommand.FindAllStringSubmatch(text, -1)
	own := false
	for _, c := range commands {
		for _, path := range strings.Fields(c[1]) {
			room := strings.TrimPrefix(path, "./")
			own = own || room == d.room
			if !all[room] {
				list = append(list, "there is no package to test in "+path)
			}
		}
	}
	if len(commands) == 0 || d.tested && !own {
		list = append(list, `write "To test it, run go test ./`+d.room+
			`" (or what tests it), and whether that needs root`)
	}

	var named []string
	for _, f := range fuzzWord.FindAllString(text, -1) {
		named = append(named, f)
		if !slices.Contains(d.fuzz, f) {
			list = append(list, "there is no fuzz target "+f)
		}
	}
	for _, f := range d.fuzz {
		if !slices.Contains(named, f) {
			list = append(list, "name the fuzz target "+f)
		}
	}
	return list
}

// TestDoorFindings plants a fault for each rule of package comments.
func TestDoorFindings(t *testing.T) {
	good := door{room: "internal/a", imports: []string{"diff", "internal/b"}, tested: true,
		fuzz: []string{"FuzzA"},
		text: "Package a does it.\n\nIt imports diff and\nb. It only reads.\n\nTo test it, run go test ./internal/a as any user. FuzzA reads all."}
	all := map[string]bool{"internal/a": true, "internal/b": true}
	without := func(old, new string) door {
		d := good
		if d.text = strings.Replace(good.text, old, new, 1); d.text == good.text {
			t.Fatalf("%q is not in the text", old)
		}
		return d
	}
	calls := good
	calls.calls = true
	many := good
	many.imports = strings.Fields("a b c d e f g h i j")
	many.text = without("diff and\nb", "the packages that internal/arch lists").text
	tests := []struct {
		name string
		door door
		want string
	}{
		{"good", good, ""},
		{"many imports", many, ""},
		{"system calls are not named", calls, `write "It makes system calls"`},
		{"other name", without("Package a", "Package b"), `begin with "Package a"`},
		{"no imports", without("It imports", "It uses"), `write "It imports diff and b."`},
		{"an import is missing", without("diff and\nb", "b"), `write "It imports diff and b."`},
		{"few imports, not listed", without("diff and\nb", "the packages that internal/arch lists"),
			`write "It imports diff and b."`},
		{"system calls", without("It only reads", "It makes system calls to read"),
			"the package makes no system calls"},
		{"no command", without("go test", "test"), `write "To test it, run go test ./internal/a"`},
		{"the command tests another", without("./internal/a", "./internal/b"),
			`write "To test it, run go test ./internal/a"`},
		{"the command tests none", without("./internal/a", "./internal/a ./internal/c"),
			"there is no package to test in ./internal/c"},
		{"target not named", without("FuzzA", "Fuzzing"), "name the fuzz target FuzzA"},
		{"target that is gone", without("FuzzA", "FuzzA and FuzzB"),
			"there is no fuzz target FuzzB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.door.problems(all)
			if tt.want == "" && got == nil {
				return
			}
			if len(got) != 1 || tt.want == "" || !strings.HasPrefix(got[0], tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
