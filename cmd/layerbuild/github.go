package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/github"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/ui"
)

// githubVariable is the variable with the default of --github.
const githubVariable = "LAYERBUILD_GITHUB"

// githubParts names the things that a build does on a runner of GitHub Actions.
var githubParts = []string{"annotations", "groups", "summary", "waste"}

// githubList is the value of --github: some of githubParts, all, or off.
type githubList struct {
	parts []string
	given bool
}

func (l *githubList) Set(s string) error {
	var parts []string
	for part := range strings.SplitSeq(s, ",") {
		switch part = strings.TrimSpace(part); {
		case part == "all":
			parts = append(parts, githubParts...)
		case part == "off" && s == part:
		case slices.Contains(githubParts, part):
			parts = append(parts, part)
		default:
			return fmt.Errorf("off, all, or some of %s is expected", orList(githubParts))
		}
	}
	l.parts, l.given = parts, true
	return nil
}

func (l *githubList) Type() string   { return "strings" }
func (l *githubList) String() string { return strings.Join(l.parts, ",") }

// runner holds the parts that a verb does on a runner of GitHub Actions. The zero value is for any
// other place.
type runner struct {
	annotations, groups, summary, waste bool
	// summaryFile is the file to which the summary is appended.
	summaryFile string
}

// resolveGitHub returns what the flag or the variable selects.
func resolveGitHub(e *env, flag githubList) (runner, error) {
	if !onGitHub(e) {
		return runner{}, nil
	}
	if !flag.given {
		if err := flag.Set(cmp.Or(e.getenv(githubVariable), "all")); err != nil {
			return runner{}, fmt.Errorf("$%s %q: %w", githubVariable, e.getenv(githubVariable), err)
		}
	}
	has := func(part string) bool { return slices.Contains(flag.parts, part) }
	r := runner{annotations: has("annotations"), groups: has("groups"), waste: has("waste"),
		summary: has("summary"), summaryFile: e.getenv("GITHUB_STEP_SUMMARY")}
	r.summary = r.summary && r.summaryFile != ""
	return r, nil
}

// onGitHub reports whether a runner of GitHub Actions started the program.
func onGitHub(e *env) bool { return e.getenv("GITHUB_ACTIONS") == "true" }

// toRunner reports whether a runner of GitHub Actions may read a standard stream: it is not
// redirected to a file.
func toRunner(e *env, f *os.File) bool {
	fi, err := f.Stat()
	return onGitHub(e) && err == nil && !fi.Mode().IsRegular()
}

// text returns a standard stream for text that may be hostile. What a runner of GitHub Actions
// would read as a command is escaped.
func (e *env) text(f *os.File) io.Writer {
	if toRunner(e, f) {
		return github.NewWriter(f)
	}
	return f
}

// json is like text for JSON.
func (e *env) json(f *os.File) io.Writer {
	if toRunner(e, f) {
		return github.NewJSONWriter(f)
	}
	return f
}

// annotate writes an annotation to standard error, unless that is redirected to a file.
func (r runner) annotate(e *env, a github.Annotation) {
	if !r.annotations || !toRunner(e, e.stderr) {
		return
	}
	lines := strings.Split(strings.TrimRight(a.Message, "\n"), "\n")
	for i, line := range lines {
		lines[i] = ui.Visible(line)
	}
	a.Message, a.Title = strings.Join(lines, "\n"), ui.Visible(a.Title)
	_, _ = io.WriteString(e.stderr, a.String()) // an error means that standard error is closed
}

// warnings writes an annotation for each warning. file is the path of the Dockerfile in the
// repository.
func (r runner) warnings(e *env, list []event.Warning, file string) {
	for _, w := range list {
		a := github.Annotation{Level: github.Warning, Title: w.Rule, Message: w.Message}
		if w.File != "" {
			a.File, a.Line, a.EndLine = file, w.Line, w.End
		}
		if w.URL != "" {
			a.Message += "\n" + w.URL
		}
		r.annotate(e, a)
	}
}

// failed writes an annotation for the error that ended a build.
func (r runner) failed(e *env, err error, file string) {
	place, err := errorPlace(err)
	a := github.Annotation{Level: github.Error, Title: "layerbuild", Message: err.Error()}
	if place.Start > 0 {
		a.File, a.Line, a.EndLine = file, place.Start, place.End
	}
	r.annotate(e, a)
}

// gate writes an annotation for each reason why an image fails the gate.
func (r runner) gate(e *env, report *analyze.Report) {
	for _, failure := range report.Gate.Failures {
		r.annotate(e, github.Annotation{Level: github.Error, Title: "layerbuild: the gate failed",
			Message: failure})
	}
}

// maxSummary is the size of a step's summary that GitHub accepts.
const maxSummary = 1 << 20

// summaryTitle returns the title of the summary of a build: the name of the image, or else of the
// Dockerfile.
func summaryTitle(res *imagebuild.Result) string {
	if len(res.Names) > 0 {
		return familiar(res.Names[0])
	}
	return res.Dockerfile
}

// writeSummary appends the summary of a build to the file of the workflow's step. An error is a
// warning: it does not fail the build.
func (r runner) writeSummary(e *env, display *ui.UI, title string, buildErr error, waste string) {
	if !r.summary || errors.Is(buildErr, context.Canceled) {
		return
	}
	var b strings.Builder
	err := display.WriteSummary(&b, ui.Summary{Title: title, Err: buildErr})
	b.WriteString(waste)
	if err == nil {
		err = appendSummary(r.summaryFile, b.String())
	}
	if err != nil {
		fmt.Fprintf(e.text(e.stderr), "layerbuild: warning: $GITHUB_STEP_SUMMARY: %s\n",
			printable(err))
	}
}

func appendSummary(file, text string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Mode().IsRegular() && fi.Size()+int64(len(text)) > maxSummary {
		return fmt.Errorf("the summary of the step would be larger than the %d bytes that GitHub "+
			"accepts", maxSummary)
	}
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	return f.Close()
}

// wasteSummary returns reports as Markdown.
func wasteSummary(reports []*analyze.Report) string {
	var b strings.Builder
	for _, report := range reports {
		if err := report.WriteMarkdown(&b); err != nil {
			return ""
		}
	}
	return b.String()
}
