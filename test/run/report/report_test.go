package report

import (
	"errors"
	"strings"
	"testing"
)

// log is the output of a test binary with -test.v=test2json.
const log = "\x16=== RUN   TestGood\n\x16--- PASS: TestGood (0.00s)\n" +
	"\x16=== RUN   TestSkip\n    a_test.go:12: needs root\n\x16--- SKIP: TestSkip (0.00s)\n" +
	"\x16=== RUN   TestBad\nno newline\x16=== RUN   TestBad/sub\n    a_test.go:20: got 1, want 2\n\x16=== NAME  TestBad\n    a_test.go:25: mine\n" +
	"\x16--- FAIL: TestBad (0.00s)\n    \x16--- FAIL: TestBad/sub (0.00s)\nFAIL\n"

func TestParse(t *testing.T) {
	p := NewPackage("a/b")
	p.Parse([]byte(log))
	if p.Passed != 1 || p.Failed != 2 || len(p.Skipped) != 1 {
		t.Fatalf("%d passed, %d failed, %d skipped; want 1, 2, 1", p.Passed,
			p.Failed, len(p.Skipped))
	}
	if got := p.Skipped[0]; got.Test != "TestSkip" || got.Reason != "needs root" {
		t.Errorf("skip = %+v", got)
	}
	var out strings.Builder
	p.Print(&out)
	for _, want := range []string{"FAIL  a/b", "got 1, want 2", "no newline", "mine"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, out.String())
		}
	}
}

func TestParseUnfinished(t *testing.T) {
	p := NewPackage("a")
	p.Parse([]byte("\x16=== RUN   TestHangs\nsome output\n"))
	p.Broken(errors.New("exit status 2"))
	var out strings.Builder
	p.Print(&out)
	for _, want := range []string{"FAIL  a", "TestHangs did not end",
		"some output", "exit status 2"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, out.String())
		}
	}
	s := Summary{User: "root"}
	s.Add(p)
	if s.Print(&out, nil, false) {
		t.Error("a package that did not end counts as passed")
	}
}

func TestSummary(t *testing.T) {
	tests := []struct {
		name   string
		skips  string
		user   string
		strict bool
		want   bool
	}{
		{name: "not strict", user: "root", want: true},
		{name: "strict, not listed", user: "root", strict: true, want: false},
		{name: "strict, listed", skips: "root a/b TestSkip because", user: "root",
			strict: true, want: true},
		{name: "strict, listed for users", skips: "user a/b TestSkip because", user: "root",
			strict: true, want: false},
		{name: "strict, listed for all", skips: "# all\n* a/b Test.* because", user: "other",
			strict: true, want: true},
		{name: "strict, part of a name", skips: "* a/b TestSki because", user: "other",
			strict: true, want: false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			expected, err := ParseSkips([]byte(tt.skips))
			if err != nil {
				t.Fatal(err)
			}
			p := NewPackage("a/b")
			p.Parse([]byte("\x16=== RUN   TestSkip\n    a_test.go:12: needs root\n\x16--- SKIP: TestSkip (0.00s)\nPASS\n"))
			s := Summary{User: tt.user}
			s.Add(p)
			var out strings.Builder
			if got := s.Print(&out, expected, tt.strict); got != tt.want {
				t.Errorf("Print = %v, want %v\n%s", got, tt.want, out.String())
			}
		})
	}
}

func TestParseSkipsErrors(t *testing.T) {
	for _, bad := range []string{"root a TestX", "root a ( because"} {
		if _, err := ParseSkips([]byte(bad)); err == nil {
			t.Errorf("ParseSkips(%q) returns no error", bad)
		}
	}
}
