package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// mostMore is the percentage by which the instructions of a path may grow.
const mostMore = 3

// mostSpread is the largest difference between the runs of a path, as a share, at which they count
// as the same.
const mostSpread = 0.01

// counts are the instructions of each path, with what a comparison depends on.
type counts struct {
	release string
	golang  string // version of the Go toolchain that built the program
	tool    string
	cpu     string // architecture, and extensions that select other code
	names   []string
	of      map[string]int64
}

const countsHead = `# Instructions of paths of the last release, for make bench-check: see docs/BENCHMARKS.md.
`

func (c counts) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%srelease %s\ngo %s\ntool %s\ncpu %s\n", countsHead, c.release, c.golang,
		c.tool, c.cpu)
	for _, name := range c.names {
		fmt.Fprintf(&b, "count %d %s\n", c.of[name], name)
	}
	return b.String()
}

// parseCounts reads what String wrote.
func parseCounts(text string) (counts, error) {
	c := counts{of: map[string]int64{}}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "release":
			c.release = value
		case "go":
			c.golang = value
		case "tool":
			c.tool = value
		case "cpu":
			c.cpu = value
		case "count":
			number, name, _ := strings.Cut(value, " ")
			n, err := strconv.ParseInt(number, 10, 64)
			if err != nil || n <= 0 || name == "" || c.of[name] != 0 {
				return c, fmt.Errorf("the line %q", line)
			}
			c.names = append(c.names, name)
			c.of[name] = n
		default:
			return c, fmt.Errorf("the line %q", line)
		}
	}
	return c, nil
}

// comparable returns an error if the counts of old and c cannot be compared.
func (c counts) comparable(old counts) error {
	kind := func(tool string) string { k, _, _ := strings.Cut(tool, " "); return k }
	for _, fact := range [][3]string{{"Go", old.golang, c.golang},
		{"the tool", kind(old.tool), kind(c.tool)}, {"the processor", old.cpu, c.cpu}} {
		if fact[1] != fact[2] {
			return fmt.Errorf("the counts of the last release are those of %s %s, and this is %s: "+
				"count the last release again", fact[0], fact[1], fact[2])
		}
	}
	return nil
}

// A counted holds the runs of a path.
type counted struct {
	name    string
	runs    []int64
	failure string // why it was not counted
}

func (c counted) least() int64 { return slices.Min(c.runs) }

func (c counted) spread() float64 {
	return float64(slices.Max(c.runs)-c.least()) / float64(c.least())
}

// compare returns a table of the paths and the reasons why the check fails. Every path of old and
// of now is in the table.
func compare(old counts, now []counted) (table string, failures []string) {
	lines := [][]string{{"path", "now", "last release", "change", "spread", ""}}
	known := map[string]bool{}
	for _, c := range now {
		known[c.name] = true
		before, ok := old.of[c.name]
		cells := []string{c.name, "-", "-", "", "", ""}
		if ok {
			cells[2] = number(int(before))
		}
		switch {
		case c.failure != "":
			cells[5] = "NOT COUNTED: " + line(c.failure)
			failures = append(failures, c.name+" was not counted")
		default:
			cells[1] = number(int(c.least()))
			cells[4] = fmt.Sprintf("%.2f %%", 100*c.spread())
			change := float64(c.least())/float64(before) - 1
			if ok {
				cells[3] = fmt.Sprintf("%+.2f %%", 100*change)
			}
			switch {
			case !ok:
				cells[5] = "NOT COMPARED: the last release has no count"
			case (c.least()-before)*100 > before*mostMore:
				cells[5] = "MORE"
				failures = append(failures, fmt.Sprintf("%s: %+.2f %%", c.name, 100*change))
			case c.spread() > mostSpread:
				cells[5] = "unsteady"
			}
		}
		lines = append(lines, cells)
	}
	for _, name := range old.names {
		if !known[name] {
			lines = append(lines, []string{name, "-", number(int(old.of[name])), "", "",
				"NOT COUNTED: no such path"})
			failures = append(failures, name+" was not counted")
		}
	}
	return columns(lines), failures
}

// columns aligns the cells of lines. The first and the last column are aligned on the left.
func columns(lines [][]string) string {
	widths := make([]int, len(lines[0]))
	for _, cells := range lines {
		for i, cell := range cells {
			widths[i] = max(widths[i], len(cell))
		}
	}
	var b strings.Builder
	for _, cells := range lines {
		var text strings.Builder
		for i, cell := range cells {
			switch i {
			case 0:
				fmt.Fprintf(&text, "%-*s", widths[i], cell)
			case len(cells) - 1:
				text.WriteString("   " + cell)
			default:
				fmt.Fprintf(&text, "   %*s", widths[i], cell)
			}
		}
		b.WriteString(strings.TrimRight(text.String(), " ") + "\n")
	}
	return b.String()
}

// A tool counts the instructions of a process in user mode.
type tool struct {
	name string // the kind, and the version
	runs int    // how often a path is run: the least is the result
	// returns the command that runs another one and writes to the file out
	line func(out string) []string
	read func(raw []byte) (int64, error) // reads the count of such a file
}

// newTool returns the tool of a kind, valgrind or perf.
func newTool(ctx context.Context, kind, valgrind string) (tool, error) {
	switch kind {
	case "valgrind":
		if valgrind == "" {
			valgrind = "valgrind"
		}
		version := strings.TrimSpace(output(ctx, valgrind, "--version"))
		if version == "" {
			return tool{}, fmt.Errorf("%s does not run (Debian: valgrind)", valgrind)
		}
		return tool{name: "valgrind " + strings.TrimPrefix(version, "valgrind-"), runs: 3,
			line: func(out string) []string {
				return []string{valgrind, "--tool=cachegrind", "--cache-sim=no", "--quiet",
					"--cachegrind-out-file=" + out}
			}, read: readCachegrind}, nil
	case "perf":
		t := tool{name: "perf " + strings.TrimPrefix(strings.TrimSpace(output(ctx, "perf",
			"--version")), "perf version "), runs: 25,
			line: func(out string) []string {
				return []string{"perf", "stat", "-x,", "-e", "instructions:u", "-o", out, "--"}
			}, read: readPerf}
		f, err := os.CreateTemp("", "perf")
		if err != nil {
			return t, err
		}
		defer os.Remove(f.Name())
		defer f.Close()
		line := append(t.line(f.Name()), "true")
		if err := command(ctx, line[0], line[1:]...); err != nil {
			return t, err
		}
		raw, err := os.ReadFile(f.Name())
		if err != nil {
			return t, err
		}
		_, err = t.read(raw)
		return t, err
	}
	return tool{}, fmt.Errorf("-tool %s: not one of valgrind, perf", kind)
}

// readPerf reads the output of perf stat -x,.
func readPerf(raw []byte) (int64, error) {
	for text := range strings.Lines(string(raw)) {
		if f := strings.Split(text, ","); len(f) > 2 && strings.HasPrefix(f[2], "instructions") {
			n, err := strconv.ParseInt(f[0], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("perf cannot count instructions on this machine: %s", f[0])
			}
			return n, nil
		}
	}
	return 0, errors.New("perf has printed no count")
}

// readCachegrind adds up the instructions of a file of cachegrind, without those of functions that
// depend on the time a run takes.
func readCachegrind(raw []byte) (int64, error) {
	var sum, all int64
	skip, symbols := false, false
	for text := range bytes.Lines(raw) {
		text = bytes.TrimSpace(text)
		if name, ok := bytes.CutPrefix(text, []byte("fn=")); ok {
			skip = ofScheduler(string(name))
			symbols = symbols || string(name) == "runtime.main"
			continue
		}
		if total, ok := bytes.CutPrefix(text, []byte("summary: ")); ok {
			n, err := strconv.ParseInt(string(total), 10, 64)
			if err != nil || n != all {
				return 0, fmt.Errorf("cachegrind has counted %s instructions, %d are in its file",
					total, all)
			}
			if !symbols {
				return 0, errors.New("the program has no symbols")
			}
			return sum, nil
		}
		if len(text) == 0 || text[0] < '0' || text[0] > '9' {
			continue
		}
		_, count, _ := bytes.Cut(text, []byte(" ")) // after the number of the line
		n, err := strconv.ParseInt(string(count), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("cachegrind's line %q", text)
		}
		if all += n; !skip {
			sum += n
		}
	}
	return 0, errors.New("the file of cachegrind is cut off")
}

// scheduler lists functions of Go's runtime whose instructions depend on how long a run takes, on
// the order in which threads run, and on the addresses that the kernel returns: those of its
// monitor, its scheduler, its locks, its search for free pages, and of moving stacks. The cache of
// type assertions is filled at random. A * is anything. They are 1 to 15 % of the instructions of a
// path, and nearly all of the spread between runs.
var scheduler = strings.Fields(`
	internal/chacha8rand.* runtime.(*itabTableType)* runtime.(*limiterEvent)*
	runtime.(*moduledata).textAddr runtime.(*pageAlloc)* runtime.(*pageBits)*
	runtime.(*pallocBits)* runtime.(*pallocData)* runtime.(*timers)* runtime.acquirep*
	runtime.allocm* runtime.casGToPreemptScan* runtime.casfrom_Gscanstatus runtime.casgstatus
	runtime.castogscanstatus runtime.checkRunqsNoP runtime.checkTimersNoP runtime.checkdead
	runtime.clone* runtime.entersyscall* runtime.execute runtime.exitsyscall*
	runtime.findRunnable runtime.futex* runtime.gcTrigger.test runtime.getitab runtime.gogo*
	runtime.gosched* runtime.handoffp runtime.incidlelocked runtime.interfaceSwitch
	runtime.lock2 runtime.lockWithRank* runtime.malg runtime.mcall* runtime.mcommoninit
	runtime.mergeSummaries runtime.mget runtime.minit* runtime.mput runtime.mstart*
	runtime.nanotime1* runtime.netpoll* runtime.newm* runtime.newosproc* runtime.note*
	runtime.osyield* runtime.pcdatavalue* runtime.pcvalue runtime.pidle* runtime.preemptone
	runtime.procyield* runtime.readvarint* runtime.reentersyscall runtime.releasep*
	runtime.retake runtime.runq* runtime.schedule runtime.selectgo
	runtime.setBlockOnExitSyscall runtime.startm runtime.stealWork runtime.step runtime.stopm
	runtime.syscallingThread* runtime.sysmon runtime.templateThread runtime.timeSleepUntil
	runtime.typeAssert runtime.unlock2* runtime.usleep* runtime.wakep runtime.wirep
`)

func ofScheduler(name string) bool {
	return slices.ContainsFunc(scheduler, func(pattern string) bool {
		prefix, any := strings.CutSuffix(pattern, "*")
		return name == pattern || any && strings.HasPrefix(name, prefix)
	})
}

// A path is one way through the program, or a benchmark, whose instructions are counted.
type path struct {
	name   string
	root   bool                 // other users run it in several processes
	before func() error         // prepares a run; may be nil
	line   func(n int) []string // the command; a benchmark measures n operations
	// A benchmark runs with few operations and with so many more. The difference has no preparation
	// in it. 0: no benchmark.
	operations int
}

// fewest is the number of operations in the shorter run of a benchmark. With one operation, package
// testing runs a benchmark once and not twice.
const fewest = 2

// A checker counts the paths.
type checker struct {
	tool    tool
	program string
	tests   string // directory of compiled tests
	dir     string
}

// count runs a path until it has as many counts as the tool needs.
func (c *checker) count(ctx context.Context, p path) counted {
	result := counted{name: p.name}
	if p.root && os.Getuid() != 0 {
		result.failure = "only root runs it in one process"
		return result
	}
	run := func(n int, tool []string) error {
		if p.before != nil {
			if err := p.before(); err != nil {
				return err
			}
		}
		return c.run(ctx, append(slices.Clone(tool), p.line(n)...))
	}
	out := filepath.Join(c.dir, "count")
	once := func(n int) (int64, error) {
		if err := run(n, c.tool.line(out)); err != nil {
			return 0, err
		}
		raw, err := os.ReadFile(out)
		if err != nil {
			return 0, err
		}
		return c.tool.read(raw)
	}
	// The first run fills caches. It also shows whether a failure is that of the tool.
	if err := run(1, nil); err != nil {
		result.failure = "without " + c.tool.name + " it fails too: " + err.Error()
		return result
	}
	for range c.tool.runs {
		n, err := once(fewest)
		if err == nil && p.operations > 0 {
			var more int64
			more, err = once(fewest + p.operations)
			n = (more - n) / int64(p.operations)
		}
		if err == nil && n <= 0 {
			err = errors.New("no instructions were counted")
		}
		if err != nil {
			result.failure = c.tool.name + ": " + err.Error()
			return result
		}
		result.runs = append(result.runs, n)
	}
	return result
}

// run runs a command in the environment in which instructions are counted: with one processor,
// without the garbage collector, preemption by signals and random addresses.
func (c *checker) run(ctx context.Context, line []string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "setarch", append([]string{"--addr-no-randomize"}, line...)...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "TMPDIR=" + c.dir, "LC_ALL=C",
		"TZ=UTC", "GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1",
		"LAYERBUILD_BENCH_TREE=" + filepath.Join(c.dir, "tree"),
		// The tests start no second process in a mount namespace.
		"LAYERBUILD_MOUNTTEST=none"}
	if lib := os.Getenv("VALGRIND_LIB"); lib != "" {
		cmd.Env = append(cmd.Env, "VALGRIND_LIB="+lib)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, reason(string(out)))
	}
	return nil
}

// reason returns what the output of a command tells about its failure: the system calls that
// valgrind does not have, or the end of the output.
func reason(out string) string {
	var calls []string
	for text := range strings.Lines(out) {
		_, call, ok := strings.Cut(text, "-linux syscall: ")
		if call = strings.TrimSpace(call); ok && !slices.Contains(calls, call) {
			calls = append(calls, call)
		}
	}
	if calls != nil {
		return "valgrind does not have the system calls " + strings.Join(calls, ", ")
	}
	out = strings.TrimSpace(out)
	return out[max(0, len(out)-250):]
}

// prepare makes what the paths need in c.dir: a context, and as root also a state with its image
// and the results of its build, and an OCI layout.
func (c *checker) prepare(ctx context.Context) error {
	in := func(name string) string { return filepath.Join(c.dir, name) }
	if err := errors.Join(
		write(in("context/Dockerfile"), "FROM scratch", "WORKDIR /app", "COPY src src/",
			"COPY --chmod=644 Dockerfile /", "ENV A=b", `CMD ["/app/src"]`),
		texts(in("context/src"), 40), texts(in("tree"), 400)); err != nil || os.Getuid() != 0 {
		return err
	}
	time.Sleep(50 * time.Millisecond) // a build reads younger files again
	build := []string{c.program, "build", "--root=" + in("state"), "-t", "app",
		"--output=type=oci,tar=false,dest=" + in("layout"), in("context")}
	return errors.Join(c.run(ctx, build), c.run(ctx, build))
}

// paths returns the paths. dir is where prepare has made what they need.
func (c *checker) paths(dir string) []path {
	in := func(name string) string { return filepath.Join(dir, name) }
	line := func(verb string, args ...string) func(int) []string {
		all := append([]string{c.program, verb}, args...)
		return func(int) []string { return all }
	}
	state, first := "--root="+in("state"), "--root="+in("first")
	build := []string{"--progress=plain", "-t", "app", in("context")}
	return []path{
		{name: "layerbuild --version", line: line("--version")},
		{name: "layerbuild -h", line: line("-h")},
		{name: "layerbuild help build", line: line("help", "build")},
		{name: "build --check", root: true, line: line("build",
			append([]string{"--check", state}, build...)...)},
		{name: "build of COPY, first", root: true, line: line("build",
			append([]string{first}, build...)...),
			before: func() error { return remove(in("first")) }},
		{name: "build of COPY, nothing changed", root: true, line: line("build",
			append([]string{state}, build...)...)},
		{name: "images", root: true, line: line("images", state)},
		{name: "history", root: true, line: line("history", state, "app")},
		{name: "inspect", root: true, line: line("inspect", state, "app")},
		{name: "analyze of an OCI layout", root: true, line: line("analyze", first, in("layout")),
			before: func() error { return remove(in("first")) }},
		{name: "analyze, nothing changed", root: true, line: line("analyze", state, in("layout"))},
		c.benchmark(10, "diff", "WriteUnchanged"),
		c.benchmark(5, "diff", "TarWriter", "tarWriter"),
		c.benchmark(5, "unpack", "Reader", "Reader"),
		c.benchmark(5, "gunzip", "Read", "gunzip"),
		c.benchmark(10, "parser", "Plan"),
		c.benchmark(200, "source", "Small"),
	}
}

// benchmark returns the path of a benchmark, or of one of its parts, of a package whose compiled
// tests are in c.tests.
func (c *checker) benchmark(operations int, pkg, name string, part ...string) path {
	match := "^Benchmark" + name + "$"
	for _, p := range part {
		match += "/^" + p + "$"
	}
	return path{name: strings.Join(append([]string{pkg + " Benchmark" + name}, part...), "/"),
		operations: operations, line: func(n int) []string {
			return []string{filepath.Join(c.tests, pkg+".test"), "-test.run=^$",
				"-test.bench=" + match, fmt.Sprintf("-test.benchtime=%dx", n)}
		}}
}

// texts fills dir with n files of words, which are the same on each machine.
func texts(dir string, n int) error {
	rnd := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("a layer is the difference between two states of a file system")
	for i := range n {
		var b strings.Builder
		for range 50 + rnd.IntN(500) {
			b.WriteString(words[rnd.IntN(len(words))] + " ")
		}
		path := filepath.Join(dir, fmt.Sprintf("d%02d/f%03d", i/10, i))
		if err := write(path, b.String()); err != nil {
			return err
		}
		then := time.Unix(1_700_000_000+int64(i), 0)
		if err := os.Chtimes(path, then, then); err != nil {
			return err
		}
	}
	return nil
}

// checkOptions are the options of bench check.
type checkOptions struct {
	layerbuild, tests, counts, tool, valgrind, release, dir string
	update                                                  bool
}

// checkChild compares the instructions of paths with those of the last release.
func checkChild(ctx context.Context, args []string) error {
	o := checkOptions{valgrind: os.Getenv("VALGRIND"), dir: os.Getenv("BENCH_DIR")}
	if o.dir == "" {
		o.dir = "/var/tmp"
	}
	flags := flag.NewFlagSet("bench check", flag.ExitOnError)
	flags.StringVar(&o.layerbuild, "layerbuild", "bin/check/layerbuild",
		"`path` of the program, with symbols")
	flags.StringVar(&o.tests, "tests", "bin/check", "`directory` of compiled tests")
	flags.StringVar(&o.counts, "counts", "bench/counts.txt", "`file` of the last release's counts")
	flags.StringVar(&o.tool, "tool", "", "`valgrind` or perf (default: that of the file)")
	flags.BoolVar(&o.update, "update", false, "write the counts to the file and compare nothing")
	flags.StringVar(&o.release, "release", "",
		"`name` of the release that -update counts (default: the commit)")
	flags.Parse(args)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return check(ctx, o)
}

func check(ctx context.Context, o checkOptions) (err error) {
	var old counts
	raw, err := os.ReadFile(o.counts)
	if err == nil {
		old, err = parseCounts(string(raw))
	}
	if err != nil && !o.update {
		return fmt.Errorf("%s: %w", o.counts, err)
	}
	kind, _, _ := strings.Cut(old.tool, " ")
	if o.tool != "" {
		kind = o.tool
	} else if kind == "" {
		kind = "valgrind"
	}
	for _, path := range []*string{&o.layerbuild, &o.tests} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if o.release == "" {
		o.release = strings.TrimSpace(output(ctx, "git", "-C", filepath.Dir(o.layerbuild),
			"describe", "--always", "--dirty", "--abbrev=12"))
	}
	info, err := buildinfo.ReadFile(o.layerbuild)
	if err != nil {
		return err
	}
	c := &checker{program: o.layerbuild, tests: o.tests}
	if c.tool, err = newTool(ctx, kind, o.valgrind); err != nil {
		return err
	}
	now := counts{release: o.release, golang: info.GoVersion, tool: c.tool.name, cpu: cpuKind(kind),
		of: map[string]int64{}}
	if err := now.comparable(old); err != nil && !o.update {
		return err
	}
	if old.tool != now.tool && !o.update {
		fmt.Fprintf(os.Stderr, "The last release was counted with %s, and this is %s.\n", old.tool,
			now.tool)
	}
	// The length of its name is always the same, and with it the work for paths.
	c.dir = filepath.Join(o.dir, fmt.Sprintf("layerbuild-check-%010d", os.Getpid()))
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove(c.dir)) }()
	if err := c.prepare(ctx); err != nil {
		return err
	}
	var results []counted
	for _, p := range c.paths(c.dir) {
		r := c.count(ctx, p)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Fprintf(os.Stderr, "%s: %d %s\n", r.name, r.runs, line(r.failure))
		if results = append(results, r); r.failure == "" {
			now.names = append(now.names, r.name)
			now.of[r.name] = r.least()
		}
	}
	if o.update {
		old = now
	}
	table, failures := compare(old, results)
	fmt.Print(table)
	if len(failures) > 0 {
		return fmt.Errorf("%d of %d paths: %s", len(failures), len(results),
			strings.Join(failures, "; "))
	}
	if o.update {
		return os.WriteFile(o.counts, []byte(now.String()), 0o644)
	}
	return nil
}

// cpuKind returns the architecture, and the processor's extensions by which programs select their
// code under a tool. valgrind 3.27 does not offer programs the others.
func cpuKind(tool string) string {
	kind, extensions := runtime.GOARCH, []string{"avx2", "bmi2"}
	if tool == "perf" {
		extensions = append(extensions, "avx512f", "sha_ni")
	}
	flags := strings.Fields(field("/proc/cpuinfo", "flags"))
	for _, name := range extensions {
		if slices.Contains(flags, name) {
			kind += " " + name
		}
	}
	return kind
}
