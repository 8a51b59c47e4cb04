package ui

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/event"
)

func TestFailure(t *testing.T) {
	const source = "FROM busybox\n\nRUN false\n\nCMD a\nCMD b\n"
	exit := errors.New(`process "/bin/sh -c false" did not complete successfully: exit code: 1`)
	for _, tt := range []struct {
		name string
		f    Failure
		want string
	}{
		{"everything", Failure{Step: "[stage 2/3] RUN false", Output: []string{"one", "two"},
			File: "Dockerfile", Source: []byte(source), Start: 3, End: 3, Err: exit}, `
------
 > [stage 2/3] RUN false:
one
two
------
Dockerfile:3
--------------------
   1 |     FROM busybox
   2 |     
   3 | >>> RUN false
   4 |     
   5 |     CMD a
--------------------
error: process "/bin/sh -c false" did not complete successfully: exit code: 1
`},
		{"no output", Failure{Step: "RUN false", File: "Dockerfile", Source: []byte(source),
			Start: 1, Err: exit}, `
Dockerfile:1
--------------------
   1 | >>> FROM busybox
   2 |     
   3 |     RUN false
--------------------
error: process "/bin/sh -c false" did not complete successfully: exit code: 1
`},
		{"several lines", Failure{File: "x/Dockerfile", Source: []byte(source), Start: 3, End: 5,
			Err: errors.New("no")}, `
x/Dockerfile:3
--------------------
   2 |     
   3 | >>> RUN false
   4 | >>> 
   5 | >>> CMD a
   6 |     CMD b
--------------------
error: no
`},
		{"beyond the end", Failure{File: "Dockerfile", Source: []byte(source), Start: 6, End: 99,
			Err: errors.New("no")}, `
Dockerfile:6
--------------------
   4 |     
   5 |     CMD a
   6 | >>> CMD b
--------------------
error: no
`},
		{"a line that is not there", Failure{File: "Dockerfile", Source: []byte(source), Start: 7,
			Err: errors.New("no")}, "\nerror: no\n"},
		{"no place", Failure{Err: errors.New("a\nb\x1b[31m\n")}, "\nerror: a\nb\n"},
		{"hostile", Failure{Step: "a\x1b[2Jb", Output: []string{"\x1b]0;t\x07x"},
			File: "D\x1b[31m", Start: 1,
			Source: []byte("RUN\ta\x1b[31m\x00\xff\u202e" + strings.Repeat("x", 300) + "\r\nb"),
			Err:    errors.New("\x1b[1mno")}, `
------
 > ab:
x
------
D:1
--------------------
   1 | >>> RUN     a\u001b[31m\u0000\xff\u202e` + strings.Repeat("x", 163) + `..
   2 |     b
--------------------
error: no
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			if err := tt.f.Print(&b, PrintOptions{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want[1:], b.String()); diff != "" {
				t.Errorf("failure differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFailureColor(t *testing.T) {
	var b strings.Builder
	if err := (Failure{Err: errors.New("no")}).Print(&b, PrintOptions{Color: true}); err != nil {
		t.Fatal(err)
	}
	if want := "\x1b[31merror:\x1b[0m no\n"; b.String() != want {
		t.Errorf("printed %q, want %q", b.String(), want)
	}
}

func TestPrintWarnings(t *testing.T) {
	warnings := []event.Warning{
		{Rule: "FromAsCasing", Message: "'as' and 'FROM' keywords' casing do not match",
			File: "Dockerfile", Line: 1,
			URL: "https://docs.docker.com/go/dockerfile/rule/from-as-casing/"},
		{Message: "owners are\nnot kept\x1b[2J"},
	}
	source := func(string) []byte { return []byte("FROM scratch as x\nCMD a\n") }
	for _, tt := range []struct {
		name  string
		print func(b *strings.Builder) error
		want  string
	}{
		{"none", func(b *strings.Builder) error { return PrintWarnings(b, nil, PrintOptions{}) },
			""},
		{"one", func(b *strings.Builder) error {
			return PrintWarnings(b, warnings[:1], PrintOptions{})
		}, `
 1 warning found:
 - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (Dockerfile:1)
`},
		{"two", func(b *strings.Builder) error {
			return PrintWarnings(b, warnings, PrintOptions{})
		}, `
 2 warnings found:
 - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (Dockerfile:1)
 - owners are not kept
`},
		{"check without findings", func(b *strings.Builder) error {
			return PrintFindings(b, nil, source, PrintOptions{})
		},
			"Check complete, no warnings found.\n"},
		{"check", func(b *strings.Builder) error {
			return PrintFindings(b, warnings, source, PrintOptions{})
		},
			`Check complete, 2 warnings have been found!

WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/
'as' and 'FROM' keywords' casing do not match
Dockerfile:1
--------------------
   1 | >>> FROM scratch as x
   2 |     CMD a
--------------------

WARNING:
owners are
not kept
`},
		{"check without source", func(b *strings.Builder) error {
			return PrintFindings(b, warnings[:1], nil, PrintOptions{})
		}, `Check complete, 1 warning has been found!

WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/
'as' and 'FROM' keywords' casing do not match
Dockerfile:1
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			if err := tt.print(&b); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, b.String()); diff != "" {
				t.Errorf("differs (-want +got):\n%s", diff)
			}
		})
	}
}
