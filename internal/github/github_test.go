package github

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

func TestAnnotation(t *testing.T) {
	for _, tt := range []struct {
		a    Annotation
		want string
	}{
		{Annotation{Level: Warning, File: "app/Dockerfile", Line: 3, EndLine: 5, Title: "Rule",
			Message: "text"}, "::warning file=app/Dockerfile,line=3,endLine=5,title=Rule::text\n"},
		{Annotation{Level: Error, Message: "a\nb\r 100% ::x::"}, "::error::a%0Ab%0D 100%25 ::x::\n"},
		{Annotation{Level: Error, File: "a:b,c%d", Line: 1, EndLine: 1},
			"::error file=a%3Ab%2Cc%25d,line=1::\n"},
		{Annotation{Level: Error, File: "-", Line: 3, Message: "no file"}, "::error::no file\n"},
		{Annotation{Level: Error, Title: "::x\n", Message: "m"}, "::error title=%3A%3Ax%0A::m\n"},
	} {
		if got := tt.a.String(); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.a, got, tt.want)
		}
	}
	if got := Group("RUN a\n::x"); got != "::group::RUN a%0A::x\n" {
		t.Errorf("Group: %q", got)
	}
}

func TestInert(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"plain: text :: x ## [a] #[\n", "plain: text :: x ## [a] #[\n"},
		{"::set-output name=a::b\n", ":\\:set-output name=a::b\n"},
		{" \t ::add-mask::b", " \t :\\:add-mask::b"},
		{"a\n::x::\r::y::", "a\n:\\:x::\r:\\:y::"},
		{"#5 0.1 ##[add-mask]b ###[c]", `#5 0.1 ##\[add-mask]b ###\[c]`},
		{"\u00a0\u2003::x", "\u00a0\u2003:\\:x"},
		{"\u00ad:\u00ad:x", "\u00ad:\u00ad\\:x"},
		{"#\u200b#\u200b[x", "#\u200b#\u200b\\[x"},
		{": :x", ": :x"},
		{"", ""},
	} {
		if got := string(Inert([]byte(tt.in))); got != tt.want {
			t.Errorf("Inert(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// commands returns the commands in a text. Like the runner, it takes commands of both forms, and
// because the runner's comparisons may ignore characters, it does so too.
func commands(text string) (found []string) {
	visible := strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || unicode.IsSpace(r) || unicode.IsPrint(r) && !unicode.In(r,
			unicode.Mn, unicode.Me, unicode.Other_Default_Ignorable_Code_Point) {
			return r
		}
		return -1
	}, text)
	for line := range strings.FieldsFuncSeq(visible,
		func(r rune) bool { return r == '\n' || r == '\r' }) {
		if strings.HasPrefix(strings.TrimSpace(line), "::") || strings.Contains(line, "##[") {
			found = append(found, line)
		}
	}
	return found
}

// FuzzWriter writes hostile text in two pieces: no line of the result is a command, and nothing but
// escapes is added.
func FuzzWriter(f *testing.F) {
	for _, s := range []string{"::set-output name=a::b", "##[stop-commands]x", "\r::x", "\x1b::x",
		"#\u00ad#[x", "a\n\u3000::x", "\u00ad:\ufe0f:", "\xff::", "##\x00["} {
		f.Add(s, 1)
	}
	f.Fuzz(func(t *testing.T, s string, cut int) {
		cut = max(0, min(cut, len(s)))
		var b bytes.Buffer
		w := NewWriter(&b)
		for _, piece := range []string{s[:cut], s[cut:]} {
			if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
				t.Fatalf("%d bytes, %v", n, err)
			}
		}
		if found := commands(b.String()); len(found) > 0 {
			t.Errorf("%q has commands: %q", s, found)
		}
		if got := strings.ReplaceAll(b.String(), `\`, ""); got != strings.ReplaceAll(s, `\`, "") {
			t.Errorf("%q became %q", s, b.String())
		}
		if got := Inert([]byte(s)); string(got) != b.String() {
			t.Errorf("%q: Inert returns %q, and a Writer writes %q", s, got, b.String())
		}
		doc, err := json.Marshal(map[string]string{"a": s})
		if err != nil {
			t.Fatal(err)
		}
		b.Reset()
		NewJSONWriter(&b).Write(doc)
		var back, want map[string]string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil {
			t.Fatalf("%s: %v", b.Bytes(), err)
		}
		if err := json.Unmarshal(doc, &want); err != nil || back["a"] != want["a"] {
			t.Errorf("%q became %q", want["a"], back["a"])
		}
		if found := commands(b.String()); len(found) > 0 {
			t.Errorf("%s has commands: %q", doc, found)
		}
	})
}
