package arch

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestArchitecture compares docs/ARCHITECTURE.md with the module: its tables name each package, its
// drawing has the rooms of each floor, and what it names exists.
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
	// code is a text between backquotes.
	code = regexp.MustCompile("`([^`\n]+)`")
	// drawing is the drawing of the floors, from the top down.
	drawing = regexp.MustCompile("(?s)## Rooms\n.*?```\n(.*?)```")
)

// architecture returns what has to be changed in a text of docs/ARCHITECTURE.md.
func architecture(text string, rooms []string, floors []floor, exists func(string) bool) []string {
	const doc = "docs/ARCHITECTURE.md"
	var problems []string
	named := map[string]bool{} // in the first cell of a table's row
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
			problems = append(problems, doc+": no table has a row for `"+room+"`: add one that says what the package does")
		}
	}
	mentioned := map[string]bool{}
	for _, m := range code.FindAllStringSubmatch(text, -1) {
		mentioned[m[1]] = true
	}
	for _, name := range slices.Sorted(maps.Keys(mentioned)) {
		first, _, inside := strings.Cut(name, "/")
		if inside && top[first] && !strings.Contains(name, " ") && !exists(name) {
			problems = append(problems, doc+" names `"+name+"`, which does not exist: remove or correct it")
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
		problems = append(problems, doc+": the drawing of the rooms differs from floors (internal/arch/rooms_test.go). It is:\n"+want.String())
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
	good := "## Rooms\n```\n" + draw("high", []string{"b"}) + draw("low", []string{"internal/a"}) + "```\n" +
		"| `internal/a` | it |\n| `b` | it |\n"
	exists := func(name string) bool { return name == "internal/a" || name == "b" }
	tests := []struct{ name, text, want string }{
		{"good", good, ""},
		{"prose", good + "See `internal/a`.\n", ""},
		{"a row is missing", strings.Replace(good, "| `b`", "| b", 1), "docs/ARCHITECTURE.md: no table has a row for `b`"},
		{"a row for no package", good + "| `internal/c` | it |\n", "docs/ARCHITECTURE.md names `internal/c`, which does not exist"},
		{"prose about no package", good + "See `internal/c`.\n", "docs/ARCHITECTURE.md names `internal/c`, which does not exist"},
		{"drawing", strings.Replace(good, "internal/a\n", "a\n", 1), "docs/ARCHITECTURE.md: the drawing of the rooms differs"},
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
