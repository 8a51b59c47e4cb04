package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
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
