package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/units"
	"github.com/spf13/pflag"
)

func pruneVerb() verb {
	return verb{
		name: "prune", summary: "remove unused data: images without a name, blobs, snapshots",
		examples: []example{
			{"layerbuild prune --dry-run", "print what would be removed"},
			{"layerbuild prune --unused 72h",
				"also remove cache that was unused for three days"},
			{"layerbuild prune --keep-storage 10g", "limit the build cache to 10 GiB"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f stateFlags
			f.define(fs)
			all := fs.BoolP("all", "a", false, "also remove the whole build cache\n"+
				"Later builds run every step again, and begin with empty cache mounts.")
			unused := fs.Duration("unused", 0,
				"`TIME` also remove cache that was unused for TIME\n"+
					"TIME is a number with a unit, such as 90m or 72h.")
			var filters []string
			fs.Var((*list)(&filters), "filter", "`until=TIME` the same as --unused TIME\n"+
				"With --all, only cache that was unused for TIME is removed.")
			keep := fs.String("keep-storage", "",
				"`SIZE` limit of the build cache, such as 10g (GiB)\n"+
					"prune removes the least recently used part of the build cache until the rest "+
					"fits SIZE.")
			dry := fs.BoolP("dry-run", "n", false, "remove nothing; print what would be removed")
			var format string
			defineFormat(fs, &format)
			fs.BoolP("force", "f", false, "no effect: prune does not ask for confirmation")
			return func(e *env, args []string) (runFunc, error) {
				if *unused < 0 {
					return nil, badValue("unused", unused.String(),
						errors.New("a time such as 90m or 72h is expected"))
				}
				o := state.PruneOptions{All: *all, Unused: *unused, DryRun: *dry}
				if err := applyFilters(&o, filters); err != nil {
					return nil, err
				}
				if *keep != "" {
					n, err := units.ParseDocker(*keep)
					if err != nil {
						return nil, badValue("keep-storage", *keep, err)
					}
					o.Keep = max(n, 1)
				}
				if err := errors.Join(noArgs(args), f.resolve(e)); err != nil {
					return nil, err
				}
				return func(ctx context.Context) error { return f.prune(ctx, e, o, format) }, nil
			}
		},
	}
}

// applyFilters applies the values of --filter. docker image prune and docker buildx prune have
// until, too.
func applyFilters(o *state.PruneOptions, filters []string) error {
	for _, filter := range filters {
		value, ok := strings.CutPrefix(filter, "until=")
		unused, err := time.ParseDuration(value)
		if !ok || err != nil || unused <= 0 {
			return badValue("filter", filter, errors.New("until=TIME is expected, with a time "+
				"such as 90m or 72h"))
		}
		o.All, o.Unused = false, max(o.Unused, unused)
	}
	return nil
}

// pruned opens the state and prunes it. It prints a note if it waits for another process.
func (f *stateFlags) pruned(ctx context.Context, e *env,
	o state.PruneOptions) (done state.Pruned, err error) {
	state, _, err := f.open(ctx)
	if err != nil {
		return done, err
	}
	defer state.Close()
	// Other processes lock the state only briefly, unless they collect or their disk is full.
	waiting := time.AfterFunc(2*time.Second, func() {
		fmt.Fprintln(e.stderr,
			"layerbuild: waiting for another process that has locked the state directory")
	})
	done, err = state.Prune(ctx, o)
	waiting.Stop()
	return done, err
}

func (f *stateFlags) prune(ctx context.Context, e *env, o state.PruneOptions, format string) error {
	done, err := f.pruned(ctx, e, o)
	if err != nil {
		return err
	}
	if done.Others > 0 {
		fmt.Fprintf(e.stderr, "layerbuild: data in use by %d running processes is kept\n",
			done.Others)
	}
	if format == "json" {
		return printJSON(e.stdout, done)
	}
	verb := "removed"
	if o.DryRun {
		verb = "would remove"
	}
	_, err = fmt.Fprintf(e.stdout,
		"%s %d images without a name, %d blobs (%s), %d snapshots (%s), %d records, %d cache "+
			"mounts (%s)\n",
		verb, done.Images, done.Blobs, units.Size(done.BlobBytes), done.Snapshots,
		units.Size(done.SnapshotBytes), done.Records, done.Mounts, units.Size(done.MountBytes))
	return err
}
