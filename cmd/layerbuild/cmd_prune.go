package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/units"
	"github.com/spf13/pflag"
)

// pruneFlags are the flags of the prune verb.
type pruneFlags struct {
	state      stateFlags
	all        bool
	unused     time.Duration
	filters    []string
	keepImages bool
	dry        bool
	verbose    bool
	format     string
	others     otherValues

	keep, reserved, maxUsed, minFree string // sizes
	options                          state.PruneOptions
}

func pruneVerb() verb {
	return verb{
		name: "prune", summary: "remove unused data: images without a name, blobs, snapshots",
		notes: `Without flags, prune removes what no build can use any more: images without a name, blobs, snapshots, and results of
steps whose base is gone. Images with a name are never removed ('layerbuild image prune' does), and data in use by another process are not.

With filters, exactly the parts of the cache are removed that match. The filters are until=TIME (or unused-for=TIME), kind=KIND, type=TYPE,
id=PREFIX, and mutable=true|false, which is true for cache mounts. The kinds are those of 'layerbuild du', where image is an image without
a name. The types are those of BuildKit: regular (snapshots, blobs and records) and exec.cachemount. Filters of one key are alternatives;
kind!=KIND and the like exclude parts, and kind~=REGEXP, type~=REGEXP and id~=REGEXP take a regular expression. Filters of different keys
must all match.

With a size, the least recently used part of the cache is removed until the size is reached: the rest has at most --max-used-space, and the
disk has --min-free-space. --reserved-space of the cache are kept in any case; if it is the only size, the cache is reduced to it. With
--all, --unused or a filter, the sizes limit what these remove. SIZE is in powers of 1024, as in docker: 10g is 10 GiB.

'layerbuild buildx prune' and 'layerbuild builder prune' are 'layerbuild prune --keep-images', as docker's commands concern only the cache.`,
		examples: []example{
			{"layerbuild prune --dry-run", "print what would be removed"},
			{"layerbuild prune --unused 72h",
				"also remove cache that was unused for three days"},
			{"layerbuild prune --max-used-space 10g", "limit the build cache to 10 GiB"},
			{"layerbuild prune --filter type=exec.cachemount", "remove the cache mounts"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f pruneFlags
			f.define(fs)
			return f.prepare
		},
		withOthers: func(fs *pflag.FlagSet) prepareFunc {
			var f pruneFlags
			f.define(fs)
			f.others.define(fs, cacheOthers[:])
			return f.prepare
		},
	}
}

// cacheOthers are flags of docker buildx du and prune that have no effect.
var cacheOthers = [...]otherFlag{
	{name: "builder", value: "NAME", why: "there are no builders: the cache is in the state " +
		"directory (--root)"},
	{name: "debug", short: "D", why: "there is no log for debugging"},
	{name: "timeout", value: "TIME", why: "no builder is contacted"},
}

func (f *pruneFlags) define(fs *pflag.FlagSet) {
	f.state.define(fs)
	group(fs, "Selection", func(fs *pflag.FlagSet) {
		fs.BoolVarP(&f.all, "all", "a", false, "also remove the whole build cache\n"+
			"Later builds run every step again, and begin with empty cache mounts.")
		fs.DurationVar(&f.unused, "unused", 0, "`TIME` also remove cache unused for TIME\n"+
			"TIME is a number with a unit, such as 90m or 72h.")
		fs.Var((*givenList)(&f.filters), "filter", "`KEY=VALUE` remove only parts that match")
		fs.BoolVar(&f.keepImages, "keep-images", false, "keep the images without a name")
	})
	group(fs, "Sizes", func(fs *pflag.FlagSet) {
		fs.StringVar(&f.maxUsed, "max-used-space", "", "`SIZE` largest size of the build cache")
		fs.StringVar(&f.minFree, "min-free-space", "",
			"`SIZE` free space on the disk to reach")
		fs.StringVar(&f.reserved, "reserved-space", "",
			"`SIZE` size of the build cache that is kept")
		fs.StringVar(&f.keep, "keep-storage", "", "`SIZE` the same as --reserved-space")
	})
	group(fs, "Mode and output", func(fs *pflag.FlagSet) {
		fs.BoolVarP(&f.dry, "dry-run", "n", false,
			"remove nothing; print what would be removed")
		fs.BoolVar(&f.verbose, "verbose", false, "list each part that is removed")
		defineFormat(fs, &f.format)
		fs.BoolP("force", "f", false, "no effect: prune does not ask for confirmation")
	})
}

func (f *pruneFlags) prepare(e *env, args []string) (runFunc, error) {
	if f.unused < 0 {
		return nil, badValue("unused", f.unused.String(),
			errors.New("a time such as 90m or 72h is expected"))
	}
	f.options = state.PruneOptions{All: f.all, Unused: f.unused, DryRun: f.dry,
		KeepImages: f.keepImages}
	var filters []partFilter
	for _, filter := range f.filters {
		k, err := parsePartFilter(filter, time.Now())
		if err == nil && k.key == "image" {
			err = errors.New("prune never removes images with a name; 'layerbuild rm' removes " +
				"the name")
		}
		if err != nil {
			return nil, badValue("filter", filter, err)
		}
		filters = append(filters, k)
	}
	if f.options.Only = matchesParts(filters); f.options.Only != nil && f.unused > 0 {
		return nil, errors.New("--unused and --filter: give one of them; --filter until=TIME is " +
			"the same as --unused TIME, of the parts that match")
	}
	err := errors.Join(f.parseSizes(), noArgs(args), f.state.resolve(e))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return f.run(ctx, e) }, nil
}

// parseSizes parses the flags with sizes. A size of 0 keeps nothing.
func (f *pruneFlags) parseSizes() error {
	if f.keep != "" && f.reserved != "" && f.keep != f.reserved {
		return errors.New("--keep-storage and --reserved-space are the same: give one of them")
	}
	for _, size := range []struct {
		flag, value string
		to          *int64
	}{
		{"keep-storage", f.keep, &f.options.Keep}, {"reserved-space", f.reserved, &f.options.Keep},
		{"max-used-space", f.maxUsed, &f.options.MaxUsed},
		{"min-free-space", f.minFree, &f.options.MinFree},
	} {
		if size.value == "" {
			continue
		}
		n, err := units.ParseDocker(size.value)
		if err != nil {
			return badValue(size.flag, size.value, err)
		}
		*size.to = max(n, 1)
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

// pruneReport is the output of `layerbuild prune --format json`.
type pruneReport struct {
	state.Pruned
	Total int64        `json:"total"`           // the bytes of blobs, snapshots and mounts
	Parts []state.Part `json:"parts,omitempty"` // with --verbose
}

func (f *pruneFlags) run(ctx context.Context, e *env) error {
	var report pruneReport
	if f.verbose {
		f.options.Removed = func(p state.Part) { report.Parts = append(report.Parts, p) }
	}
	var err error
	if report.Pruned, err = f.state.pruned(ctx, e, f.options); err != nil {
		return err
	}
	done := report.Pruned
	report.Total = done.BlobBytes + done.SnapshotBytes + done.MountBytes
	if done.Others > 0 {
		fmt.Fprintf(e.stderr, "layerbuild: data in use by %d running processes is kept\n",
			done.Others)
	}
	if f.format == "json" {
		return printJSON(e.json(e.stdout), report)
	}
	if err := printParts(e.text(e.stdout), report.Parts); err != nil {
		return err
	}
	verb, total := "removed", "Total reclaimed space: "
	if f.dry {
		verb, total = "would remove", "Total space that would be reclaimed: "
	}
	_, err = fmt.Fprintf(e.stdout,
		"%s %d images without a name, %d blobs (%s), %d snapshots (%s), %d records, %d cache "+
			"mounts (%s)\n%s%s\n",
		verb, done.Images, done.Blobs, units.Size(done.BlobBytes), done.Snapshots,
		units.Size(done.SnapshotBytes), done.Records, done.Mounts, units.Size(done.MountBytes),
		total, units.Size(report.Total))
	return err
}
