package parser

import (
	"testing"

	"github.com/layerbuild/layerbuild/internal/buildkittest"
)

// The version is that of the BuildKit module that go.mod requires.
func TestSyntaxVersion(t *testing.T) {
	want := buildkittest.Const(t, "version", "frontend/dockerfile/version/version.go") + ".0"
	if SyntaxVersion != want {
		t.Errorf("SyntaxVersion = %s, want %s", SyntaxVersion, want)
	}
}
