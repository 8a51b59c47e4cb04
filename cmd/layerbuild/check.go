package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/parser"
)

// action sets the action that the flags select.
func (f *buildFlags) action(o *imagebuild.Options, _ *env) error {
	o.ListTargets, o.Outline = f.call.action == "targets", f.call.action == "outline"
	o.Check = f.call.action == "check" || f.check && f.call.action == "build"
	if f.resultFormat() == "sarif" && (o.ListTargets || o.Outline ||
		f.call.action == describeCall) {
		return badValue("format", f.format, errors.New("only --check and --call check have it"))
	}
	return checkRules(f.lintExperimental)
}

// resultFormat returns the format of --check and --call.
func (f *buildFlags) resultFormat() string {
	if f.format == "oci" || f.format == "docker" { // a format of the image
		return cmp.Or(f.call.format, "text")
	}
	return cmp.Or(f.call.format, f.format)
}

// checkRules checks the values of --lint.
func checkRules(names []string) error {
	known := parser.ExperimentalRules()
	for _, name := range names {
		if name != "all" && !slices.Contains(known, name) {
			return badValue("lint", name, fmt.Errorf("all, %s is expected", orList(known)))
		}
	}
	return nil
}

// reportCheck prints the result of --check: the findings on standard output, and the error that
// ended the check, if there is one, on standard error.
func (f *buildFlags) reportCheck(e *env, b *finished, err error, print ui.PrintOptions) error {
	res := b.res
	if errors.Is(err, context.Canceled) {
		return err
	}
	switch format := f.resultFormat(); {
	case format == "json":
		if err := printJSON(e.json(e.stdout), newCheckResult(res, err)); err != nil {
			return err
		}
	case format == "sarif":
		log := checkLog(res, f.dockerfilePath(e, &b.o, res), err)
		if err := printJSON(e.json(e.stdout), log); err != nil {
			return err
		}
	case len(res.Warnings) > 0 || err == nil:
		if err := ui.PrintFindings(e.text(e.stdout), checked(res),
			func(string) []byte { return res.Text }, print); err != nil {
			return err
		}
	}
	if err != nil {
		return f.explain(e, b, err, print)
	}
	if len(res.Warnings) > 0 && !f.call.ignoreStatus {
		return exitError{exitFailed}
	}
	return nil
}

func checked(res *imagebuild.Result) []event.Warning {
	var list []event.Warning
	for _, w := range res.Warnings {
		list = append(list, event.Warning{Rule: w.Rule, Message: w.Msg, URL: w.URL,
			File: res.Dockerfile, Line: w.Range.Start, End: w.Range.End})
	}
	return list
}

// checkResult is the output of --check --format json: that of BuildKit's lint request.
type checkResult struct {
	Warnings []finding    `json:"warnings"`
	Sources  []sourceFile `json:"sources"`
	Error    *checkError  `json:"buildError,omitempty"`
}

// finding is one warning of a check.
type finding struct {
	Rule        string    `json:"ruleName"`
	Description string    `json:"description,omitempty"`
	URL         string    `json:"url,omitempty"`
	Detail      string    `json:"detail,omitempty"`
	Location    *location `json:"location,omitempty"`
}

// checkError is the mistake that ended a check.
type checkError struct {
	Message  string   `json:"message"`
	Location location `json:"location"`
}

// newCheckResult returns the findings of a check in their printed form.
func newCheckResult(res *imagebuild.Result, err error) checkResult {
	out := checkResult{Warnings: make([]finding, 0, len(res.Warnings)), Sources: []sourceFile{}}
	if res.Text != nil {
		out.Sources = []sourceFile{{res.Dockerfile, res.Text, "Dockerfile"}}
	}
	for _, w := range res.Warnings {
		out.Warnings = append(out.Warnings, finding{Rule: w.Rule, Description: w.Description,
			URL: w.URL, Detail: w.Msg, Location: locationOf(w.Range)})
	}
	if err == nil {
		return out
	}
	place, err := errorPlace(err)
	out.Error = &checkError{Message: err.Error()}
	if place.Start > 0 {
		out.Error.Location = *locationOf(place)
	}
	return out
}
