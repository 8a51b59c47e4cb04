package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompare(t *testing.T) {
	old := counts{names: []string{"same", "more", "less", "gone", "fails"},
		of: map[string]int64{"same": 1_000_000, "more": 1000, "less": 1000, "gone": 7, "fails": 8}}
	now := []counted{
		{name: "same", runs: []int64{1_000_900, 1_000_000, 1_000_100}},
		{name: "more", runs: []int64{1032, 1031}},
		{name: "less", runs: []int64{900, 1000}},
		{name: "fails", failure: "valgrind 1:\nno such | call"},
		{name: "new", runs: []int64{5}},
	}
	want := `path          now   last release     change    spread
same    1,000,000      1,000,000    +0.00 %    0.09 %
more        1,031          1,000    +3.10 %    0.10 %   MORE
less          900          1,000   -10.00 %   11.11 %   unsteady
fails           -              8                        NOT COUNTED: valgrind 1: no such / call
new             5              -               0.00 %   NOT COMPARED: the last release has no count
gone            -              7                        NOT COUNTED: no such path
`
	table, failures := compare(old, now)
	if d := cmp.Diff(want, table); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if d := cmp.Diff([]string{"more: +3.10 %", "fails was not counted", "gone was not counted"},
		failures); d != "" {
		t.Errorf("failures (-want +got):\n%s", d)
	}
	// 3 % is the last share that is not a failure
	if _, failures := compare(counts{of: map[string]int64{"a": 1000}}, []counted{
		{name: "a", runs: []int64{1030}}}); failures != nil {
		t.Errorf("3 %%: %q", failures)
	}
}

func TestCounts(t *testing.T) {
	c := counts{release: "v1", golang: "go1.2", tool: "valgrind 3.27", cpu: "amd64 avx2",
		names: []string{"b c", "a"}, of: map[string]int64{"a": 1, "b c": 22}}
	got, err := parseCounts(c.String())
	if d := cmp.Diff(c, got, cmp.AllowUnexported(counts{})); d != "" || err != nil {
		t.Errorf("%v, -want +got:\n%s", err, d)
	}
	for _, bad := range []string{"count 0 a", "count x a", "count 3", "other 3",
		"count 1 a\ncount 1 a"} {
		if _, err := parseCounts(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	newer := c
	newer.tool = "valgrind 3.28"
	if err := newer.comparable(c); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*counts){
		"Go":        func(c *counts) { c.golang = "go1.3" },
		"tool":      func(c *counts) { c.tool = "perf 6.1" },
		"processor": func(c *counts) { c.cpu = "arm64" },
	} {
		other := c
		change(&other)
		if err := other.comparable(c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

// TestCountsOfRelease checks the file of the tree: it has the paths of which it is made.
func TestCountsOfRelease(t *testing.T) {
	raw, err := os.ReadFile("counts.txt")
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseCounts(string(raw))
	if err != nil {
		t.Fatal(err)
	}
	if c.release == "" || c.golang == "" || c.tool == "" || c.cpu == "" {
		t.Errorf("got %+v", c)
	}
	if c.String() != string(raw) {
		t.Error("counts.txt has not the form in which -update writes it")
	}
	var names []string
	for _, p := range (&checker{}).paths("/dir") {
		names = append(names, p.name)
	}
	if d := cmp.Diff(names, c.names); d != "" {
		t.Errorf("paths (-check +file):\n%s", d)
	}
}

// TestBenchmarksExist checks that the benchmarks which the check counts are those of the packages:
// one without operations has no instructions.
func TestBenchmarksExist(t *testing.T) {
	dirs := map[string]string{"diff": "../diff", "parser": "../parser",
		"unpack": "../internal/unpack", "gunzip": "../internal/gunzip",
		"source": "../internal/source"}
	for _, p := range (&checker{}).paths("/dir") {
		if p.operations == 0 {
			continue
		}
		pkg, name, _ := strings.Cut(p.name, " ")
		name, _, _ = strings.Cut(name, "/")
		files, err := filepath.Glob(dirs[pkg] + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(files, func(file string) bool {
			raw, err := os.ReadFile(file)
			return err == nil && strings.Contains(string(raw), "\nfunc "+name+"(")
		}) {
			t.Errorf("package %s has no %s", pkg, name)
		}
	}
}

func TestReadCachegrind(t *testing.T) {
	const head = "desc: I1 cache:\ncmd: x\nevents: Ir\n"
	for _, tt := range []struct {
		name, text string
		want       int64
		fails      string
	}{
		{"counts", head + "fl=a.go\nfn=runtime.main\n3 10\n4 5\nfn=main.f\n0 7\nsummary: 22\n",
			22, ""},
		{"without the scheduler", head + "fl=a.go\nfn=runtime.main\n3 10\nfn=runtime.sysmon\n" +
			"1 100\nfn=runtime.lock2\n1 200\nfn=runtime.lock2x\n1 1\nfn=runtime.(*pageAlloc).find\n" +
			"1 1000\nfl=b.go\nfn=main.f\n2 5\nsummary: 1316\n", 16, ""},
		{"no symbols", head + "fl=???\nfn=???\n0 7\nsummary: 7\n", 0, "symbols"},
		{"cut off", head + "fl=a.go\nfn=runtime.main\n3 10\n", 0, "cut off"},
		{"another sum", head + "fn=runtime.main\n3 10\nsummary: 11\n", 0, "11"},
		{"another form", head + "fn=runtime.main\n3 10 5\nsummary: 10\n", 0, "line"},
		{"empty", "", 0, "cut off"},
	} {
		got, err := readCachegrind([]byte(tt.text))
		if got != tt.want || (err == nil) != (tt.fails == "") ||
			err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%s: got %d, %v", tt.name, got, err)
		}
	}
}

func TestReadPerf(t *testing.T) {
	for _, tt := range []struct {
		text  string
		want  int64
		fails string
	}{
		{"# started on Thu\n\n3456789,,instructions:u,1234,100.00,,\n", 3456789, ""},
		{"<not supported>,,instructions:u,0,100.00,,\n", 0, "cannot count"},
		{"# started on Thu\n", 0, "no count"},
	} {
		got, err := readPerf([]byte(tt.text))
		if got != tt.want || (err == nil) != (tt.fails == "") ||
			err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%q: got %d, %v", tt.text, got, err)
		}
	}
}

// TestCount counts with a tool that is a shell script.
func TestCount(t *testing.T) {
	c := &checker{dir: t.TempDir()}
	c.tool = tool{name: "tool", runs: 2, read: readPerf, line: func(out string) []string {
		return []string{"sh", "-c", `"$@" && echo "$(wc -c <n),,instructions:u" >` + out, "sh"}
	}}
	shell := func(script string) func(int) []string {
		return func(n int) []string {
			return []string{"sh", "-c", script, "sh", strings.Repeat("x", 100+3*n)}
		}
	}
	for _, tt := range []struct {
		name  string
		path  path
		want  []int64
		fails string
	}{
		{"a program", path{line: shell(`printf 12345 >n`)}, []int64{5, 5}, ""},
		{"a benchmark", path{line: shell(`printf %s "$1" >n`), operations: 10}, []int64{3, 3}, ""},
		{"no instructions", path{line: shell(`: >n`)}, nil, "tool: no instructions"},
		{"a failure", path{line: shell(`echo why; exit 3`)}, nil, "without tool it fails too: exit"},
		{"a failure of the tool", path{line: shell(`test ! -e ran && touch ran`)}, nil,
			"tool: exit"},
	} {
		got := c.count(t.Context(), tt.path)
		if !slices.Equal(got.runs, tt.want) || (got.failure == "") != (tt.fails == "") ||
			!strings.HasPrefix(got.failure, tt.fails) {
			t.Errorf("%s: got %v, %q", tt.name, got.runs, got.failure)
		}
	}
	got := c.count(t.Context(), path{root: true, line: shell(`printf 1 >n`)})
	if (got.failure == "") != (os.Getuid() == 0) {
		t.Errorf("a path that only root runs in one process: %v, %q", got.runs, got.failure)
	}
}

func TestReason(t *testing.T) {
	for _, tt := range []struct{ out, want string }{
		{"--7-- WARNING: unhandled amd64-linux syscall: 428\n--7-- You may\n" +
			"--7-- WARNING: unhandled amd64-linux syscall: 437\n" +
			"--7-- WARNING: unhandled amd64-linux syscall: 428\nvalgrind: You cannot run\n",
			"valgrind does not have the system calls 428, 437"},
		{"layerbuild: no such file\n", "layerbuild: no such file"},
		{strings.Repeat("x", 300) + "end\n", strings.Repeat("x", 247) + "end"},
	} {
		if got := reason(tt.out); got != tt.want {
			t.Errorf("reason(%q) = %q, want %q", tt.out, got, tt.want)
		}
	}
}

// TestScheduler checks that the list of functions is sorted, and what its patterns match.
func TestScheduler(t *testing.T) {
	if !slices.IsSorted(scheduler) {
		t.Error("the list is not sorted")
	}
	for name, want := range map[string]bool{"runtime.lock2": true, "runtime.mallocgc": false,
		"runtime.nanotime1.abi0": true, "runtime.mgetx": false, "main.main": false} {
		if got := ofScheduler(name); got != want {
			t.Errorf("ofScheduler(%s) = %v", name, got)
		}
	}
}
