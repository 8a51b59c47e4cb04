package main

import (
	"context"
	"fmt"
	"time"

	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/spf13/pflag"
)

func pruneVerb() verb {
	return verb{
		name: "prune", summary: "remove what nothing leads to: images without a name, blobs, snapshots",
		flags: func(fs *pflag.FlagSet) runFunc {
			var f stateFlags
			f.define(fs)
			all := fs.BoolP("all", "a", false, "the whole build cache too: every step will run again, cache mounts are emptied")
			unused := fs.Duration("unused", 0, "the build cache that was not used for this `TIME` too, such as 72h")
			keep := fs.String("keep-storage", "", "of the build cache, keep the most recently used `SIZE`, such as 10g")
			dry := fs.BoolP("dry-run", "n", false, "only say what would be removed")
			format := fs.String("format", "text", "`text|json`")
			fs.BoolP("force", "f", true, "")
			_ = fs.MarkHidden("force") // nothing is asked; the flag is there for scripts
			return func(ctx context.Context, e *env, args []string) error {
				if len(args) > 0 {
					return usagef("no arguments are expected")
				}
				o := state.PruneOptions{All: *all, Unused: *unused, DryRun: *dry}
				if *keep != "" {
					n, err := parseSize(*keep)
					if err != nil {
						return usagef("--keep-storage: %w", err)
					}
					o.Keep = max(n, 1)
				}
				return f.prune(ctx, e, o, *format)
			}
		},
	}
}

func (f *stateFlags) prune(ctx context.Context, e *env, o state.PruneOptions, format string) error {
	// Builds in progress hold the lock; they are waited for, but not in silence.
	waiting := time.AfterFunc(2*time.Second, func() {
		fmt.Fprintln(e.stderr, "layerbuild: waiting for a build that uses the state directory to end")
	})
	state, im, err := f.open(ctx, e, true)
	waiting.Stop()
	if err != nil {
		return err
	}
	defer state.Close()
	done, err := state.Prune(ctx, im.resolver, o)
	if err != nil {
		return err
	}
	if format == "json" {
		return printJSON(e.stdout, done)
	}
	verb := "removed"
	if o.DryRun {
		verb = "would remove"
	}
	fmt.Fprintf(e.stdout, "%s %d images without a name, %d blobs (%s), %d snapshots (%s), %d records, %d cache mounts (%s)\n",
		verb, done.Images, done.Blobs, bytesText(done.BlobBytes), done.Snapshots, bytesText(done.SnapshotBytes), done.Records, done.Mounts, bytesText(done.MountBytes))
	return nil
}
