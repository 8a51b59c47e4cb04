package main

import (
	"bytes"
	"slices"
	"testing"

	"github.com/layerbuild/layerbuild/internal/event"
)

// TestWarnings checks that warnings about the state are part of the progress of a build, and are
// printed before and after it.
func TestWarnings(t *testing.T) {
	var stderr bytes.Buffer
	w := &warnings{stderr: &stderr}
	var shown []string
	w.warn("one")
	w.sendTo(func(e event.Event) { shown = append(shown, e.(event.Warning).Message) },
		func() { w.warn("two") })
	w.warn("three")
	if want := []string{"two"}; !slices.Equal(shown, want) {
		t.Errorf("the progress has the warnings %q, want %q", shown, want)
	}
	want := "layerbuild: warning: one\nlayerbuild: warning: three\n"
	if got := stderr.String(); got != want {
		t.Errorf("standard error has %q, want %q", got, want)
	}
}
