package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/internal/imageanalysis"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
)

func diffVerb() verb {
	return verb{
		name: "diff", args: "IMAGE IMAGE", takesPaths: true,
		summary: "show what changed from one image to another",
		examples: []example{
			{"layerbuild diff app:v1 app:v2", "show the changes by instruction and by file"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f stateFlags
			f.define(fs)
			var of, format string
			defineFormat(fs, &format)
			fs.Var((*given)(&of), "platform", platformUsage)
			top := fs.Int("top", 20, "`NUMBER` paths to show as text")
			return func(e *env, args []string) (runFunc, error) {
				if len(args) != 2 {
					return nil, fmt.Errorf("two images are expected, not %d", len(args))
				}
				if *top < 1 {
					return nil, badValue("top", strconv.Itoa(*top),
						errors.New("1 or more is expected"))
				}
				want, err := platform(e, of)
				if err := errors.Join(checkImages(args), err, f.resolve(e)); err != nil {
					return nil, err
				}
				return func(ctx context.Context) error {
					return f.diff(ctx, e, args, want, format, *top)
				}, nil
			}
		},
	}
}

func (f *stateFlags) diff(ctx context.Context, e *env, args []string, want wanted,
	format string, top int) error {
	return f.with(ctx, func(state *state.State, im *images) error {
		var reports [2]*analyze.Report
		var g errgroup.Group
		for i, name := range args {
			g.Go(func() error {
				img, err := im.find(ctx, name, want)
				if err != nil {
					return err
				}
				if reports[i], err = imageanalysis.Analyze(ctx, state, im.resolver, img,
					imageanalysis.Options{}); err != nil {
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
		if format == "json" {
			return c.WriteJSON(e.json(e.stdout))
		}
		o := analyze.TextOptions{Top: top, Width: columns(e.stdout)}
		head := fmt.Sprintf("A %s  %s\nB %s  %s\n\n", analyze.Printable(args[0]), reports[0].Digest,
			analyze.Printable(args[1]), reports[1].Digest)
		if _, err := io.WriteString(e.text(e.stdout), head); err != nil {
			return err
		}
		return c.WriteText(e.text(e.stdout), o)
	})
}
