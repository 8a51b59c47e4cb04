package main

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/sarif"
	"github.com/layerbuild/layerbuild/parser"
)

const (
	homePage = "https://github.com/layerbuild/layerbuild"
	// dockerfileHelp is the page about mistakes in Dockerfiles.
	dockerfileHelp = homePage + "/blob/main/docs/DOCKERFILE.md"
)

func sarifDriver() sarif.Driver {
	return sarif.Driver{Name: "layerbuild", Version: toolVersion(), InformationURI: homePage}
}

// checkLog returns the result of a check as a SARIF log: the findings as warnings, and the error
// that ended it, if there is one. file is the name of the Dockerfile in the log.
func checkLog(res *imagebuild.Result, file string, err error) *sarif.Log {
	l := sarif.New(sarifDriver())
	for _, w := range res.Warnings {
		rule := sarif.Rule{ID: w.Rule, HelpURI: cmp.Or(w.URL, dockerfileHelp),
			Configuration: sarif.Configuration{Level: sarif.Warning}}
		if w.Description != "" {
			rule.Description = &sarif.Message{Text: w.Description}
		}
		l.Add(rule, sarif.Result{Message: sarif.Message{Text: w.Msg},
			Locations: []sarif.Location{sarif.Lines(file, w.Range.Start, w.Range.End)}})
	}
	if err == nil {
		return l
	}
	place, err := errorPlace(err)
	if place.Start == 0 {
		l.Fail(err.Error())
		return l
	}
	l.Add(sarif.Rule{ID: "BuildError", HelpURI: dockerfileHelp,
		Description:   &sarif.Message{Text: "The Dockerfile cannot be built"},
		Configuration: sarif.Configuration{Level: sarif.Error}},
		sarif.Result{Message: sarif.Message{Text: err.Error()},
			Locations: []sarif.Location{sarif.Lines(file, place.Start, place.End)}})
	return l
}

// errorPlace returns the lines of the Dockerfile that an error of a build is about, and the error
// without them. The lines are zero if it is about none.
func errorPlace(err error) (parser.Range, error) {
	var parse *parser.Error
	var step *build.StepError
	switch {
	case errors.As(err, &step):
		return step.Range, step.Err
	case errors.As(err, &parse):
		return parse.Range, parse.Err
	}
	return parser.Range{}, err
}

// dockerfilePath returns the path of a build's Dockerfile for programs that look for it in the
// source tree; see sourcePath. The name in the result is relative to the build context, unless -f
// names a file of the current directory. A name inside a remote context is returned unchanged.
func (f *buildFlags) dockerfilePath(e *env, o *imagebuild.Options, res *imagebuild.Result) string {
	name := res.Dockerfile
	inContext := filepath.Join(o.Source.Context, name)
	if fi, err := os.Stat(inContext); err == nil && fi.Mode().IsRegular() {
		if _, err := os.Stat(name); err != nil || f.file == "" {
			name = inContext
		}
	}
	return sourcePath(e, name)
}

// sourcePath returns the path of a file relative to the root of the source tree: in GitHub's
// environment the directory of the workflow's checkout, otherwise the current directory. A file
// elsewhere, and a name without a file on this machine, is returned unchanged.
func sourcePath(e *env, name string) string {
	root := e.getenv("GITHUB_WORKSPACE")
	if name == "" || !onGitHub(e) || !filepath.IsAbs(root) || strings.Contains(name, "://") {
		return name
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	if _, err := os.Stat(abs); err != nil {
		return name
	}
	rel, err := filepath.Rel(root, abs)
	if err != nil || !filepath.IsLocal(rel) {
		return name
	}
	return rel
}
