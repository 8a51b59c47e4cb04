package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/internal/gotemplate"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/internal/units"
	"github.com/layerbuild/layerbuild/parser"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

// imagesFlags are the flags of the images verb.
type imagesFlags struct {
	state                 stateFlags
	quiet, whole, digests bool
	format                string
	filters               []string
	template              *gotemplate.Template // of format, if it is one
	table                 bool                 // the template is that of a table
	keep                  []imageFilter        // parsed from filters
}

func imagesVerb() verb {
	return verb{
		name: "images", args: "[NAME]", summary: "list the images in the store",
		notes: `NAME limits the list to images of a repository (app), or with a name (app:v1). A repository may have the wildcards of
path.Match: 'team/*'.

The filters are dangling=true|false (images without a name), label=KEY[=VALUE], reference=PATTERN, platform=OS/ARCH, and before=IMAGE,
since=IMAGE and until=TIME, which compare times of creation. Filters of one kind are alternatives; filters of different kinds must all
match.

A template of --format is one of Go's text/template, without methods, and has docker's fields: .Repository .Tag .Digest .ID .CreatedAt
.CreatedSince .Size; and .Name .Platforms .Layers. After "table " it makes a table with headings. The functions json, join, lower,
upper, split, title, pad and truncate are there. --format json is a JSON list with layerbuild's fields; '{{json .}}' makes a line with
docker's fields for each image.`,
		examples: []example{
			{"layerbuild images", "list the images"},
			{"layerbuild images -q -f dangling=true", "print the IDs of images without a name"},
			{"layerbuild images --format '{{.Repository}}:{{.Tag}} {{.Size}}'",
				"print fields of each image"},
			{"layerbuild images --format json", "list the images as JSON"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f imagesFlags
			f.define(fs)
			return f.prepare
		},
	}
}

func (f *imagesFlags) define(fs *pflag.FlagSet) {
	f.state.define(fs)
	fs.BoolP("all", "a", false, "no effect: there are no images of single steps")
	fs.BoolVar(&f.digests, "digests", false, "show whole IDs, and digests of manifests\n"+
		"An image for several platforms has the digest of its index.")
	fs.VarP((*givenList)(&f.filters), "filter", "f", "`KEY=VALUE` list only images that match")
	f.format = "text"
	fs.Var((*given)(&f.format), "format", "`text|json|TEMPLATE` output format")
	fs.BoolVar(&f.whole, "no-trunc", false, "show whole IDs")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print only IDs")
}

func (f *imagesFlags) prepare(e *env, args []string) (runFunc, error) {
	if len(args) > 1 {
		return nil, fmt.Errorf("one name is expected, not %d: %s", len(args),
			strings.Join(args, " "))
	}
	var err error
	if len(args) == 1 {
		if _, err := path.Match(args[0], ""); err != nil || args[0] == "" {
			return nil, fmt.Errorf("%q is not the name of an image or a repository", args[0])
		}
		f.keep = append(f.keep, imageFilter{kind: "name", match: nameFilter(args[0])})
	}
	f.template, f.table, err = parseFormat(f.format, "text", "table", "json")
	if err != nil {
		return nil, err
	}
	if f.quiet && f.format != "text" && f.format != "table" {
		return nil, errors.New("--quiet and --format: give one of them")
	}
	for _, filter := range f.filters {
		k, err := parseImageFilter(filter)
		if err != nil {
			return nil, badValue("filter", filter, err)
		}
		f.keep = append(f.keep, k)
	}
	if err := f.state.resolve(e); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return f.run(ctx, e) }, nil
}

func (f *imagesFlags) run(ctx context.Context, e *env) error {
	list, listErr := f.state.listImages(ctx, f.keep)
	if list == nil {
		return listErr
	}
	var err error
	switch {
	case f.quiet:
		err = printIDs(e.text(e.stdout), list, f.whole || f.digests)
	case f.format == "json":
		err = printJSON(e.json(e.stdout), list)
	case f.template != nil:
		lines := make([]imageLine, len(list))
		for i, l := range list {
			lines[i] = l.line(f.whole)
		}
		err = printTemplate(e.text(e.stdout), f.template, f.table, lines, imageHeadings())
	default:
		err = printImages(e.text(e.stdout), list, f.digests, f.whole)
	}
	return errors.Join(err, listErr)
}

// printIDs prints the ID of each image once, as docker does.
func printIDs(w io.Writer, list []listed, whole bool) error {
	seen := map[string]bool{}
	for _, l := range list {
		id := l.ID
		if !whole {
			id = shortDigest(id)
		}
		if seen[id] {
			continue
		}
		seen[id] = true
		if _, err := fmt.Fprintln(w, id); err != nil {
			return err
		}
	}
	return nil
}

// listed is a line of `layerbuild images`.
type listed struct {
	Name      string    `json:"name"` // "" for an image without a name
	ID        string    `json:"id"`   // as build -q prints it
	Digest    string    `json:"digest"`
	Config    string    `json:"config,omitempty"`
	Platforms []string  `json:"platforms"`
	Created   time.Time `json:"created"`
	Size      int64     `json:"size"`   // bytes of all its blobs
	Layers    int       `json:"layers"` // number of the first platform's layers

	labels    map[string]string // of the first platform
	stored    time.Time         // when the image got its name
	described ocispec.Descriptor
}

// listImages returns the images that can be read and that match the filters, and errors with the
// names of the others. The list is nil if the images cannot be listed.
func (f *stateFlags) listImages(ctx context.Context, keep []imageFilter) ([]listed, error) {
	state, images, err := f.open(ctx)
	if err != nil {
		return nil, err
	}
	defer state.Close()
	entries, err := state.Store.Names(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]listed, 0, len(entries))
	var errs []error
	for _, entry := range entries {
		if entry.Name == "" && hasName(entries, entry) {
			continue // a build without a name made the same image
		}
		l, err := images.listed(ctx, state, entry)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("image %s: %w",
				cmp.Or(entry.Name, entry.Descriptor.Digest.String()), err))
			continue
		}
		list = append(list, l)
	}
	list, err = filterImages(list, keep)
	if err != nil {
		return nil, err
	}
	return list, errors.Join(errs...)
}

// hasName reports whether an image has a name in a list of entries.
func hasName(entries []store.Entry, image store.Entry) bool {
	return slices.ContainsFunc(entries, func(e store.Entry) bool {
		return e.Name != "" && e.Descriptor.Digest == image.Descriptor.Digest
	})
}

// listed returns the line of an entry of the store.
func (im *images) listed(ctx context.Context, state *state.State, entry store.Entry) (listed,
	error) {
	l := listed{Name: entry.Name, Digest: entry.Descriptor.Digest.String(), Created: entry.Tagged,
		stored: entry.Tagged, described: entry.Descriptor}
	if use, err := state.Store.Usage(ctx, entry.Descriptor); err == nil {
		l.Size = use.Size
	}
	all, err := im.platforms(ctx, state, entry.Descriptor)
	if err != nil {
		return l, err
	}
	// Use the image ID of export.Metadata: the digest of the configuration if there is one.
	l.ID = l.Digest
	if len(all) == 1 && !ocidoc.IsIndex(entry.Descriptor.MediaType) {
		l.ID = all[0].Manifest.Config.Digest.String()
	}
	for i, img := range all {
		l.Platforms = append(l.Platforms, parser.FormatPlatform(img.Platform))
		if i == 0 {
			l.Layers, l.Config = len(img.Manifest.Layers), img.Manifest.Config.Digest.String()
			l.labels = img.Config.Config.Labels
			if img.Config.Created != nil {
				l.Created = *img.Config.Created
			}
		}
	}
	return l, nil
}

func printImages(w io.Writer, list []listed, digests, whole bool) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	head := "NAME\tID\tPLATFORM\tCREATED\tLAYERS\tSIZE"
	if digests {
		head = "NAME\tID\tDIGEST\tPLATFORM\tCREATED\tLAYERS\tSIZE"
	}
	fmt.Fprintln(tw, head)
	for _, l := range list {
		id := shortDigest(l.ID)
		if whole {
			id = l.ID
		}
		if digests {
			id = l.ID + "\t" + l.Digest
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\t%s\n", ui.Visible(familiar(l.Name)), id,
			ui.Visible(strings.Join(l.Platforms, ",")), age(l.Created),
			l.Layers, units.Size(l.Size))
	}
	return tw.Flush()
}

// shortDigest returns the prefix of a digest that tables show. All verbs accept it.
func shortDigest(d string) string {
	d = strings.TrimPrefix(d, "sha256:")
	return d[:min(12, len(d))]
}

// familiar returns the short form of a name, as users write it.
func familiar(name string) string {
	if name == "" {
		return "<none>"
	}
	named, err := reference.Parse(name)
	if err != nil {
		return name // a name that another tool wrote
	}
	return named.Familiar()
}

// platforms returns the images of a manifest or an index that the store has.
func (im *images) platforms(ctx context.Context, state *state.State,
	d ocispec.Descriptor) ([]*image.Image, error) {
	list := []ocispec.Descriptor{d}
	if ocidoc.IsIndex(d.MediaType) {
		data, err := state.Store.Read(ctx, d)
		if err != nil {
			return nil, err
		}
		index, err := ocidoc.Parse(data)
		if err != nil {
			return nil, err
		}
		list = index.Manifests
	}
	var all []*image.Image
	for _, m := range list {
		if !ocidoc.IsImage(m) {
			continue // attestations
		}
		if there, err := state.Store.Exists(ctx, m); err != nil || !there {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			continue
		}
		var o image.ResolveOptions
		if m.Platform != nil {
			o.Platform = *m.Platform
		}
		img, err := im.resolver.Resolve(ctx, m.Digest.String(), o)
		if err != nil {
			return nil, err
		}
		all = append(all, img)
	}
	return all, nil
}

func printJSON(w io.Writer, v any) error {
	return analyze.EncodeJSON(w, v)
}

// age returns the approximate time since t.
func age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	switch d := time.Since(t); {
	case d < 0:
		return t.UTC().Format(time.DateOnly)
	case d < 2*time.Minute:
		return fmt.Sprintf("%d seconds ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours ago", int(d.Hours()))
	case d < 60*24*time.Hour:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
	return t.UTC().Format(time.DateOnly)
}

// checkTagged returns an error for the first invalid image or new name.
func checkTagged(image string, names []string) error {
	if err := checkStored(image, "'layerbuild copy %s NAME' copies it to the store"); err != nil {
		return err
	}
	for _, name := range names {
		if err := checkNewName(explicitly(name, false)); err != nil {
			return fmt.Errorf("name %q: %w", name, err)
		}
	}
	return nil
}

func tagVerb() verb {
	return verb{name: "tag", args: "IMAGE NAME…",
		summary: "give an image more names", examples: []example{
			{"layerbuild tag app app:v2 registry.example.com/app:v2",
				"give the image app two more names"},
		}, flags: func(fs *pflag.FlagSet) prepareFunc {
			var f stateFlags
			f.define(fs)
			return func(e *env, args []string) (runFunc, error) {
				if len(args) < 2 {
					return nil, errors.New("an image and at least one name for it are expected")
				}
				err := checkTagged(args[0], args[1:])
				if err := errors.Join(err, f.resolve(e)); err != nil {
					return nil, err
				}
				return func(ctx context.Context) error {
					return f.with(ctx, func(state *state.State, im *images) error {
						d, err := im.stored(ctx, args[0])
						if err != nil {
							return err
						}
						for _, name := range args[1:] {
							if err := state.Store.Tag(ctx, name, d); err != nil {
								return err
							}
						}
						return nil
					})
				}, nil
			}
		}}
}

// rmNotes is the end of the help of rm.
const rmNotes = "The digest of an image stands for all its names. A line of the output has each " +
	"name that was removed. The blobs stay until " +
	"'layerbuild prune' removes those that no image needs. 'layerbuild rmi' and " +
	"'layerbuild image rm' are the same."

// removeFlags are the flags of the rm verb.
type removeFlags struct {
	state      stateFlags
	all, force bool
}

func removeVerb() verb {
	return verb{name: "rm", args: "IMAGE…", summary: "remove names of images", examples: []example{
		{"layerbuild rm app:v1", "remove a name"},
		{"layerbuild rm 7cc4b5aefd1d", "remove all names of an image"},
		{"layerbuild rm -f app:v1 app:v2", "remove names that may not exist"},
	}, notes: rmNotes, flags: func(fs *pflag.FlagSet) prepareFunc {
		var f removeFlags
		f.state.define(fs)
		fs.BoolVarP(&f.all, "all", "a", false, "remove all names and all images without a name")
		fs.BoolVarP(&f.force, "force", "f", false, "ignore images that do not exist")
		fs.Bool("no-prune", false, "no effect: rm never removes blobs")
		return f.prepare
	}}
}

func (f *removeFlags) prepare(e *env, args []string) (runFunc, error) {
	switch {
	case len(args) == 0 && !f.all:
		return nil, errors.New("at least one image is expected")
	case len(args) > 0 && f.all:
		return nil, errors.New("--all: no image is expected")
	}
	for _, name := range args {
		if err := checkStored(name, "rm does not remove %s"); err != nil {
			return nil, err
		}
	}
	if err := f.state.resolve(e); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		return f.state.with(ctx, func(state *state.State, im *images) error {
			if f.all {
				return removeAll(ctx, e, state)
			}
			var errs []error
			for _, name := range args {
				removed, err := im.remove(ctx, state, name)
				if err == nil {
					err = printUntagged(e.text(e.stdout), removed)
				}
				if err != nil && !(f.force && errors.Is(err, store.ErrNotFound)) {
					errs = append(errs, err)
				}
			}
			return errors.Join(errs...)
		})
	}, nil
}

// removeAll removes all entries of the store.
func removeAll(ctx context.Context, e *env, state *state.State) error {
	entries, err := state.Store.Names(ctx)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		// An image without a name may have gone with another entry of its digest.
		removed, err := state.Store.Untag(ctx, cmp.Or(entry.Name, entry.Descriptor.Digest.String()))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err := printUntagged(e.text(e.stdout), removed); err != nil {
			return err
		}
	}
	return nil
}

// printUntagged prints the names that were removed, in docker's form, and the digests of images
// without a name. It never prints docker's line about a deleted image: prune removes the blobs.
func printUntagged(w io.Writer, removed []store.Entry) error {
	for _, entry := range removed {
		name := entry.Descriptor.Digest.String()
		if entry.Name != "" {
			name = familiar(entry.Name)
		}
		if _, err := fmt.Fprintf(w, "Untagged: %s\n", ui.Visible(name)); err != nil {
			return err
		}
	}
	return nil
}

// remove removes a name, or all names of the image with a digest, and returns what was removed.
func (im *images) remove(ctx context.Context, state *state.State, name string) ([]store.Entry,
	error) {
	ref, d, err := im.resolver.Identify(ctx, name)
	if err == nil && (ref != name || digest.Digest(name).Validate() == nil) {
		name = d.Digest.String()
		removed, err := state.Store.Untag(ctx, name)
		if errors.Is(err, store.ErrNotFound) {
			err = fmt.Errorf("image %s: it is part of an image for several platforms, or the "+
				"base of a build, and has no entry of its own", name)
		}
		return removed, err
	}
	var removed []store.Entry
	if err == nil {
		removed, err = state.Store.Untag(ctx, name)
	}
	if errors.Is(err, store.ErrNotFound) {
		err = fmt.Errorf("image %s: %w; 'layerbuild images' lists the images there", name,
			store.ErrNotFound)
	}
	return removed, err
}

// with opens the state and calls do. It calls do again after an error about a damaged blob: the
// blob has been removed by then, and the second call repairs it or returns an error with the
// remedy.
func (f *stateFlags) with(ctx context.Context, do func(*state.State, *images) error) error {
	state, images, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer state.Close()
	return f.full(store.Retry(func() error { return do(state, images) }))
}
