package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/internal/suggest"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/internal/units"
	"github.com/spf13/pflag"
)

// imagePruneFlags are the flags of 'layerbuild image prune'.
type imagePruneFlags struct {
	state           stateFlags
	all, force, dry bool
	filters         []string
	keep            []pruneFilter // parsed from filters
	others          otherValues
	entries         map[string]int // the number of entries of the store, by digest
}

// imagePruneVerb is the command prune of the group image. Its name has a space, so that no other
// word of the command line is it.
func imagePruneVerb() verb {
	return verb{
		name: "image prune", hidden: true,
		summary: "remove images without a name, or all that are not in use",
		notes: `An image without a name is left by a build without --tag, or by one that gave its name to a new image. An image is in use
while a build, 'layerbuild run' or another command works on it. The build cache stays, as with docker: 'layerbuild prune' removes unused
parts of it, too. Blobs that no image and no result in the cache needs are removed, also those that 'layerbuild rm' has left.

The filters are until=TIME (images that were stored before TIME: a time ago, such as 24h, a date, or seconds since 1970), label=KEY[=VALUE]
and label!=KEY[=VALUE]. An image is removed if all filters match.`,
		moreNotes: func() string {
			return notesOn(imagePruneOthers[:], "podman image prune", "an image")
		},
		examples: []example{
			{"layerbuild image prune", "remove the images without a name"},
			{"layerbuild image prune --all --dry-run", "print which images --all would remove"},
			{"layerbuild image prune --all --force --filter until=72h",
				"remove all images that were stored more than three days ago"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f imagePruneFlags
			f.define(fs)
			return f.prepare
		},
		withOthers: func(fs *pflag.FlagSet) prepareFunc {
			var f imagePruneFlags
			f.define(fs)
			f.others.define(fs, imagePruneOthers[:])
			return f.prepare
		},
	}
}

// imagePruneOthers are flags of podman image prune that have no effect, or are refused.
var imagePruneOthers = [...]otherFlag{
	{name: "build-cache", effect: refused, harmless: isFalse,
		why: "the caches of RUN --mount=type=cache are removed with 'layerbuild prune --filter " +
			"type=exec.cachemount'"},
	{name: "external", why: "no container of another program uses an image of the state directory"},
}

func (f *imagePruneFlags) define(fs *pflag.FlagSet) {
	f.state.define(fs)
	fs.BoolVarP(&f.all, "all", "a", false, "remove all images that are not in use\n"+
		"Images with a name are removed, too. Without --force a question is asked first.")
	fs.Var((*givenList)(&f.filters), "filter", "`KEY=VALUE` remove only images that match")
	fs.BoolVarP(&f.force, "force", "f", false, "do not ask, with --all")
	fs.BoolVarP(&f.dry, "dry-run", "n", false, "remove nothing; print what would be removed")
}

func (f *imagePruneFlags) prepare(e *env, args []string) (runFunc, error) {
	for _, filter := range f.filters {
		k, all, err := parsePruneFilter(filter)
		if err != nil {
			return nil, badValue("filter", filter, err)
		}
		if f.all = f.all || all; k.match != nil {
			f.keep = append(f.keep, k)
		}
	}
	if err := errors.Join(noArgs(args), f.state.resolve(e)); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return f.run(ctx, e) }, nil
}

// pruneFilter selects images that are removed.
type pruneFilter struct {
	match func(l listed) bool
	// reads is true if the filter needs the configuration of the image.
	reads bool
}

// pruneFilters are the kinds of filters of docker image prune.
var pruneFilters = []string{"until", "label", "label!", "dangling"}

// parsePruneFilter parses KEY=VALUE. dangling=false is another form of --all, for which it returns
// true.
func parsePruneFilter(s string) (f pruneFilter, all bool, err error) {
	kind, value, ok := strings.Cut(s, "=")
	switch {
	case !slices.Contains(pruneFilters, kind):
		if near := suggest.Near(kind, pruneFilters); near != "" {
			return f, false, fmt.Errorf("unknown filter %q: did you mean %s?", kind, near)
		}
		return f, false, fmt.Errorf("unknown filter %q; %s is expected", kind,
			orList(pruneFilters))
	case !ok || value == "":
		return f, false, errors.New("KEY=VALUE is expected")
	}
	switch kind {
	case "until":
		at, err := parseUntil(value, time.Now())
		if err != nil {
			return f, false, err
		}
		f.match = func(l listed) bool { return l.stored.Before(at) }
	case "dangling":
		switch value {
		case "true", "1":
		case "false", "0":
			all = true
		default:
			err = errors.New("true or false is expected")
		}
	default:
		key, want, hasValue := strings.Cut(value, "=")
		f.reads = true
		f.match = func(l listed) bool {
			have, ok := l.labels[key]
			return (ok && (!hasValue || have == want)) == (kind == "label")
		}
	}
	return f, all, err
}

func (f *imagePruneFlags) run(ctx context.Context, e *env) error {
	chosen, chooseErr := f.choose(ctx)
	if chosen == nil {
		return chooseErr
	}
	if f.all && !f.force && !f.dry && len(chosen) > 0 {
		if err := confirm(ctx, e, chosen); err != nil {
			return errors.Join(err, chooseErr)
		}
	}
	o := state.PruneOptions{OnlyImages: true, DryRun: f.dry}
	for _, l := range chosen {
		o.Images = append(o.Images, store.Entry{Name: l.Name, Descriptor: l.described})
	}
	removed := map[string]bool{} // by name and digest
	o.Removed = func(p state.Part) {
		if p.Kind == state.PartImage {
			removed[strings.Join(p.Images, "")+" "+p.ID] = true
		}
	}
	done, err := f.state.pruned(ctx, e, o)
	if err != nil {
		return errors.Join(err, chooseErr)
	}
	gone := slices.DeleteFunc(slices.Clone(chosen), func(l listed) bool {
		is := removed[l.Name+" "+l.Digest]
		if !is {
			fmt.Fprintf(e.stderr, "layerbuild: image %s is kept: another process uses it\n",
				ui.Visible(l.word()))
		}
		return !is
	})
	return errors.Join(f.print(e.text(e.stdout), gone, done), chooseErr)
}

// choose returns the images to remove, and errors with the names of those that cannot be read. The
// list is nil if the images cannot be listed. The state is closed again: this process would use
// the images itself.
func (f *imagePruneFlags) choose(ctx context.Context) ([]listed, error) {
	state, images, err := f.state.open(ctx)
	if err != nil {
		return nil, err
	}
	defer state.Close()
	entries, err := state.Store.Names(ctx)
	if err != nil {
		return nil, err
	}
	list := []listed{}
	var errs []error
	f.entries = map[string]int{}
	for _, entry := range entries {
		f.entries[entry.Descriptor.Digest.String()]++
		if !f.all && (entry.Name != "" || hasName(entries, entry)) {
			continue
		}
		l, err := images.listed(ctx, state, entry)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		reads := slices.ContainsFunc(f.keep, func(k pruneFilter) bool { return k.reads })
		if err != nil && reads { // without such a filter an image is removed unread
			errs = append(errs, fmt.Errorf("image %s is kept: %w", l.word(), err))
			continue
		}
		if !slices.ContainsFunc(f.keep, func(k pruneFilter) bool { return !k.match(l) }) {
			list = append(list, l)
		}
	}
	return list, errors.Join(errs...)
}

// word returns the name of the image as users write it or, without a name, its digest.
func (l listed) word() string {
	if l.Name == "" {
		return l.Digest
	}
	return familiar(l.Name)
}

// confirm asks whether images are removed, as docker does.
func confirm(ctx context.Context, e *env, chosen []listed) error {
	fmt.Fprintf(e.stderr, "This removes all images that are not in use, %d names in all. "+
		"Continue? [y/N] ", len(chosen))
	line, err := whileWaiting(ctx, func() (string, error) {
		line, err := bufio.NewReader(e.stdin).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return line, err
	})
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	case "":
		fmt.Fprintln(e.stderr)
	}
	return errors.New("nothing was removed; --force removes the images without a question")
}

// print prints removed images in docker's form: their names, the IDs of those that have no entry
// left, and the space.
func (f *imagePruneFlags) print(w io.Writer, gone []listed, done state.Pruned) error {
	var b strings.Builder
	heading, space := "Deleted Images:", "Total reclaimed space: "
	if f.dry {
		heading, space = "Would delete images:", "Total space that would be reclaimed: "
	}
	if len(gone) > 0 {
		fmt.Fprintln(&b, heading)
	}
	for _, l := range gone {
		if l.Name != "" {
			fmt.Fprintf(&b, "untagged: %s\n", ui.Visible(familiar(l.Name)))
		}
		if f.entries[l.Digest]--; f.entries[l.Digest] == 0 {
			fmt.Fprintf(&b, "deleted: %s\n", cmp.Or(l.ID, l.Digest))
		}
	}
	if len(gone) > 0 {
		fmt.Fprintln(&b)
	}
	fmt.Fprintf(&b, "%s%s\n", space, units.Size(done.BlobBytes))
	_, err := io.WriteString(w, b.String())
	return err
}
