package explain

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/layerbuild/layerbuild/internal/atomicfile"
)

// list returns a list of files with the checksum 1, or that after "=".
func list(names ...string) Files {
	var f Files
	for _, name := range names {
		sum := uint64(1)
		if before, after, ok := strings.Cut(name, "="); ok {
			name = before
			fmt.Sscan(after, &sum)
		}
		f.Add(name, sum)
	}
	f.Seal()
	return f
}

// TestDescribe compares two steps of one instruction. TestReasons of test/explain has builds.
func TestDescribe(t *testing.T) {
	part := func(kind Kind, name, value string) Part { return Part{kind, name, value} }
	for _, tt := range []struct {
		name     string
		old, new Step
		want     string
	}{
		{"files", Step{Files: []Files{list("a", "b/c", "d")}},
			Step{Files: []Files{list("a=2", "b/c", "e")}}, "a changed (and 2 more files)"},
		{"file of a stage", Step{Files: []Files{{From: "stage x", List: []File{{"a", 1}}}}},
			Step{Files: []Files{{From: "stage x", List: []File{{"a", 2}}}}},
			"a of stage x changed"},
		{"many variables", Step{}, Step{Text: "RUN", Parts: []Part{part(Arg, "A", ""),
			part(Arg, "B", ""), part(Env, "C", ""), part(Env, "D", ""), part(Env, "E", "")}},
			"ARG A is new, ARG B is new, ENV C is new, 2 more changes"},
		{"variables that a COPY does not use", Step{Text: "COPY $A /"},
			Step{Text: "COPY $A /", Parts: []Part{part(Arg, "B", "")}}, ""},
		{"a variable that a COPY uses",
			Step{Text: "COPY ${A} /", Parts: []Part{part(Arg, "A", "1"), part(Instruction, "", "1")}},
			Step{Text: "COPY ${A} /",
				Parts: []Part{part(Arg, "A", "2"), part(Instruction, "", "2")}},
			"ARG A changed"},
		{"a variable whose name begins another one",
			Step{Text: "COPY $AB /", Parts: []Part{part(Arg, "A", "1"), part(Arg, "AB", "1"),
				part(Instruction, "", "1")}},
			Step{Text: "COPY $AB /", Parts: []Part{part(Arg, "A", "2"), part(Arg, "AB", "2"),
				part(Instruction, "", "2")}},
			"ARG AB changed"},
		{"platform", Step{Platform: "linux/amd64"}, Step{Platform: "linux/arm64"},
			"--platform changed: linux/amd64 → linux/arm64"},
		{"long value", Step{Parts: []Part{part(Option, "--x", strings.Repeat("a", 100))}},
			Step{Parts: []Part{part(Option, "--x", "b")}}, "--x changed"},
		{"address", Step{Parts: []Part{part(Source, "https://h/f", "1")}},
			Step{Parts: []Part{part(Source, "https://h/f", "2")}}, "https://h/f changed"},
		{"content without a list", Step{Parts: []Part{part(Content, "stage x", "1")}},
			Step{Parts: []Part{part(Content, "stage x", "2")}}, "the files of stage x changed"},
		{"ignored", Step{Parts: []Part{part(Ignore, ".dockerignore", "1")},
			Files: []Files{list("a", "d/e/f", "d/e/g", "x")}},
			Step{Parts: []Part{part(Ignore, ".dockerignore", "2")},
				Files: []Files{list("a", "x=2")}},
			".dockerignore leaves out d/e/ (and 1 more file)"},
		{"ignored in two places", Step{Parts: []Part{part(Ignore, "i", "1")},
			Files: []Files{list("a", "b/c")}}, Step{Parts: []Part{part(Ignore, "i", "2")},
			Files: []Files{list()}}, "i leaves out a and 1 more"},
		{"patterns that change nothing", Step{Parts: []Part{part(Ignore, "i", "1")},
			Files: []Files{list("a")}}, Step{Parts: []Part{part(Ignore, "i", "2")},
			Files: []Files{list("a=2")}}, "a changed"},
		{"bad names", Step{Files: []Files{list("a\xff")}}, Step{Files: []Files{list("a\xff=2")}},
			"a\uFFFD changed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := describe(compare(&tt.old, &tt.new)); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// TestNearest checks with which of several steps one is compared.
func TestNearest(t *testing.T) {
	step := func(key, text string, number int) Step {
		return Step{Stage: "s", Number: number, Text: text, Key: key, Platform: "p"}
	}
	other := step("platform", "RUN a", 1)
	other.Platform = "q"
	h := History{Steps: []Step{step("first", "RUN a", 1), step("last", "RUN a", 1),
		step("second", "RUN b", 2), other, step("later", "RUN a", 1),
		{Stage: "t", Number: 1, Text: "RUN a", Key: "other stage"}}, Last: []string{"last"}}
	for _, tt := range []struct {
		s    Step
		want string
		same bool
	}{
		{step("x", "RUN a", 1), "last", true},      // of the last build
		{step("first", "RUN a", 1), "first", true}, // the same key
		{step("x", "RUN b", 7), "second", true},    // at another place
		{step("x", "RUN c", 2), "second", false},   // edited
		{step("x", "RUN c", 9), "", false},
	} {
		old, same := h.nearest(&tt.s)
		got := ""
		if old != nil {
			got = old.Key
		}
		if got != tt.want || same != tt.same {
			t.Errorf("nearest to %+v is %q, %t", tt.s, got, same)
		}
	}
}

// TestSeal checks that long lists become lists of directories, with the same result for the same
// files and another one for others.
func TestSeal(t *testing.T) {
	deep := func(n int, changed string) Files {
		var names []string
		for i := range n {
			name := fmt.Sprintf("top%d/middle%d/%s%d", i%3, i%50, strings.Repeat("x", 40), i)
			if name == changed {
				name += "=2"
			}
			names = append(names, name)
		}
		slices.Sort(names)
		return list(names...)
	}
	const n = 30_000
	changed := fmt.Sprintf("top1/middle1/%s1", strings.Repeat("x", 40))
	a, b, c := deep(n, ""), deep(n, ""), deep(n, changed)
	if a.size() > maxList || len(a.List) != 150 {
		t.Fatalf("%d entries with %d bytes", len(a.List), a.size())
	}
	if d := cmp.Diff(a.List, b.List); d != "" {
		t.Error(d)
	}
	got := describe(compareFiles(&Step{Files: []Files{a}}, &Step{Files: []Files{c}}))
	if got != "top1/middle1/ changed" {
		t.Errorf("%q", got)
	}
	// A list that is being made has few entries, too, also if all files are in one directory.
	var flat Files
	for i := range 3 * maxEntries {
		flat.Add(fmt.Sprint("f", i), uint64(i))
		if len(flat.List) > maxEntries {
			t.Fatalf("%d entries", len(flat.List))
		}
	}
	if flat.Seal(); len(flat.List) != 1 {
		t.Errorf("%d entries", len(flat.List))
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "account")
	temp := atomicfile.Own{Dir: dir, Prefix: "new-"}
	write := func(keys ...string) {
		t.Helper()
		b := &Build{Time: time.Now(), Command: keys[0]}
		var ran []Step
		for _, key := range keys {
			cached := strings.HasPrefix(key, "-")
			key = strings.TrimPrefix(key, "-")
			b.Steps = append(b.Steps, Outcome{Step: key, Key: key})
			if !cached {
				ran = append(ran, Step{Stage: "s", Number: 1, Key: key, Text: "RUN\x00\xff",
					Files: []Files{list("a", "b c")}})
			}
		}
		if err := Write(temp, file, ran, b); err != nil {
			t.Fatal(err)
		}
	}
	keys := func() string {
		var list []string
		for _, s := range Read(file, "").Steps {
			list = append(list, s.Key)
		}
		return strings.Join(list, " ")
	}
	if h := Read(file, ""); len(h.Steps) != 0 || len(h.Last) != 0 {
		t.Errorf("%+v", h)
	}
	for i := range 6 {
		write(fmt.Sprint("k", i))
	}
	if got := keys(); got != "k2 k3 k4 k5" {
		t.Errorf("%s are kept", got)
	}
	write("-k2") // all is in the cache
	for i := 6; i < 10; i++ {
		write(fmt.Sprint("k", i), "-k2")
	}
	if got := keys(); got != "k2 k6 k7 k8 k9" {
		t.Errorf("%s are kept", got)
	}
	h := Read(file, "")
	if d := cmp.Diff(h.Last, []string{"k9", "k2"}); d != "" {
		t.Error(d)
	}
	want := list("a", "b c")
	if d := cmp.Diff(h.Steps[0].Files, []Files{want}, cmpopts.IgnoreUnexported(Files{})); d != "" {
		t.Error(d)
	}
	if all := Latest(dir); len(all) != 1 || all[0].Command != "k9" {
		t.Errorf("%+v", all)
	}
	// Damage only takes the explanations.
	if err := os.WriteFile(file, []byte(`{"version":1,"steps":[{"files":[{"list":"x"}]}]}`),
		0o600); err != nil {
		t.Fatal(err)
	}
	if h := Read(file, ""); len(h.Steps) != 0 {
		t.Errorf("%+v", h)
	}
}

// TestEncode compares the own encoder with package json.
func TestEncode(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	hostile := "a\"b\\c\x00\n\u2028\xff<&>ä\U0001F600"
	for _, b := range []*Build{
		{Time: at},
		{Version: 1, Time: at, Command: "1 2", Target: hostile, Name: hostile, File: hostile,
			Context: hostile, Steps: []Outcome{{Step: hostile, Line: 3, State: Cached, Key: "k"},
				{State: Failed}}},
		{Time: at, Steps: []Outcome{{State: Ran, Reason: &Reason{Code: New, Text: hostile}}}},
	} {
		data, err := b.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, want := new(Build), new(Build)
		if err := json.Unmarshal(data, got); err != nil {
			t.Fatalf("%v in %s", err, data)
		}
		plain, _ := json.Marshal(b)
		if err := json.Unmarshal(plain, want); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Error(d)
		}
	}
}

// BenchmarkEncode encodes a build in which all is in the cache.
func BenchmarkEncode(b *testing.B) {
	build := &Build{Time: time.Now(), File: "Dockerfile", Context: "/dir"}
	for i := range 10 {
		build.Steps = append(build.Steps, Outcome{Step: fmt.Sprint("[1/2] RUN echo ", i), Line: i,
			State: Cached, Key: strings.Repeat("0", 64)})
	}
	for b.Loop() {
		if _, err := build.encode(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSizes checks that a large account loses its earliest steps.
func TestSizes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "account")
	var ran []Step
	for i := range 30 {
		ran = append(ran, Step{Stage: "s", Number: i, Key: fmt.Sprint(i),
			Text: strings.Repeat("x", 1<<20)})
	}
	temp := atomicfile.Own{Dir: dir, Prefix: "new-"}
	if err := Write(temp, file, ran, &Build{}); err != nil {
		t.Fatal(err)
	}
	got := Read(file, "").Steps
	if len(got) == 0 || len(got) > 8 || got[len(got)-1].Key != "29" {
		t.Errorf("%d steps", len(got))
	}
}

// FuzzHistory reads damaged accounts and explains steps with them.
func FuzzHistory(f *testing.F) {
	f.Add([]byte(`{"version":1,"steps":[{"Stage":"s","Number":1,"Text":"RUN x","Key":"k",`+
		`"Parent":"k","Parts":[{"kind":"arg","name":"A","value":"1"}],`+
		`"Files":[{"from":"stage x","list":"1 a\u0000"}]}]}`), "RUN x", "RUN y")
	f.Fuzz(func(t *testing.T, data []byte, text, other string) {
		h := History{Steps: decodeSteps(data), Last: []string{"k"}}
		s := &Step{Stage: "s", Number: 1, Text: text, Key: "new", Parent: "p", Line: 3,
			Parts: []Part{{Arg, "A", "2"}}, Files: []Files{list("a", "b")}}
		r := h.Explain(s, Place{Texts: func() []string { return []string{other, text} },
			Above: 1})
		if r.Text == "" || r.Code == "" {
			t.Errorf("no reason: %+v", r)
		}
		if _, err := json.Marshal(h.Steps); err != nil {
			t.Error(err)
		}
	})
}
