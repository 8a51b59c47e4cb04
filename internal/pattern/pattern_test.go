package pattern

import (
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/moby/patternmatcher"
)

// documented implements the documentation of path/filepath.Match and of "**" by trying all
// possibilities. It shares no code with the package. p must be valid.
func documented(p, s string) bool {
	if end, ok := strings.CutPrefix(p, "**"); ok && end != "" && end[0] != '/' &&
		!strings.ContainsAny(end, `*?[\`) {
		return strings.HasSuffix(s, end)
	}
	return component(p, s)
}

func component(p, s string) bool {
	switch {
	case p == "":
		return s == ""
	case p == "**" || p == "**/":
		return true
	case strings.HasPrefix(p, "**"): // any number of directories, including none
		p = strings.TrimPrefix(p[2:], "/")
		if component(p, s) {
			return true
		}
		for i := range len(s) {
			if s[i] == '/' && component(p, s[i+1:]) {
				return true
			}
		}
		return false
	case p[0] == '*': // any sequence of characters other than a slash
		for i := 0; ; i++ {
			if component(p[1:], s[i:]) {
				return true
			}
			if i == len(s) || s[i] == '/' {
				return false
			}
		}
	}
	if s == "" {
		return false
	}
	r, size := utf8.DecodeRuneInString(s)
	switch p[0] {
	case '?':
		return r != '/' && component(p[1:], s[size:])
	case '[':
		in, rest := documentedClass(p[1:], r)
		return in && component(rest, s[size:])
	case '\\':
		p = p[1:]
	}
	return p[0] == s[0] && component(p[1:], s[1:])
}

// documentedClass reports whether r is in the class at the beginning of p, which is the pattern
// after the opening bracket.
func documentedClass(p string, r rune) (in bool, rest string) {
	negated := strings.HasPrefix(p, "^")
	if negated {
		p = p[1:]
	}
	next := func() rune {
		if p[0] == '\\' {
			p = p[1:]
		}
		c, size := utf8.DecodeRuneInString(p)
		p = p[size:]
		return c
	}
	for first := true; first || p[0] != ']'; first = false {
		lo := next()
		hi := lo
		if p[0] == '-' {
			p = p[1:]
			hi = next()
		}
		in = in || lo <= r && r <= hi
	}
	return in != negated, p[1:]
}

func TestMatch(t *testing.T) {
	tests := []struct {
		pattern    string
		match, not string // names, separated by spaces
	}{
		{"a.b", "a.b", "axb"},
		{"a$", "a$", "a"},
		{"^a", "^a", "a"},
		{"a^b*", "a^b a^bc", "ab"},
		{"a+b", "a+b", "aab ab"},
		{"(a|b)", "(a|b)", "a b"},
		{"x{2}*", "x{2} x{2}y", "xx"},
		{"]*", "] ]a", "a"},
		{`\d`, "d", "1 \\d"},
		{`\w*`, "w wx", "a"},
		{`a\*b`, "a*b", "axb"},
		{`\[a]`, "[a]", "a"},
		{`**/\d`, "d x/d", "1 x/1"},
		{"[a-c]", "a b c", "d -"},
		{"[^a]", "b -", "a"},
		{`[\]]`, "]", "["},
		{`[\-x]`, "- x", "y"},
		{"[[:alpha:]]", "a]", "x b"}, // a class of the characters "[:alph", and a bracket
		{`[\d]`, "d", "1"},
		{"[a&&b]", "a & b", "c"},
		{"**/[é-ü]", "ö x/ö", "o x/o"},
		{"?", "a é \xff", "ab"},
		{"**/?x", "éx a/\xffx", "ééx"},
		{"é*", "é éa", "e"},
		{"\xff*", "\xff \xffa", "\ufffd a"},
		{"\ufffd", "\ufffd", "\xff"},
		{"#a", "#a", "a"},
		{"~", "~", "x"},
		{"a,b", "a,b", "a b"},
		{"*.go", "x.go .go", "a/x.go xgo"},
		{"**/*.go", "x.go a/x.go a/b/x.go", "xgo"},
		{"**.go", "x.go a/x.go .go", "x.goo"},
		{"**b**", "b bc x/b/c", "acb acb/d"},
		{"**", "a a/b", ""},
		{"a/**", "a/b a/b/c", "a ab"},
		{"a/**/b", "a/b a/x/b a/x/y/b", "ab axb a/xb"},
		{"a**b", "ab a/b ax/b", "axb ax/yb a abc"},
		{"a**/b", "a/b ax/b a/x/b ab", "axb"},
		{"**/a/**", "a/b x/a/b", "a x/a"},
		{"***", "a a/b", ""},
		{"a?/**/*.[ch]", "ab/x.c ab/d/e.h", "a/x.c ab/x.o"},
	}
	for _, tt := range tests {
		m, err := New([]string{tt.pattern})
		if err != nil {
			t.Errorf("%q: %v", tt.pattern, err)
			continue
		}
		for want, names := range map[bool]string{true: tt.match, false: tt.not} {
			for _, name := range strings.Fields(names) {
				if got, _ := m.Match(name, Matched{}); got != want {
					t.Errorf("%q matches %q: %v, want %v", tt.pattern, name, got, want)
				}
				if strings.Contains(tt.pattern, "**") {
					if got := documented(tt.pattern, name); got != want {
						t.Errorf("%q matches %q by the documentation: %v, want %v",
							tt.pattern, name, got, want)
					}
				}
			}
		}
	}
}

func TestLists(t *testing.T) {
	tests := []struct {
		patterns, name string
		want           bool
		decides        string
	}{
		{"a", "a/b", true, "a"},
		{"*\n!a", "a/b", false, "!a"},
		{"*\n!a\na/b", "a/b/c", true, "a/b"},
		{"a/b\n!a", "a/b/c", true, "a/b"},
		{"a/b\n!a/**", "a/b/c", false, "!a/**"},
		{"a/**/c\n!a", "a/b/c", true, "a/**/c"},
		{"!a\na", "a", true, "a"},
		{"*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true, "README-secret.md"},
		{"*.md\nREADME-secret.md\n!README*.md", "README-secret.md", false, "!README*.md"},
		{"b", "a", false, ""},
		{"!b", "b", false, ""},
	}
	for _, tt := range tests {
		m, err := New(strings.Split(tt.patterns, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := m.Path(tt.name); got != tt.want {
			t.Errorf("%q select %q: %v, want %v", tt.patterns, tt.name, got, tt.want)
		}
		if got := m.Decides(tt.name); got != tt.decides {
			t.Errorf("%q: %q decides about %q, want %q", tt.patterns, got, tt.name, tt.decides)
		}
	}
}

func TestNewErrors(t *testing.T) {
	for pattern, want := range map[string]string{
		"[":     `pattern "[": syntax error in pattern`,
		"a/[]":  `pattern "a/[]": syntax error in pattern`,
		`**\`:   `pattern "**\\": syntax error in pattern`,
		"!":     `illegal exclusion pattern: "!"`,
		"a\x00": `pattern "a\x00": no name has a zero byte in it (is the file UTF-16?)`,
	} {
		if _, err := New([]string{"a", pattern}); err == nil || err.Error() != want {
			t.Errorf("New(%q): error %v, want %s", pattern, err, want)
		}
	}
	if m, err := New(nil); m != nil || err != nil {
		t.Errorf("New(nil) = %v, %v", m, err)
	}
}

// Patterns that are slow for backtracking matchers are fast.
func TestHostile(t *testing.T) {
	for _, p := range []string{strings.Repeat("*a", 500) + "b", strings.Repeat("**a", 500) + "b",
		strings.Repeat("**/*", 300) + "b", strings.Repeat("**/a", 300)} {
		m, err := New([]string{p})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{strings.Repeat("a", 4000), strings.Repeat("a/", 2000) + "a"} {
			m.Path(name[:255])
			m.Match(name, Matched{})
		}
	}
}

var seeds = []string{
	"a", "*", "**", "a/**", "**/a", "*.go", "a/**/b*", "**a", "a**", "a**/b", "a?", "[ab]c", "a|b*",
	"x{2}*", "a^*", "a\\*b", "***", "**/**/x", "é?", "a//b",
	"?*?", "*.*", "a/*?*/b", "**?b", "]*", "[^a]**", "**[a/b]c", "[[:alpha:]]**", `\d**`, "\xff**",
	"**/[^/]", "**\xff", "[\xff-\xff]**", "!a", "**/!a", " a ", "a\\/**",
}

// FuzzMatch compares the result for a pattern with that of documented or, if the pattern has no
// "**", of path/filepath.Match.
func FuzzMatch(f *testing.F) {
	for _, s := range seeds {
		f.Add(s, "a/b/c.go")
		f.Add(s, strings.Trim(strings.NewReplacer("*", "a", "?", "é", "[", "").Replace(s), "/"))
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 24 || len(name) > 24 || name == "" || strings.Contains(name, "\x00") {
			return
		}
		m, err := New([]string{pattern})
		if err != nil || m == nil || len(m.rules) == 0 || m.rules[0].exception {
			return
		}
		got, _ := m.Match(name, Matched{})
		clean := m.rules[0].text
		want := false
		if m.rules[0].tokens != nil {
			want = documented(clean, name)
		} else if want, err = filepath.Match(clean, name); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%q matches %q: %v, want %v", clean, name, got, want)
		}
		for dir := filepath.Dir(name); got && dir != "." && dir != "/"; dir = filepath.Dir(dir) {
			if filepath.Clean(name) == name && !m.SelectsBelow(dir) {
				t.Errorf("%q matches %q, and is said to match nothing below %q", clean, name, dir)
			}
		}
	})
}

// FuzzList compares the result for a list with that of BuildKit's matcher, for patterns without
// characters that have another meaning in regular expressions.
func FuzzList(f *testing.F) {
	for _, s := range seeds {
		f.Add(s, "a/b/c.go")
		f.Add("!x\n"+s+"\n!**/b", "a/b")
		f.Add("a/b\n!a\n"+s, "a/b/c")
		f.Add("*\n!"+s, strings.Trim(strings.NewReplacer("*", "a", "?", "é", "[", "").Replace(s),
			"/"))
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		if name = strings.Trim(filepath.Clean("/"+name), "/"); name == "" ||
			len(text)+len(name) > 500 || strings.ContainsAny(text, "[]^\\$+(){}|\x00\r") ||
			!utf8.ValidString(text) || !utf8.ValidString(name) || strings.Contains(name, "\n") {
			return
		}
		lines := strings.Split(text, "\n")
		m, err := New(lines)
		if err != nil || m == nil {
			return
		}
		theirs, err := patternmatcher.New(lines)
		if err != nil {
			t.Fatalf("%q: patternmatcher: %v", text, err)
		}
		var want bool
		var info patternmatcher.MatchInfo
		for k := range len(name) + 1 {
			if k < len(name) && name[k] != '/' {
				continue
			}
			if want, info, err = theirs.MatchesUsingParentResults(name[:k], info); err != nil {
				t.Fatal(err)
			}
		}
		if got, _ := m.Path(name); got != want {
			t.Errorf("%q select %q: %v, want %v", text, name, got, want)
		}
	})
}
