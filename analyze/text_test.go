package analyze

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// TestWrapped wraps sentences at words, and never within a command.
func TestWrapped(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "  → \n"},
		{"leave it out", "  → leave it out\n"},
		{"leave out the RUN at line 5", "  → leave out the\n    RUN at line 5\n"},
		{"write ‘rm -rf /var/lib/apt/lists’ instead", "  → write\n" +
			"    ‘rm -rf /var/lib/apt/lists’\n    instead\n"},
		{"append ‘&& rm -r /x’; leave (‘a b c d e’)", "  → append\n    ‘&& rm -r /x’;\n" +
			"    leave\n    (‘a b c d e’)\n"},
		{"run ‘echo it’s 10 o’clock now’ again", "  → run\n    ‘echo it’s 10 o’clock now’\n" +
			"    again\n"},
		{"the COPY at line 12", "  → the COPY at\n    line 12\n"},
		{"add --exclude=a to it", "  → add --exclude=a\n    to it\n"},
		{"use RUN --mount=type=tmpfs at", "  → use\n    RUN --mount=type=tmpfs\n    at\n"},
		{"/a/path/of/thirty/characters/x and", "  → /a/path/of/thirty/characters/x\n    and\n"},
		{"it’s a word of 20 columns", "  → it’s a word of\n    20 columns\n"},
		{"/twelve/char  (it is cache)", "  → /twelve/char\n    (it is cache)\n"},
		{"ééééé ééééé ééé", "  → ééééé ééééé ééé\n"},
		{"a ‘command without end and", "  → a\n    ‘command without end and\n"},
	} {
		var b strings.Builder
		p := &printer{w: &b}
		if p.wrapped("  → ", tt.text, 20); b.String() != tt.want || p.err != nil {
			t.Errorf("%q: %q, %v, want %q", tt.text, b.String(), p.err, tt.want)
		}
	}
}

// TestTextWidth looks at the lines of a report that are wrapped: they fit the width, unless they
// are a single phrase, and together they have the remedy.
func TestTextWidth(t *testing.T) {
	const remedy = "append ‘&& rm -rf /var/lib/apt/lists /var/cache/apt/archives /root/.pip’ " +
		"to the RUN at line 3; use RUN --mount=type=cache,target=/var/cache/apt at line 4 and " +
		"line 6; add ‘**/node_modules’ to .dockerignore, because no instruction needs it"
	const sentence = "/usr/share/some/file: the layer at line 12 has a hard link to a file that " +
		"no layer below it has, so that the link is left out of the final file system"
	r := &Report{Image: "app", Layers: []Layer{{}},
		Instructions:   []Instruction{{Text: "RUN " + strings.Repeat("make ", 30), Line: 3}},
		Findings:       []Finding{{Path: "/a", Bytes: 10, Remedy: remedy}},
		Debris:         []Debris{{Path: "/usr/share/doc", Bytes: 5, Files: 20, Remedy: remedy}},
		DuplicateBytes: 4, Duplicates: []Duplicate{{Size: 4, Extra: 4, Copies: 2,
			Paths:  []string{"/opt/one/of/them/with/a/long/name", "/srv/the/other/with/one"},
			Remedy: remedy}},
		Warnings: []string{"warn " + sentence},
		Gate:     &Gate{Failures: []string{"fail " + sentence}}}
	for _, width := range []int{0, 50, 80, 120} {
		var b strings.Builder
		if err := r.WriteText(&b, TextOptions{Width: width}); err != nil {
			t.Fatal(err)
		}
		limit := width
		if width == 0 {
			limit = 80
		}
		_, text, _ := strings.Cut(b.String(), "  /a\n")
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if utf8.RuneCountInString(line) > limit && len(phrases(strings.TrimSpace(line))) > 1 {
				t.Errorf("width %d: a line of %d columns: %s", width,
					utf8.RuneCountInString(line), line)
			}
		}
		whole := strings.Join(strings.Fields(text), " ")
		if n := strings.Count(whole, "→ "+remedy); n != 3 {
			t.Errorf("width %d: %d whole remedies, want 3:\n%s", width, n, text)
		}
		for _, want := range []string{"warning: warn ", "gate: fail "} {
			if !strings.Contains(whole, want+sentence) {
				t.Errorf("width %d: no %q:\n%s", width, want+sentence, text)
			}
		}
		if !strings.Contains(text, "‘&& rm -rf /var/lib/apt/lists /var/cache/apt/archives ") {
			t.Errorf("width %d: a command is broken:\n%s", width, text)
		}
	}
}
