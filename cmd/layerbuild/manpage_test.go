package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/parser"

	"github.com/spf13/pflag"
)

// Each verb has a man page with all of its flags, and mandoc and groff find no faults in the pages.
func TestManPages(t *testing.T) {
	dir := t.TempDir()
	all := visible(verbs())
	pages := manPages(all, "2026-01-31")
	if err := writeManPages(dir, pages); err != nil {
		t.Fatal(err)
	}
	byName := map[string]string{}
	for _, p := range pages {
		byName[p.file()] = p.text
		for line := range strings.Lines(p.text) {
			line = strings.TrimSuffix(line, "\n")
			if strings.Trim(line, " ") != line || line == "" || strings.HasPrefix(line, "'") {
				t.Errorf("%s: the line %q", p.file(), line)
			}
			if strings.HasPrefix(line, ".") && !slices.Contains([]string{".TH", ".SH", ".SS", ".TP",
				".PP", ".RS", ".RE", ".nh", ".ad"}, line[:3]) {
				t.Errorf("%s: text that is taken for a macro: %s", p.file(), line)
			}
			if i := strings.IndexFunc(line, func(r rune) bool { return r > 126 }); i >= 0 {
				t.Errorf("%s: not ASCII: %s", p.file(), line)
			}
		}
	}
	if len(byName) != len(all)+2 || byName["layerbuild.1"] == "" ||
		byName["layerbuild.5"] == "" {
		t.Errorf("there are the pages %q", slices.Sorted(maps.Keys(byName)))
	}
	for _, v := range all {
		page := byName["layerbuild-"+v.name+".1"]
		forEachFlag(v, func(f *pflag.Flag) {
			if !strings.Contains(page, roffText("--"+f.Name)) {
				t.Errorf("layerbuild-%s(1) has no --%s", v.name, f.Name)
			}
		})
		for _, e := range v.examples {
			if !strings.Contains(page, bold(e.line)) {
				t.Errorf("layerbuild-%s(1) has no example %s", v.name, e.line)
			}
		}
	}
	for _, check := range [][]string{{"mandoc", "-T", "lint"},
		{"groff", "-man", "-ww", "-z", "-Tutf8"}} {
		t.Run(check[0], func(t *testing.T) {
			if _, err := exec.LookPath(check[0]); err != nil {
				t.Skip(err)
			}
			for _, p := range pages {
				out, err := exec.Command(check[0],
					append(check[1:], filepath.Join(dir, p.file()))...).CombinedOutput()
				if err != nil || len(out) > 0 {
					t.Errorf("%v: %s", err, out)
				}
			}
		})
	}
}

func forEachFlag(v verb, do func(*pflag.Flag)) {
	fs := newFlagSet(v)
	v.flags(fs)
	fs.VisitAll(do)
}

func TestRoffText(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"--a-b", `\-\-a\-b`},
		{".x y. .z", `\&.x y. \&.z`},
		{"it's 'so'", `it\(aqs \(aqso\(aq`},
		{`a\b~c`, `a\eb\(tic`},
		{"x…", `x\[u2026]`},
	} {
		if got := roffText(tt.text); got != tt.want {
			t.Errorf("roffText(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

// The date is taken from SOURCE_DATE_EPOCH, so that the pages are reproducible.
func TestGenDocs(t *testing.T) {
	for _, args := range [][]string{nil, {"man"}, {"man", "a", "b"}, {"completion"},
		{"completion", "csh"}, {"html", "dir"}} {
		if got := try(t, nil, append([]string{"gen-docs"}, args...)...); got.status != exitUsage {
			t.Errorf("gen-docs %q: status %d, %v, want an error", args, got.status, got.err)
		}
	}
	dir := filepath.Join(t.TempDir(), "new", "man")
	e := &env{getenv: func(name string) string {
		return map[string]string{parser.EpochArg: "86400"}[name]
	}}
	c, err := parseCommand(e, []string{"gen-docs", "man", dir})
	if err != nil || c.usesState {
		t.Fatalf("gen-docs man: uses the state: %t, %v", c.usesState, err)
	}
	if err := c.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "layerbuild-build.1"))
	if first, _, _ := strings.Cut(string(page), "\n"); err != nil ||
		!strings.Contains(first, `"1970-01-02"`) {
		t.Errorf("the title is %s, %v, want the date of %s", first, err, parser.EpochArg)
	}
}
