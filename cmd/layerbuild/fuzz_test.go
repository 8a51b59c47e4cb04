package main

import (
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzCommandLine checks that any arguments, one a line, are either accepted or refused with a
// message that is safe for a terminal, and that no file is made.
func FuzzCommandLine(f *testing.F) {
	for _, bad := range badValues {
		for _, value := range bad.values {
			f.Add("build\n--" + bad.flag + "=" + value + "\n.")
			f.Add(bad.verb + "\n--" + bad.flag + "\n" + value)
		}
	}
	for _, line := range []string{"", "help\nbuild", "--root\ns\nimages", "-t\nx\nrun\n.",
		"run\n-it\napp\n--\n-x", "build\n-qf\n-\n-", "ps", "tag\na\nb\nc", "\x1b[2J\n\xff"} {
		f.Add(line)
	}
	work := f.TempDir()
	f.Fuzz(func(t *testing.T, line string) {
		if strings.Contains(line, "\x00") {
			return // arguments cannot contain NUL
		}
		got := try(t, map[string]string{"HOME": work}, strings.Split(line, "\n")...)
		if got.err == nil {
			return
		}
		if got.status != got.want {
			t.Errorf("status %d, want %d", got.status, got.want)
		}
		if !utf8.ValidString(got.text) || strings.ContainsAny(got.text,
			"\x1b\x07\x7f\u009b\u202e") {
			t.Errorf("%q, want text for a terminal", got.text)
		}
		if entries, err := os.ReadDir(work); err != nil || len(entries) > 0 {
			t.Fatalf("%v, %v, want an empty directory", entries, err)
		}
	})
}
