package main

import (
	"bytes"
	"cmp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/internal/imageanalysis"
)

// Text from an image cannot control the terminal.
func TestTablesArePrintable(t *testing.T) {
	const evil = "RUN \x1b]0;x\x07 \u202e \u009b1m \x7f"
	var b bytes.Buffer
	f := historyFlags{whole: true}
	var err error
	if f.template, f.table, err = parseFormat(historyTable, "table"); err != nil {
		t.Fatal(err)
	}
	if err := f.print(&b, []historyLine{{CreatedBy: evil, Comment: evil}}, "sha256:1"); err != nil {
		t.Fatal(err)
	}
	if err := printImages(&b, []listed{{Name: evil, ID: "sha256:1", Platforms: []string{evil},
		Created: time.Now()}}, false, false); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\x07\u202e\u009b\x7f") {
		t.Errorf("%q, want no control characters", b.String())
	}
	if !strings.Contains(b.String(), `\u001b`) {
		t.Errorf("%q, want what is there spelled out", b.String())
	}
}

// The lines of prune-image fit the terminal, or have 91 columns and sentences 80 without one. No
// word of a sentence is lost.
func TestPrunedWidth(t *testing.T) {
	res := &imageanalysis.Pruned{Entries: 3, Bytes: 123456789, Compressed: 23456789,
		Base: analyze.Base{Source: analyze.BaseGuess, Layers: 4},
		Layers: []imageanalysis.PrunedLayer{{Instruction: "RUN " + strings.Repeat("make ", 30),
			Before: 123456789, After: 12345}}}
	for _, width := range []int{0, 50, 80, 120} {
		var b bytes.Buffer
		if err := printPruned(&b, res, width); err != nil {
			t.Fatal(err)
		}
		row, sentences, _ := strings.Cut(b.String(), "\n")
		if n, want := utf8.RuneCountInString(row), cmp.Or(width, 91); n != want {
			t.Errorf("width %d: a row of %d columns: %s", width, n, row)
		}
		for line := range strings.Lines(sentences) {
			if n := utf8.RuneCountInString(line) - 1; n > cmp.Or(width, 80) {
				t.Errorf("width %d: a line of %d columns: %s", width, n, line)
			}
		}
		want := "the first 4 layers are kept: they are the base image, as a guess; if it is " +
			"wrong, give --base 123MB of dead content removed; the compressed image is 23.5MB smaller, " +
			"with the same files"
		if got := strings.Join(strings.Fields(sentences), " "); got != want {
			t.Errorf("width %d: %q, want %q", width, got, want)
		}
	}
}
