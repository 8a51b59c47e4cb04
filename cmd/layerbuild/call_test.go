package main

import (
	"testing"

	"github.com/layerbuild/layerbuild/internal/buildkittest"
)

// The JSON of --check and --call has the form of BuildKit's.
func TestCallAsBuildKit(t *testing.T) {
	const lint, targets, outlines = "frontend/subrequests/lint/lint.go",
		"frontend/subrequests/targets/targets.go", "frontend/subrequests/outline/outline.go"
	const ops = "solver/pb/ops.pb.go"
	for _, tt := range []struct {
		ours   any
		theirs buildkittest.Struct
	}{
		{checkResult{}, buildkittest.Struct{File: lint, Name: "LintResults"}},
		{finding{}, buildkittest.Struct{File: lint, Name: "Warning"}},
		{checkError{}, buildkittest.Struct{File: lint, Name: "BuildError"}},
		{subrequest{}, buildkittest.Struct{File: "frontend/subrequests/types.go",
			Name: "Request"}},
		{namedValue{}, buildkittest.Struct{File: "frontend/subrequests/types.go", Name: "Named"}},
		{targetList{}, buildkittest.Struct{File: targets, Name: "List"}},
		{target{}, buildkittest.Struct{File: targets, Name: "Target"}},
		{outline{}, buildkittest.Struct{File: outlines, Name: "Outline"}},
		{outlineArg{}, buildkittest.Struct{File: outlines, Name: "Arg"}},
		{outlineMount{}, buildkittest.Struct{File: outlines, Name: "Secret"}},
		{outlineMount{}, buildkittest.Struct{File: outlines, Name: "SSH"}},
		{outlineCache{}, buildkittest.Struct{File: outlines, Name: "CacheMount"}},
		{sourceFile{}, buildkittest.Struct{File: ops, Name: "SourceInfo",
			Without: []string{"definition"}}},
		{location{}, buildkittest.Struct{File: ops, Name: "Location"}},
		{lineRange{}, buildkittest.Struct{File: ops, Name: "Range"}},
		{linePosition{}, buildkittest.Struct{File: ops, Name: "Position",
			Without: []string{"character"}}},
	} {
		buildkittest.Compare(t, tt.ours, tt.theirs)
	}
}

func TestCallSet(t *testing.T) {
	for _, tt := range []struct {
		text, err string
		want      call
	}{
		{"check", "", call{action: "check"}},
		{"lint,format=json", "", call{action: "check", format: "json"}},
		{"outline,format=text", "", call{action: "outline", format: "text"}},
		{"check,ignorestatus=true,format=json", "", call{"check", "json", true}},
		{"describe", "build, check, outline or targets is expected, and an optional suffix " +
			",format=json", call{}},
		{"check,format=xml", "the format is text, json or sarif", call{}},
		{"check,format=sarif", "", call{action: "check", format: "sarif"}},
		{"targets,format=sarif", "only check has the format sarif", call{}},
		{"check,ignorestatus=maybe", "ignorestatus is true or false", call{}},
		{"check,", "an option is format=json, format=sarif or ignorestatus=true", call{}},
	} {
		var c call
		err := c.Set(tt.text)
		if text := ""; err != nil {
			text = err.Error()
			if text != tt.err {
				t.Errorf("Set(%q) = %q, want %q", tt.text, text, tt.err)
			}
		} else if tt.err != "" || c != tt.want {
			t.Errorf("Set(%q) = %+v, want %+v, %q", tt.text, c, tt.want, tt.err)
		}
	}
}
