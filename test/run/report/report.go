package report

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// Package is the result of one package's tests.
type Package struct {
	Dir     string
	Passed  int // numbers of tests and subtests
	Failed  int
	Skipped []Skip

	Wall, CPU time.Duration // elapsed time of the tests, and CPU time of their processes

	failures []string          // the output of the tests that failed
	output   map[string]string // the output of each running test
	broken   error
	closing  string // the binary's output outside of tests
}

// Skip is a test that was skipped or, in a list of expected skips, a set of tests.
type Skip struct {
	User   string // the user who ran it
	Dir    string // the package's directory
	Test   string // its name; in a list a regular expression that matches the whole name
	Reason string

	pattern *regexp.Regexp
}

// NewPackage returns an empty result.
func NewPackage(dir string) *Package { return &Package{Dir: dir, output: map[string]string{}} }

// Broken records that the package's tests did not end.
func (p *Package) Broken(err error) { p.broken = err }

// marker precedes each line of the framework with -test.v=test2json, even in the middle of a line
// that a test has begun (cmd/internal/test2json).
const marker = "\x16"

var (
	frame  = regexp.MustCompile(`^=== (RUN|PAUSE|CONT|NAME) +(\S*)`)
	result = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) `)
)

// Parse adds the output of a test binary to the result.
func (p *Package) Parse(log []byte) {
	current := ""
	lines := bufio.NewScanner(bytes.NewReader(log))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		line := lines.Text()
		before, framed, isFramed := strings.Cut(line, marker)
		if !isFramed {
			p.add(current, line)
			continue
		}
		if strings.TrimSpace(before) != "" {
			p.add(current, before)
		}
		if m := frame.FindStringSubmatch(framed); m != nil {
			current = m[2]
			continue
		}
		// A subtest's result is indented, before or after the marker.
		if m := result.FindStringSubmatch(framed); m != nil {
			p.finish(m[1], m[2])
			current, _ = cutLast(m[2])
			continue
		}
		p.add(current, framed)
	}
	for name, out := range p.output {
		p.failures = append(p.failures, fmt.Sprintf("%s did not end:\n%s", name, out))
	}
}

// cutLast returns a subtest's parent.
func cutLast(name string) (string, bool) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return "", false
	}
	return name[:i], true
}

func (p *Package) add(test, line string) {
	if test == "" {
		p.closing += line + "\n"
		return
	}
	p.output[test] += line + "\n"
}

// finish records the result of a test.
func (p *Package) finish(how, test string) {
	out := p.output[test]
	delete(p.output, test)
	switch how {
	case "PASS":
		p.Passed++
	case "SKIP":
		p.Skipped = append(p.Skipped, Skip{Dir: p.Dir, Test: test, Reason: lastLine(out)})
	case "FAIL":
		p.Failed++
		p.failures = append(p.failures, fmt.Sprintf("--- FAIL: %s\n%s", test, tail(out, 20000)))
	}
}

var place = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: `)

// lastLine returns the last line that is not empty, without the position in the source.
func lastLine(out string) string {
	out = strings.TrimSpace(out)
	return place.ReplaceAllString(out[strings.LastIndexByte(out, '\n')+1:], "")
}

// tail returns at most the last n bytes of s, with a note if s is longer.
func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return fmt.Sprintf("[%d bytes left out]\n%s", len(s)-n, s[len(s)-n:])
}

// ok reports whether the package's tests ended and none failed.
func (p *Package) ok() bool { return p.Failed == 0 && p.broken == nil }

// Print prints a line, and the output of each test that failed.
func (p *Package) Print(w io.Writer) {
	word := "ok  "
	if !p.ok() {
		word = "FAIL"
	}
	fmt.Fprintf(w, "%s  %-28s %d passed, %d failed, %d skipped, %.1f s, CPU %.1f s\n",
		word, p.Dir, p.Passed, p.Failed, len(p.Skipped), p.Wall.Seconds(), p.CPU.Seconds())
	for _, f := range p.failures {
		fmt.Fprintln(w, f)
	}
	if p.broken != nil {
		fmt.Fprintf(w, "%s: %v\n%s\n", p.Dir, p.broken, tail(p.closing, 20000))
	}
}

// Summary sums up packages.
type Summary struct {
	User string

	passed, failed int
	skipped        []Skip
	bad            []string
}

// Add adds a package.
func (s *Summary) Add(p *Package) {
	s.passed += p.Passed
	s.failed += p.Failed
	if p.broken != nil && p.Failed == 0 {
		s.failed++
	}
	if !p.ok() {
		s.bad = append(s.bad, p.Dir)
	}
	for _, skip := range p.Skipped {
		skip.User = s.User
		s.skipped = append(s.skipped, skip)
	}
}

// Print prints the skips that are not expected, then the totals. It reports whether nothing failed
// and, if strict is set, all skips were expected.
func (s *Summary) Print(w io.Writer, expected []Skip, strict bool) bool {
	surprises := 0
	for _, same := range s.unexpected(expected) {
		surprises += len(same)
		names := same[0].Test
		if len(same) > 1 {
			names = fmt.Sprintf("%s and %d more", names, len(same)-1)
		}
		fmt.Fprintf(w, "SKIPPED as %s: %s: %s: %s\n", s.User, same[0].Dir, names, same[0].Reason)
	}
	if len(s.bad) > 0 {
		fmt.Fprintf(w, "failed as %s: %s\n", s.User, strings.Join(s.bad, " "))
	}
	if surprises > 0 && strict {
		fmt.Fprintf(w, "%d tests were skipped that must run here\n", surprises)
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skipped))
	return s.failed == 0 && (surprises == 0 || !strict)
}

// unexpected returns the skips that are not expected. Skips of one package for the same reason are
// returned together.
func (s *Summary) unexpected(expected []Skip) [][]Skip {
	var all [][]Skip
	at := map[[2]string]int{}
	for _, skip := range s.skipped {
		if match(expected, skip) {
			continue
		}
		kind := [2]string{skip.Dir, skip.Reason}
		i, ok := at[kind]
		if !ok {
			i = len(all)
			at[kind] = i
			all = append(all, nil)
		}
		all[i] = append(all[i], skip)
	}
	return all
}

// match reports whether a skip is in a list.
func match(expected []Skip, skip Skip) bool {
	for _, e := range expected {
		if (e.User == "*" || e.User == skip.User || e.User == "user" && skip.User != "root") &&
			e.Dir == skip.Dir && e.pattern.MatchString(skip.Test) {
			return true
		}
	}
	return false
}

// ParseSkips reads a list of expected skips: lines "USER DIRECTORY TEST REASON", where USER is
// root, user (any other user) or *, and TEST is a regular expression. A comment begins with #.
func ParseSkips(data []byte) ([]Skip, error) {
	var all []Skip
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 4 {
			return nil, fmt.Errorf("line %d: %q is not USER DIRECTORY TEST REASON", n, line)
		}
		pattern, err := regexp.Compile("^(?:" + f[2] + ")$")
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		all = append(all, Skip{User: f[0], Dir: f[1], Test: f[2],
			Reason: strings.Join(f[3:], " "), pattern: pattern})
	}
	return all, nil
}
