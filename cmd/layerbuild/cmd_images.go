package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/layerbuild/layerbuild/analyze"
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

func imagesVerb() verb {
	return verb{name: "images", summary: "list the images in the store", examples: []example{
		{"layerbuild images", "list the images"},
		{"layerbuild images --format json", "list them as JSON"},
	}, flags: func(fs *pflag.FlagSet) prepareFunc {
		var f stateFlags
		f.define(fs)
		var format string
		defineFormat(fs, &format)
		digests := fs.Bool("digests", false, "show whole IDs, and digests of manifests\n"+
			"An image for several platforms has the digest of its index.")
		return func(e *env, args []string) (runFunc, error) {
			if err := errors.Join(noArgs(args), f.resolve(e)); err != nil {
				return nil, err
			}
			return func(ctx context.Context) error {
				list, err := f.listImages(ctx)
				if list == nil {
					return err
				}
				if format == "json" {
					return errors.Join(printJSON(e.stdout, list), err)
				}
				return errors.Join(printImages(e.stdout, list, *digests), err)
			}, nil
		}
	}}
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
}

// listImages returns the images that can be read, and errors with the names of the others. The list
// is nil if there are no images.
func (f *stateFlags) listImages(ctx context.Context) ([]listed, error) {
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
		named := func(e store.Entry) bool {
			return e.Name != "" && e.Descriptor.Digest == entry.Descriptor.Digest
		}
		if entry.Name == "" && slices.ContainsFunc(entries, named) {
			continue // a build without a name made the same image
		}
		l := listed{Name: entry.Name, Digest: entry.Descriptor.Digest.String(),
			Created: entry.Tagged}
		if use, err := state.Store.Usage(ctx, entry.Descriptor); err == nil {
			l.Size = use.Size
		}
		all, err := images.platforms(ctx, state, entry.Descriptor)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("image %s: %w", cmp.Or(entry.Name, l.Digest), err))
			continue
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
				if img.Config.Created != nil {
					l.Created = *img.Config.Created
				}
			}
		}
		list = append(list, l)
	}
	return list, errors.Join(errs...)
}

func printImages(w io.Writer, list []listed, digests bool) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	head := "NAME\tID\tPLATFORM\tCREATED\tLAYERS\tSIZE"
	if digests {
		head = "NAME\tID\tDIGEST\tPLATFORM\tCREATED\tLAYERS\tSIZE"
	}
	fmt.Fprintln(tw, head)
	for _, l := range list {
		id := shortDigest(l.ID)
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

// checkImageAndNames returns an error for the first invalid image or new name.
func checkImageAndNames(image string, names []string) error {
	if err := checkImage(image); err != nil {
		return err
	}
	for _, name := range names {
		if err := checkNewName(name); err != nil {
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
				err := checkImageAndNames(args[0], args[1:])
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
const rmNotes = "The digest of an image stands for all its names. 'layerbuild prune' removes " +
	"images without a name."

func removeVerb() verb {
	return verb{name: "rm", args: "IMAGE…", summary: "remove names of images", examples: []example{
		{"layerbuild rm app:v1", "remove a name"},
		{"layerbuild rm 7cc4b5aefd1d", "remove all names of an image"},
	}, notes: rmNotes, flags: func(fs *pflag.FlagSet) prepareFunc {
		var f stateFlags
		f.define(fs)
		return func(e *env, args []string) (runFunc, error) {
			if len(args) == 0 {
				return nil, errors.New("at least one image is expected")
			}
			if err := errors.Join(checkImages(args), f.resolve(e)); err != nil {
				return nil, err
			}
			return func(ctx context.Context) error {
				return f.with(ctx, func(state *state.State, im *images) error {
					for _, name := range args {
						if err := im.remove(ctx, state, name); err != nil {
							return err
						}
					}
					return nil
				})
			}, nil
		}
	}}
}

// remove removes a name, or all names of the image with a digest.
func (im *images) remove(ctx context.Context, state *state.State, name string) error {
	ref, d, err := im.resolver.Identify(ctx, name)
	if err == nil && (ref != name || digest.Digest(name).Validate() == nil) {
		name = d.Digest.String()
		if err = state.Store.Untag(ctx, name); errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("image %s: it is part of an image for several platforms, or the "+
				"base of a build, and has no entry of its own", name)
		}
		return err
	}
	if err == nil {
		err = state.Store.Untag(ctx, name)
	}
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("image %s: %w; 'layerbuild images' lists the images there",
			name, store.ErrNotFound)
	}
	return err
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
