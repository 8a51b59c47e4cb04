package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/pflag"
)

// Each help is complete, and its lines fit a terminal.
func TestHelp(t *testing.T) {
	var top bytes.Buffer
	if err := help(&top, verbs()); err != nil {
		t.Fatal(err)
	}
	checkWidth(t, "help", top.String())
	for _, v := range verbs() {
		if strings.Contains(top.String(), "  "+v.name+" ") == v.hidden || v.summary == "" {
			t.Errorf("help lists %s: %t, want %t, with a summary", v.name, v.hidden, !v.hidden)
		}
		var short, long bytes.Buffer
		if err := shortHelp(&short, v); err != nil {
			t.Fatal(err)
		}
		if err := longHelp(&long, v); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{v.name + " -h": short.String(),
			"help " + v.name: long.String()} {
			checkWidth(t, name, text)
			if !strings.Contains(text, "\nUsage: layerbuild "+v.name) ||
				!strings.Contains(text, "\nExamples:\n") {
				t.Errorf("%s has no usage or no examples:\n%s", name, text)
			}
			if _, rest, _ := strings.Cut(text, "\nExamples:\n"); strings.Contains(rest, "\n\n") {
				t.Errorf("%s: the examples are not at the end", name)
			}
		}
		wants := []string{"Exit status:\n", v.notes[:min(len(v.notes), 20)]}
		if !v.stateless { // the details of --root at least
			wants = append(wants, "\nDetails:\n")
		}
		for _, want := range wants {
			if !strings.Contains(long.String(), want) {
				t.Errorf("help %s has no %q", v.name, want)
			}
		}
		if strings.Contains(short.String(), "Details:") || short.Len() >= long.Len() {
			t.Errorf("%s -h is not the short help", v.name)
		}
		for _, args := range [][]string{{v.name, "--help"}, {v.name, "-h"}, {"help", v.name}} {
			if got := try(t, map[string]string{"HOME": "/"}, args...); got.err != nil {
				t.Errorf("%q: %v", args, got.err)
			}
		}
	}
}

// The short help fits one screen. A verb that leaves flags out of it prints their number.
func TestShortHelp(t *testing.T) {
	const screen = 42 // lines
	for _, v := range verbs() {
		var b bytes.Buffer
		if err := shortHelp(&b, v); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(b.String(), "\n"); n > screen {
			t.Errorf("%s -h has %d lines, more than %d: list the flags that people use most in"+
				" common", v.name, n, screen)
		}
		total, shown := 0, 0
		for _, g := range flagsOf(v) {
			for _, f := range g.flags {
				total++
				flag := `(?m)^  (-.,|   ) --` + f.name + `([^-a-z]|$)`
				if regexp.MustCompile(flag).Match(b.Bytes()) {
					shown++
				}
			}
		}
		want, refers := total, "'layerbuild help "+v.name+"' has the details"
		if v.common != nil {
			want = len(v.common)
			refers = fmt.Sprintf("explains these flags and %d others", total-want)
		}
		if shown != want || !strings.Contains(b.String(), refers) {
			t.Errorf("%s -h shows %d of %d flags, want %d, and %q:\n%s", v.name, shown, total, want,
				refers, b.String())
		}
	}
}

func checkWidth(t *testing.T, name, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if n := utf8.RuneCountInString(line); n > helpWidth {
			t.Errorf("%s: a line of %d columns: %s", name, n, line)
		}
		if strings.TrimRight(line, " ") != line {
			t.Errorf("%s: a line ends with a space: %q", name, line)
		}
	}
}

// Each flag has a placeholder if it takes a value and a text of one line. A verb with many flags
// groups all of them.
func TestFlagTexts(t *testing.T) {
	const many = 8
	for _, v := range verbs() {
		fs := newFlagSet(v)
		v.flags(fs)
		own := 0
		shown := map[string]bool{}
		fs.VisitAll(func(f *pflag.Flag) { shown[f.Name] = !f.Hidden })
		for _, g := range flagsOf(v) {
			if g.heading != groupOfState {
				own += len(g.flags)
			}
			for _, f := range g.flags {
				delete(shown, f.name)
				boolean := fs.Lookup(f.name).Value.Type() == "bool"
				if boolean != (f.placeholder == "") ||
					strings.Contains(f.placeholder+f.text+f.details, "`") {
					t.Errorf("%s --%s: placeholder %q", v.name, f.name, f.placeholder)
				}
				if n := utf8.RuneCountInString(f.text); n == 0 || n > helpWidth-helpIndent {
					t.Errorf("%s --%s: a text of %d columns: %s", v.name, f.name, n, f.text)
				}
				if f.details != "" && !strings.HasSuffix(f.details, ".") ||
					strings.HasSuffix(f.text, ".") {
					t.Errorf("%s --%s: %q, %q, want a phrase and sentences", v.name,
						f.name, f.text, f.details)
				}
				if len(f.values) > 1 && strings.Contains(f.text+f.details, orList(f.values)) {
					t.Errorf("%s --%s: the values %s are there twice", v.name,
						f.name, orList(f.values))
				}
			}
		}
		for name, is := range shown {
			if is {
				t.Errorf("%s: --%s is not shown", v.name, name)
			}
		}
		for _, g := range flagsOf(v) {
			if own > many && g.heading == noGroup {
				t.Errorf("%s has %d flags; --%s is in no group", v.name, own, g.flags[0].name)
			}
			if own <= many && g.heading != noGroup && g.heading != groupOfState {
				t.Errorf("%s has %d flags and a group %s", v.name, own, g.heading)
			}
		}
	}
}

// Each example is a command line that layerbuild accepts.
func TestExamples(t *testing.T) {
	work := t.TempDir()
	t.Chdir(work)
	for _, name := range []string{"Dockerfile", "token.txt", "app.tar", "compose.yaml",
		"docker-bake.hcl"} {
		if err := os.WriteFile(name, []byte("FROM scratch\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lists := [][]example{overviewExamples[:]}
	for _, v := range verbs() {
		lists = append(lists, v.examples)
		if len(v.examples) == 0 {
			t.Errorf("%s has no examples", v.name)
		}
		for _, e := range v.examples {
			if words := shellWords(e.line); len(words) < 2 ||
				v.name != "build" && !strings.HasPrefix(e.line+" ", "layerbuild "+v.name+" ") {
				t.Errorf("%s has the example %s", v.name, e.line)
			}
		}
	}
	vars := map[string]string{"HOME": work, "LAYERBUILD_ROOT": work + "/state"}
	for _, e := range slices.Concat(lists...) {
		words := shellWords(e.line)
		if words[0] != "layerbuild" || e.text == "" {
			t.Errorf("%q, %q: want a command line with an explanation", e.line, e.text)
		}
		v, args, err := findVerb(verbs(), words[1:])
		if err != nil {
			t.Errorf("%s: %v", e.line, err)
			continue
		}
		fs := newFlagSet(v)
		v.flags(fs)
		if err := fs.Parse(args); err != nil {
			t.Errorf("%s: %v", e.line, err)
		}
		if terminal := fs.Lookup("interactive"); terminal != nil && terminal.Changed {
			continue // try sets no terminal
		}
		if got := try(t, vars, words[1:]...); got.err != nil {
			t.Errorf("%s: %v", e.line, got.err)
		}
	}
}

// shellWords splits a command line, in which words may be in single quotes.
func shellWords(line string) []string {
	var words []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			words = append(words, part)
		} else {
			words = append(words, strings.Fields(part)...)
		}
	}
	return words
}

// A flag's description comes from its definition.
func TestDescribe(t *testing.T) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.SortFlags = false
	var l list
	var word string
	fs.VarP(&l, "many", "m", "`NAME` names\nDetails of it.")
	group(fs, "A group", func(fs *pflag.FlagSet) {
		fs.Var(newChoice(&word, "b", "a", "b"), "one", "a choice")
		fs.StringSlice("of", nil, "`a.b|C` items")
		fs.Bool("yes", false, "a switch")
	})
	for _, want := range []flagInfo{
		{name: "many", short: "m", group: noGroup, placeholder: "NAME", text: "names (repeatable)",
			details: "Details of it."},
		{name: "one", group: "A group", placeholder: "a|b", values: []string{"a", "b"},
			text: "a choice (default: b)"},
		{name: "of", group: "A group", placeholder: "a.b|C,…",
			values: []string{"a.b"}, text: "items"},
		{name: "yes", group: "A group", optional: true, text: "a switch"},
	} {
		got := describe(fs.Lookup(want.name))
		if got.name != want.name || got.short != want.short || got.group != want.group ||
			got.placeholder != want.placeholder ||
			got.optional != want.optional || !slices.Equal(got.values, want.values) ||
			got.text != want.text || got.details != want.details {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}
