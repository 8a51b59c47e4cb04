package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/layerbuild/layerbuild/internal/explain"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/spf13/pflag"
)

func explainVerb() verb {
	return verb{
		name: "explain", summary: "show why the steps of the last build ran",
		notes: "Each step of the last build is printed, or those of all targets of bake, with " +
			"all changes because of which it ran: files, arguments, variables, flags and the " +
			"base image. A build compares a step that runs with the nearest one of the last " +
			"builds of the same Dockerfile and context. It prints the reason, too, in one line.",
		examples: []example{
			{"layerbuild explain", "show all steps and the changes"},
			{"layerbuild explain --format json", "the same for programs"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f stateFlags
			f.define(fs)
			var format string
			defineFormat(fs, &format)
			return func(e *env, args []string) (runFunc, error) {
				if err := errors.Join(noArgs(args), f.resolve(e)); err != nil {
					return nil, err
				}
				return func(ctx context.Context) (err error) {
					state, _, err := f.open(ctx)
					if err != nil {
						return err
					}
					defer func() { err = errors.Join(err, state.Close()) }()
					list, err := imagebuild.LastBuilds(state)
					switch {
					case err != nil:
						return err
					case len(list) == 0:
						return errors.New("no build is recorded in the state directory")
					case format == "json":
						return printJSON(e.json(e.stdout), list)
					}
					_, err = io.WriteString(e.text(e.stdout), explainText(list))
					return err
				}, nil
			}
		},
	}
}

// maxChanges limits the changes of a step in the text.
const maxChanges = 50

// explainText returns the steps of builds with the reasons why they ran.
func explainText(list []*explain.Build) string {
	var b strings.Builder
	for i, build := range list {
		if i > 0 {
			b.WriteString("\n")
		}
		if name := cmp.Or(build.Target, build.Name); name != "" {
			fmt.Fprintf(&b, "%s: ", ui.Clean(name))
		}
		fmt.Fprintf(&b, "%s in %s, built %s\n", ui.Clean(build.File), ui.Clean(build.Context),
			age(build.Time))
		for _, step := range build.Steps {
			fmt.Fprintf(&b, "%s\n", ui.Clean(step.Step))
			explainStep(&b, step)
		}
	}
	return b.String()
}

func explainStep(b *strings.Builder, step explain.Outcome) {
	switch {
	case step.Reason == nil:
		fmt.Fprintf(b, "    %s\n", step.State)
		return
	case step.State == explain.Failed:
		b.WriteString("    failed. It ran: ")
	default:
		b.WriteString("    ran: ")
	}
	fmt.Fprintf(b, "%s\n", ui.Clean(step.Reason.Text))
	if len(step.Reason.Changes) < 2 {
		return
	}
	for i, c := range step.Reason.Changes {
		if i == maxChanges {
			fmt.Fprintf(b, "      and %d more\n", len(step.Reason.Changes)-i)
			return
		}
		fmt.Fprintf(b, "      %s\n", ui.Clean(c.String()))
	}
}
