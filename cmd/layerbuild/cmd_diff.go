package main

import (
	"context"
	"fmt"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"
)

func diffVerb() verb {
	return verb{
		name: "diff", args: "A B", summary: "show what changed from one image to another, by instruction and by file",
		flags: func(fs *pflag.FlagSet) runFunc {
			var f stateFlags
			f.define(fs)
			format := fs.String("format", "text", "`text|json`")
			var platform string
			fs.Var((*given)(&platform), "platform", "`OS/ARCH` of images for several")
			top := fs.Int("top", 20, "`NUMBER` of paths that are shown as text")
			return func(ctx context.Context, e *env, args []string) error {
				if len(args) != 2 {
					return usagef("two images are expected")
				}
				if *top < 1 {
					return usagef("--top %d: 1 or more is expected", *top)
				}
				if *format != "text" && *format != "json" {
					return usagef("--format %q: text or json is expected", *format)
				}
				return f.with(ctx, e, func(state *state.State, im *images) error {
					var reports [2]*analyze.Report
					var g errgroup.Group
					for i, name := range args {
						g.Go(func() error {
							img, err := im.find(ctx, state, name, platform)
							if err != nil {
								return err
							}
							if reports[i], err = build.Analyze(ctx, state, im.resolver, img, build.AnalyzeOptions{}); err != nil {
								return err
							}
							reports[i].Image = name
							return nil
						})
					}
					if err := g.Wait(); err != nil {
						return err
					}
					c := analyze.Compare(reports[0], reports[1])
					if *format == "json" {
						return c.WriteJSON(e.stdout)
					}
					o := analyze.TextOptions{Top: *top}
					if term.IsTerminal(int(e.stdout.Fd())) {
						o.Width, _, _ = term.GetSize(int(e.stdout.Fd()))
					}
					fmt.Fprintf(e.stdout, "A %s  %s\nB %s  %s\n\n", analyze.Printable(args[0]), reports[0].Digest, analyze.Printable(args[1]), reports[1].Digest)
					return c.WriteText(e.stdout, o)
				})
			}
		},
	}
}
