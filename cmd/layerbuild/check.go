package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/parser"
)

// call is the value of --call: an action with an optional format, as ACTION,format=FORMAT.
type call struct{ action, format string }

func (c *call) Set(s string) error {
	action, format, ok := strings.Cut(s, ",format=") // the form of buildx
	switch action {
	case "build", "check", "lint", "targets":
	default:
		return errors.New(
			"build, check or targets is expected, and an optional suffix ,format=json")
	}
	if ok && format != "text" && format != "json" {
		return errors.New("the format is text or json")
	}
	*c = call{action, format}
	return nil
}

func (c *call) Type() string   { return "string" }
func (c *call) String() string { return c.action }

// action sets the action that the flags select.
func (f *buildFlags) action(o *imagebuild.Options, _ *env) error {
	o.ListTargets = f.call.action == "targets"
	o.Check = f.call.action == "check" || f.call.action == "lint" || f.check && !o.ListTargets
	return checkRules(f.lintExperimental)
}

// resultFormat returns the format of --check and --call.
func (f *buildFlags) resultFormat() string { return cmp.Or(f.call.format, f.format) }

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
func (f *buildFlags) reportCheck(e *env, display *ui.UI, res *imagebuild.Result, err error,
	print ui.PrintOptions) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if f.resultFormat() == "json" {
		if err := printJSON(e.stdout, newCheckResult(res, err)); err != nil {
			return err
		}
	} else if len(res.Warnings) > 0 || err == nil {
		if err := ui.PrintFindings(e.stdout, checked(res),
			func(string) []byte { return res.Text }, print); err != nil {
			return err
		}
	}
	if err != nil {
		return explain(e, display, "plain", res, err, print)
	}
	if len(res.Warnings) > 0 {
		return exitError{exitFailed}
	}
	return nil
}

func checked(res *imagebuild.Result) []event.Warning {
	var list []event.Warning
	for _, w := range res.Warnings {
		list = append(list, event.Warning{Rule: w.Rule, Message: w.Msg, URL: w.URL,
			File: res.Dockerfile, Line: w.Range.Start})
	}
	return list
}

// checkResult is the output of --check --format json. It has the fields of BuildKit's lint request,
// and fields for file and lines, which are easier to use than ranges.
type checkResult struct {
	Warnings []finding   `json:"warnings"`
	Error    *checkError `json:"buildError,omitempty"`
}

// finding is one warning of a check.
type finding struct {
	Rule        string   `json:"ruleName"`
	Description string   `json:"description"`
	URL         string   `json:"url,omitempty"`
	Detail      string   `json:"detail"`
	File        string   `json:"file"`
	Start       int      `json:"startLine"`
	End         int      `json:"endLine"`
	Location    location `json:"location"`
}

// checkError is the mistake that ended a check.
type checkError struct {
	Message  string   `json:"message"`
	File     string   `json:"file,omitempty"`
	Start    int      `json:"startLine,omitempty"`
	End      int      `json:"endLine,omitempty"`
	Location location `json:"location"`
}

type location struct {
	Ranges []lineRange `json:"ranges,omitempty"`
}

type lineRange struct {
	Start linePosition `json:"start"`
	End   linePosition `json:"end"`
}

type linePosition struct {
	Line int `json:"line"`
}

func locationOf(r parser.Range) location {
	if r.Start == 0 {
		return location{}
	}
	return location{[]lineRange{{linePosition{r.Start}, linePosition{max(r.Start, r.End)}}}}
}

// newCheckResult returns the findings of a check in their printed form.
func newCheckResult(res *imagebuild.Result, err error) checkResult {
	out := checkResult{Warnings: make([]finding, 0, len(res.Warnings))}
	for _, w := range res.Warnings {
		out.Warnings = append(out.Warnings, finding{
			Rule: w.Rule, Description: w.Description, URL: w.URL, Detail: w.Msg,
			File: res.Dockerfile, Start: w.Range.Start, End: w.Range.End,
			Location: locationOf(w.Range),
		})
	}
	if err == nil {
		return out
	}
	out.Error = &checkError{Message: err.Error()}
	var parse *parser.Error
	var step *build.StepError
	switch {
	case errors.As(err, &step):
		out.Error = &checkError{step.Err.Error(), step.File, step.Range.Start, step.Range.End,
			locationOf(step.Range)}
	case errors.As(err, &parse):
		out.Error = &checkError{parse.Err.Error(), parse.File, parse.Range.Start, parse.Range.End,
			locationOf(parse.Range)}
	}
	return out
}

// target is one line of --call targets --format json.
type target struct {
	Name        string `json:"name,omitempty"`
	Default     bool   `json:"default,omitempty"`
	Description string `json:"description,omitempty"`
	Base        string `json:"base"`
	Platform    string `json:"platform,omitempty"`
	Line        int    `json:"line"`
}

// reportTargets prints the stages that --target can name.
func (f *buildFlags) reportTargets(e *env, res *imagebuild.Result) error {
	if f.resultFormat() == "json" {
		list := make([]target, 0, len(res.Targets))
		for _, t := range res.Targets {
			list = append(list, target{t.Name, t.Default, t.Description, t.Base,
				t.Platform, t.Range.Start})
		}
		return printJSON(e.stdout, map[string]any{"targets": list})
	}
	tw := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "TARGET\tBASE\tDESCRIPTION")
	for i, t := range res.Targets {
		name := cmp.Or(t.Name, strconv.Itoa(i))
		if t.Default {
			name += " (default)"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", ui.Visible(name), ui.Visible(t.Base),
			ui.Visible(t.Description))
	}
	return tw.Flush()
}
