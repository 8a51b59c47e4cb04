package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/internal/units"
	"github.com/spf13/pflag"
)

// cacheFlags are the flags of the cache verb.
type cacheFlags struct {
	state        stateFlags
	access       registryFlags
	format       string
	unused       time.Duration
	keep         string
	dry, verbose bool

	place   remotecache.SharedPlace
	options remotecache.PruneOptions
}

func cacheVerb() verb {
	return verb{
		name: "cache", args: "ls CACHE | rm CACHE KEY… | prune CACHE",
		words:   []string{"ls", "rm", "prune"},
		summary: "list, or delete from, a cache that machines share (--cache)",
		notes: `CACHE is a value of 'layerbuild build --cache': the name of a repository, or s3://BUCKET/PREFIX. Other caches cannot be listed.

ls lists the steps, and the cache mounts of --cache-mounts, with the number of results, the size of their layers, and the time when they
were last written. A build that uses a result that was written more than 7 days ago writes it again, so that the time is, to a week, that
of the last use. A hint is a copy of the records of an image's last build.

rm deletes the steps whose keys, as ls prints them, begin with KEY. Builds run them again.

prune deletes the steps that were last written before the TIME of --unused (below 168h also steps that are in use), and with --keep-storage
those that were written longest ago, until the layers of the others have at most SIZE. Hints that refer to them are deleted, too. A registry
deletes the layers when it collects garbage; many registries permit no deletion unless they are configured so. In S3 prune itself deletes
the layers that are older than 2 days and that no step refers to.`,
		examples: []example{
			{"layerbuild cache ls registry.example.com/team/cache", "list the steps"},
			{"layerbuild cache prune --unused 720h registry.example.com/team/cache",
				"delete what was unused for 30 days"},
			{"layerbuild cache prune --keep-storage 50g -n registry.example.com/team/cache",
				"print what a limit of 50 GiB would delete"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f cacheFlags
			f.define(fs)
			return f.prepare
		},
	}
}

func (f *cacheFlags) define(fs *pflag.FlagSet) {
	f.state.define(fs)
	group(fs, "prune", func(fs *pflag.FlagSet) {
		fs.DurationVar(&f.unused, "unused", 0, "`TIME` delete what was unused for TIME\n"+
			"TIME is a number with a unit, such as 720h.")
		fs.StringVar(&f.keep, "keep-storage", "", "`SIZE` delete until the rest fits SIZE\n"+
			"SIZE is in powers of 1024: 10g is 10 GiB.")
	})
	group(fs, "prune and rm", func(fs *pflag.FlagSet) {
		fs.BoolVarP(&f.dry, "dry-run", "n", false,
			"delete nothing; print what would be deleted")
	})
	group(fs, "Output", func(fs *pflag.FlagSet) {
		fs.BoolVar(&f.verbose, "verbose", false, "list hints, and each step that is deleted")
		defineFormat(fs, &f.format)
	})
	group(fs, "Registries", f.access.define)
}

func (f *cacheFlags) prepare(e *env, args []string) (runFunc, error) {
	if len(args) == 0 {
		return nil, errors.New("a command is expected: ls, rm or prune")
	}
	command, args := args[0], args[1:]
	if !slices.Contains([]string{"ls", "rm", "prune"}, command) {
		return nil, fmt.Errorf("unknown command %q; ls, rm or prune is expected", command)
	}
	if f.unused < 0 {
		return nil, badValue("unused", f.unused.String(),
			errors.New("a time such as 720h is expected"))
	}
	f.options = remotecache.PruneOptions{Keep: -1, DryRun: f.dry}
	if f.unused > 0 {
		f.options.Before = time.Now().Add(-f.unused)
	}
	if f.keep != "" {
		var err error
		if f.options.Keep, err = units.ParseDocker(f.keep); err != nil {
			return nil, badValue("keep-storage", f.keep, err)
		}
	}
	if err := errors.Join(f.state.resolve(e), f.state.access(&f.access)); err != nil {
		return nil, err
	}
	limited := f.unused > 0 || f.keep != ""
	switch {
	case len(args) == 0:
		return nil, errors.New("the cache is missing, such as registry.example.com/team/cache")
	case command != "rm" && len(args) > 1:
		return nil, fmt.Errorf("one cache is expected, not %d: %s", len(args),
			strings.Join(args, " "))
	case command == "rm" && len(args) == 1:
		return nil, errors.New("rm: a key is expected, as 'layerbuild cache ls' prints it")
	case command == "prune" && !limited:
		return nil, errors.New("prune: --unused or --keep-storage is expected")
	case command != "prune" && limited:
		return nil, fmt.Errorf("%s: --unused and --keep-storage are flags of prune", command)
	case command == "ls" && f.dry:
		return nil, errors.New("ls: --dry-run is a flag of prune and rm")
	}
	p, err := parseCache(args[0])
	if err != nil {
		return nil, fmt.Errorf("%q: %w", shownCache(args[0]), err)
	}
	f.place = p
	do := map[string]func(context.Context, *env, remotecache.Catalog) error{
		"ls": f.list, "prune": f.prune,
		"rm": func(ctx context.Context, e *env, c remotecache.Catalog) error {
			return f.remove(ctx, e, c, args[1:])
		},
	}[command]
	return func(ctx context.Context) error { return f.run(ctx, e, do) }, nil
}

// run opens the cache and does something with it.
func (f *cacheFlags) run(ctx context.Context, e *env,
	do func(context.Context, *env, remotecache.Catalog) error) error {
	s, im, err := f.state.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	c, ok := im.cacheStore(f.place, s).(remotecache.Catalog)
	if !ok {
		return fmt.Errorf("%s: caches of this kind cannot be listed", f.place.Name())
	}
	err = do(ctx, e, c)
	if errors.Is(err, registry.ErrNoDelete) {
		err = fmt.Errorf("%w; the registry's own settings have to permit it (docker-registry: "+
			"storage.delete.enabled)", err)
	}
	return err
}

// cacheStep is a document of a cache in JSON.
type cacheStep struct {
	Key     string    `json:"key"`
	Step    string    `json:"step,omitempty"` // the instruction
	Hint    bool      `json:"hint,omitempty"`
	Results int       `json:"results"`
	Size    int64     `json:"size"`
	Written time.Time `json:"written,omitzero"`
	Signed  bool      `json:"signed,omitempty"` // all results have a signature
	Error   string    `json:"error,omitempty"`
}

// keyOfDocument returns the part of a document's name that people see.
func keyOfDocument(name string) string {
	return name[strings.LastIndexByte(name, '-')+1:]
}

func newCacheStep(l *remotecache.Listed) cacheStep {
	s := cacheStep{Key: keyOfDocument(l.Name), Hint: l.Hint, Size: l.Size(),
		Results: len(l.Document.Records), Written: l.Document.Written,
		Signed: len(l.Document.Records) > 0}
	if l.Err != nil {
		s.Error = l.Err.Error()
	}
	for _, r := range l.Document.Records {
		s.Signed = s.Signed && r.Signature != ""
		if !l.Hint && s.Step == "" {
			s.Step = r.Step
		}
	}
	return s
}

func (f *cacheFlags) list(ctx context.Context, e *env, c remotecache.Catalog) error {
	all, err := remotecache.ReadAll(ctx, c)
	if err != nil {
		return err
	}
	if f.format == "json" {
		return printJSON(e.json(e.stdout), cacheSteps(all))
	}
	hints := 0
	shown := slices.DeleteFunc(slices.Clone(all), func(l remotecache.Listed) bool {
		if l.Hint {
			hints++
		}
		return l.Hint && !f.verbose
	})
	if err := f.print(e, shown); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.text(e.stdout), "%d steps, %d hints, %s\n", len(all)-hints, hints,
		units.Size(remotecache.SizeOf(all)))
	return err
}

func cacheSteps(list []remotecache.Listed) []cacheStep {
	steps := make([]cacheStep, len(list))
	for i := range list {
		steps[i] = newCacheStep(&list[i])
	}
	return steps
}

// print prints documents as a table.
func (f *cacheFlags) print(e *env, list []remotecache.Listed) error {
	w := tabwriter.NewWriter(e.text(e.stdout), 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "KEY\tRESULTS\tSIZE\tWRITTEN\tSTEP")
	for _, s := range cacheSteps(list) {
		text := s.Step
		switch {
		case s.Hint:
			text = "(a hint)"
		case s.Error != "":
			text = "(unreadable: " + s.Error + ")"
		}
		fmt.Fprintf(w, "%.12s\t%d\t%s\t%s\t%s\n", s.Key, s.Results, units.Size(s.Size),
			age(s.Written), ui.Visible(text))
	}
	return w.Flush()
}

// cacheDeletion is the output of rm and prune in JSON.
type cacheDeletion struct {
	Deleted []cacheStep `json:"deleted"`
	Freed   int64       `json:"freed"`
	DryRun  bool        `json:"dryRun,omitempty"`
}

// reportDeleted prints what was deleted.
func (f *cacheFlags) reportDeleted(e *env, list []remotecache.Listed, freed int64) error {
	if f.format == "json" {
		return printJSON(e.json(e.stdout), cacheDeletion{cacheSteps(list), freed, f.dry})
	}
	if f.verbose || f.dry {
		if err := f.print(e, list); err != nil {
			return err
		}
	}
	verb := "deleted"
	if f.dry {
		verb = "would be deleted"
	}
	_, err := fmt.Fprintf(e.text(e.stdout), "%s: %d steps and hints, with %s of layers that "+
		"nothing else in the cache refers to\n", verb, len(list), units.Size(freed))
	return err
}

func (f *cacheFlags) remove(ctx context.Context, e *env, c remotecache.Catalog,
	keys []string) error {
	all, err := remotecache.ReadAll(ctx, c)
	if err != nil {
		return err
	}
	var gone, kept []remotecache.Listed
	found := map[string]bool{}
	for _, l := range all {
		remove := false
		for _, k := range keys {
			if strings.HasPrefix(keyOfDocument(l.Name), k) {
				found[k], remove = true, true
			}
		}
		if !remove {
			kept = append(kept, l)
			continue
		}
		if !f.dry {
			err := c.Delete(ctx, l.Name)
			if err != nil && !errors.Is(err, remotecache.ErrNoDocument) {
				return fmt.Errorf("delete %s: %w", l.Name, err)
			}
		}
		gone = append(gone, l)
	}
	for _, k := range keys {
		if !found[k] {
			err = errors.Join(err, fmt.Errorf("the cache has no key that begins with %q", k))
		}
	}
	return errors.Join(f.reportDeleted(e, gone, remotecache.SizeOf(all)-remotecache.SizeOf(kept)),
		err)
}

func (f *cacheFlags) prune(ctx context.Context, e *env, c remotecache.Catalog) error {
	p, err := remotecache.Prune(ctx, c, f.options)
	return errors.Join(f.reportDeleted(e, p.Documents, p.Freed), err)
}
