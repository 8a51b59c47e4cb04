package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	testlab "github.com/layerbuild/layerbuild/test/lab"
)

func TestMain(m *testing.M) {
	// The test binary also serves as the measured program: see children.
	if len(os.Args) > 1 {
		if child, ok := children[os.Args[1]]; ok {
			exit(child(context.Background(), os.Args[2:]))
		}
	}
	testlab.Main(m)
}

// TestQuick runs the whole program with tiny sizes, and only for layerbuild. It leaves out the
// works that need a network, a registry or the machine's compressors.
func TestQuick(t *testing.T) {
	bin, err := exec.LookPath("busybox")
	if err != nil || !static(bin) {
		t.Skip("no static busybox on PATH (Debian: busybox-static)")
	}
	testlab.Need(t, "unshare", "git")
	if os.Getuid() != 0 && exec.Command("unshare", "--user", "true").Run() != nil {
		t.Skip("this kernel gives unprivileged users no user namespaces")
	}
	dir := t.TempDir()
	doc := filepath.Join(dir, "doc.md")
	if err := os.WriteFile(doc, []byte("by hand\n"+beginMark+"\nold\n"+endMark+"\nmore by hand\n"),
		0o644); err != nil {
		t.Fatal(err)
	}
	o := options{
		layerbuild: testlab.Binary(t), peers: layerbuild + ",none-such," + buildKit, runs: 2,
		quick: true, curves: true, fs: "none", dir: dir, output: doc,
		cases: "^(run-true|warm|edit|layer|context-.*|copy|stages|unpack|memory|files-curve|steps-curve|layers-curve)$",
	}
	if err := run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for _, want := range []string{"by hand\n" + beginMark + "\n## The machine\n",
		"Left out: none-such", "Left out: buildkit: $BUILDKITD and", "tiny sizes",
		"\n### 50 × RUN true\n", "\n| tar xzf | ",
		"\n| 200 files, nothing changed | ", "\n| 4 layers | ", "\nOne more run of 4 layers: ",
		"\n| steps | 4, 1 cached | ", "\n| exporting to image | 1 | ", endMark + "\nmore by hand\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the document", want)
		}
	}
	for _, bad := range []string{"failed:", " failed", "not known", "\nold\n", "\nLeft out: "} {
		if strings.Contains(text, bad) {
			t.Errorf("%q in the document", bad)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestLayouts checks the flags by which BuildKit finds the base images.
func TestLayouts(t *testing.T) {
	dir := t.TempDir()
	const sum = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for name, text := range map[string]string{
		"localhost/a/index.json":   `{"manifests":[{"digest":"` + sum + `"}]}`,
		"localhost/b/index.json":   `{"manifests":[]}`,
		"localhost/b/blobs/sha256": "",
		"localhost/c/index.json":   "cut off",
	} {
		if err := write(filepath.Join(dir, name), text); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"--oci-layout=base0=" + dir + "/localhost/a",
		"--opt=context:localhost/a=oci-layout://base0@" + sum}
	if d := cmp.Diff(want, layouts(dir)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if got := layouts(filepath.Join(dir, "none")); got != nil {
		t.Errorf("got %q of no directory", got)
	}
}

// TestGroup checks that the CPU time and memory of a command and of its children are counted.
func TestGroup(t *testing.T) {
	defer sweepGroups()
	type test struct {
		name string
		g    *group
	}
	tests := []test{{"made", newGroup("test")}, {"rusage", &group{}}}
	for _, h := range hierarchies() {
		if h.v2 { // cpuacct of version 1 is preferred if both exist
			tests = append(tests, test{"v2", h.group("test2")})
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer func() {
				if err := tt.g.close(); err != nil {
					t.Error(err)
				}
			}()
			before, err := tt.g.cpu()
			if err != nil {
				t.Fatal(err)
			}
			peak := tt.g.watch()
			// With a further command, the shell does not replace itself by the loop.
			cmd := exec.Command("sh", "-c",
				`sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; true`)
			if err := tt.g.run(t.Context(), cmd); err != nil {
				t.Fatal(err)
			}
			most := peak()
			after, err := tt.g.cpu()
			if err != nil {
				t.Fatal(err)
			}
			own := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			if used := after - before; used < own/2 || used > own*2+20*time.Millisecond {
				t.Errorf("the group used %v, its command %v", used, own)
			}
			if most < 100<<10 || most > 1<<30 {
				t.Errorf("peak memory of two shells: %d", most)
			}
			if left := tt.g.pids(); len(left) > 0 {
				t.Errorf("processes after the end: %v", left)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	g := newGroup("cancel")
	defer sweepGroups()
	defer g.close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := g.run(ctx, exec.Command("sleep", "60")); err == nil {
		t.Error("a command that was ended has succeeded")
	}
}

func seconds(wall, cpu float64, memory int64) sample {
	return sample{wall: time.Duration(wall * 1e9), cpu: time.Duration(cpu * 1e9), memory: memory}
}

func TestReport(t *testing.T) {
	r := &report{machine: []string{"CPU: fast"}, results: []result{{
		work: work{title: "Work", what: "What is done.", unit: "step", goals: []goal{
			{of: layerbuild, figure: cpuPerUnit, limit: 0.004},
			{of: layerbuild, figure: memory, limit: 20e6},
			{of: layerbuild, figure: wall, limit: 0.6, than: buildah},
			{of: "nobody", figure: wall, limit: 1},
		}},
		rows: []row{
			{name: layerbuild, units: 100, samples: []sample{seconds(1, 0.5, 10e6),
				seconds(3, 0.2, 30e6), seconds(2, 0.3, 30e6)}},
			{name: buildah, units: 100, samples: []sample{seconds(2, 5, 20e6), seconds(9, 2, 60e6),
				seconds(8, 3, 60e6)}},
			{name: dockerClassic, failure: "two\nlines | bar"},
		},
	}, {work: work{title: "None", what: "Nothing."}, note: "no registry"}}}
	want := `## The machine
- CPU: fast

## Goals
| work | goal | measured | reached |
|---|---|---|---|
| Work | CPU per step at most 4.0 ms | 3.0 ms | yes |
| Work | peak memory at most 20.0 MB | 30.0 MB | no |
| Work | wall at most 0.60 of buildah | 0.33 | yes |
| Work | nobody: wall at most 1.00 s | not measured |  |

## Each case

### Work
What is done.

|  | wall (least to most) | CPU | peak memory | wall per step | CPU per step | × wall | × CPU | × memory |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| layerbuild | 2.00 s (1.00 s to 3.00 s) | 300 ms | 30.0 MB | 20.0 ms | 3.0 ms |  |  |  |
| buildah | 8.00 s (2.00 s to 9.00 s) | 3.00 s | 60.0 MB | 80.0 ms | 30.0 ms | 3.0 | 10.0 | 2.0 |
| docker-classic | failed: two lines / bar |

### None
Nothing.

Left out: no registry
`
	if d := cmp.Diff(want, r.markdown()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// TestFileSystems checks a report with results of two file systems.
func TestFileSystems(t *testing.T) {
	w := work{title: "Work", what: "What.", goals: []goal{{of: "a", figure: wall, limit: 2}}}
	r := &report{measured: "v1, now"}
	for i, fs := range []string{"ext4", "tmpfs"} {
		r.add([]string{fmt.Sprint("Date: ", i), statesAre + fs, "Go: new"})
		r.results = append(r.results, result{work: w, fs: fs, rows: []row{
			{name: "a", samples: []sample{seconds(float64(2*i+1), 1, 1e6)}}}})
	}
	want := `## The machine
- Date: 0
- State and contexts: ext4
- State and contexts: tmpfs
- Go: new

## Goals
| work | goal | measured | reached |
|---|---|---|---|
| Work | a: wall at most 2.00 s, on ext4 | 1.00 s | yes |
| Work | a: wall at most 2.00 s, on tmpfs | 3.00 s | no |

## Each case

### Work
What.

On ext4:

|  | wall (least to most) | CPU | peak memory | × wall | × CPU | × memory |
| --- | --- | --- | --- | --- | --- | --- |
| a | 1.00 s (1.00 s to 1.00 s) | 1.00 s | 1.0 MB |  |  |  |

On tmpfs:

|  | wall (least to most) | CPU | peak memory | × wall | × CPU | × memory |
| --- | --- | --- | --- | --- | --- | --- |
| a | 3.00 s (3.00 s to 3.00 s) | 1.00 s | 1.0 MB |  |  |  |

Measured: layerbuild v1, now
`
	if d := cmp.Diff(want, r.markdown()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	again := &report{kept: readKept(want)}
	if d := cmp.Diff(want[strings.Index(want, "\n### Work"):], again.section("Work")); d != "" {
		t.Errorf("kept (-want +got):\n%s", d)
	}
}

// TestKept checks that new results of a work replace those of an earlier report, and the other
// results stay.
func TestKept(t *testing.T) {
	all := allWork()
	old := &report{machine: []string{"Date: now; load average before: 1", "layerbuild: v1"}}
	for _, w := range all[:2] {
		old.results = append(old.results, result{work: w, note: "first"})
	}
	r := &report{measured: "v2, later", kept: readKept(old.markdown()),
		results: []result{{work: all[1], note: "second"}, {work: all[2], note: "second"}}}
	got := r.markdown()
	for _, want := range []string{"Left out: first\n\nMeasured: layerbuild v1, now\n",
		"Left out: second\n\nMeasured: layerbuild v2, later\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Count(got, "first") != 1 || strings.Count(got, "### ") != 3 ||
		strings.Count(got, "| "+all[0].title+" | ") != len(all[0].goals) {
		t.Errorf("got\n%s", got)
	}
	again := (&report{kept: readKept(got), results: []result{{work: all[2], note: "second"}},
		measured: "v2, later"}).markdown()
	if d := cmp.Diff(got, again); d != "" {
		t.Errorf("kept once more (-first +second):\n%s", d)
	}
}

func TestNumbers(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{span(123.4), "123 s"}, {span(12.34), "12.3 s"}, {span(1.234), "1.23 s"},
		{span(0.1234), "123 ms"}, {span(0.01234), "12.3 ms"},
		{span(0.0000027), "2.7 µs"}, {number(999), "999"}, {number(1_000_000), "1,000,000"},
		{size.format(12_345_678), "12.3 MB"}, {line(strings.Repeat("é", 400))[298:], "é…"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
	for _, tt := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 2}, 2}} {
		if got := median(tt.values); got != tt.want {
			t.Errorf("median(%v) = %v, want %v", tt.values, got, tt.want)
		}
	}
}

func TestSpliceWithoutMarks(t *testing.T) {
	doc := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(doc, []byte(endMark+beginMark), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := splice(doc, "text"); err == nil {
		t.Error("results were put into a document without a place for them")
	}
}

// TestUnknownFileSystem checks that no case is measured if the list of file systems has a mistake.
func TestUnknownFileSystem(t *testing.T) {
	err := run(t.Context(), options{layerbuild: os.Args[0], runs: 1, fs: "none,ext5",
		dir: "/nowhere"})
	if err == nil || !strings.Contains(err.Error(), "-fs ext5: not one of ext4, tmpfs, none") {
		t.Errorf("got %v", err)
	}
}

// TestGoalsAreOfWork checks that each goal names an existing contender: otherwise it would never be
// judged.
func TestGoalsAreOfWork(t *testing.T) {
	names := []string{layerbuild, sealGzip, sealZstd, stdlib, tarXzf}
	for _, size := range full.layers {
		names = append(names, layerSize(size))
	}
	known := strings.Join(names, "\n")
	seen := map[string]bool{}
	for _, w := range allWork() {
		if seen[w.name] {
			t.Errorf("two works have the name %s", w.name)
		}
		seen[w.name] = true
		for _, g := range w.goals {
			if !strings.Contains(known, g.of) || !strings.Contains(known, g.than) {
				t.Errorf("%s: a goal of %q, than %q", w.name, g.of, g.than)
			}
			if (g.figure == cpuPerUnit || g.figure == wallPerUnit) && w.unit == "" {
				t.Errorf("%s: a goal per unit without a unit", w.name)
			}
		}
	}
}
