package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageanalysis"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/units"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

// The verb is named after its object, since 'prune' alone prunes the state. The name 'slim' would
// be wrong: tools of that name remove visible files that they guess to be unneeded. So would
// 'squash': all layers remain.
func pruneImageVerb() verb {
	return verb{
		name: "prune-image", args: "IMAGE|LAYOUT|ARCHIVE", takesPaths: true,
		summary: "make an image without its dead bytes",
		notes: "The visible files of the image, its layers and its history stay the same. Dead " +
			"bytes are those of files that a higher layer deletes or replaces.",
		examples: []example{
			{"layerbuild prune-image -t app:small app", "make a smaller image"},
			{"layerbuild prune-image --dry-run app", "print what would be saved"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f stateFlags
			f.define(fs)
			var names []string
			fs.VarP((*list)(&names), "tag", "t", "`NAME[:TAG]` name of the new image")
			var base, of given
			fs.Var(&base, "base", "`IMAGE` base image, or scratch for none\n"+
				"The layers of the base image stay as they are.")
			fs.Var(&of, "platform", "`OS/ARCH` platform to keep of a multi-platform image\n"+
				"Without the flag all platforms are kept.")
			dryRun := fs.Bool("dry-run", false, "make no image; print what would be saved")
			return func(e *env, args []string) (runFunc, error) {
				if err := checkPruneImage(args, names, *dryRun); err != nil {
					return nil, err
				}
				if base != "" {
					if err := imageWord(string(base)); err != nil {
						return nil, badValue("base", string(base), err)
					}
				}
				var want wanted
				// without the flag all platforms are pruned; DOCKER_DEFAULT_PLATFORM is ignored
				if of != "" {
					var err error
					if want, err = platform(e, string(of)); err != nil {
						return nil, err
					}
				}
				if err := f.resolve(e); err != nil {
					return nil, err
				}
				return func(ctx context.Context) error {
					return f.pruneImage(ctx, e, args[0], want, string(base), names)
				}, nil
			}
		},
	}
}

// pruneImage makes a pruned image and names it; without names it only prints the bytes that this
// would save.
func (f *stateFlags) pruneImage(ctx context.Context, e *env, name string, want wanted, base string,
	names []string) error {
	return f.with(ctx, func(state *state.State, im *images) error {
		dryRun := len(names) == 0
		base, err := im.ref(ctx, base)
		if err != nil {
			return err
		}
		d, err := pruneImage(ctx, e, state, im, name, want,
			imageanalysis.PruneOptions{Base: base, DryRun: dryRun})
		if err != nil || dryRun {
			return err
		}
		for _, name := range names {
			if err := state.Store.Tag(ctx, name, d); err != nil {
				return err
			}
		}
		_, err = fmt.Fprintln(e.stdout, d.Digest)
		return err
	})
}

// pruneImage prunes an image, for all platforms unless one is requested, and prints the removed
// bytes.
func pruneImage(ctx context.Context, e *env, state *state.State, im *images, name string,
	want wanted, o imageanalysis.PruneOptions) (ocispec.Descriptor, error) {
	var img *image.Image
	var err error
	if !want.explicit {
		var ref string
		if ref, err = im.ref(ctx, name); err == nil {
			img, err = im.resolver.Resolve(ctx, ref, image.ResolveOptions{Any: true})
		}
	} else {
		img, err = im.find(ctx, name, want)
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if want.explicit || !img.IsIndex() {
		res, err := imageanalysis.Prune(ctx, state, im.resolver, img, o)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		res.Manifest.Platform = &img.Platform
		return res.Manifest, printPruned(e.text(e.stdout), res, columns(e.stdout))
	}
	res, err := imageanalysis.PruneIndex(ctx, state, im.resolver, img, o)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, p := range res.Images {
		if _, err := fmt.Fprintf(e.stdout, "%s:\n", parser.FormatPlatform(p.Platform)); err != nil {
			return ocispec.Descriptor{}, err
		}
		if err := printPruned(e.text(e.stdout), p.Pruned, columns(e.stdout)); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	for _, p := range res.Dropped {
		fmt.Fprintf(e.stderr, "layerbuild: warning: an attestation of the image for %s is left "+
			"out: it describes the old image\n", parser.FormatPlatform(p))
	}
	return res.Root, nil
}

func checkPruneImage(args, names []string, dryRun bool) error {
	if err := oneImage(args); err != nil {
		return err
	}
	switch {
	case len(names) == 0 && !dryRun:
		return errors.New("the new image has no name; give one with -t NAME")
	case len(names) > 0 && dryRun:
		return errors.New("--dry-run makes no image; leave out -t")
	}
	return checkNewNames("tag", names)
}

// printPruned prints the removed bytes, in lines for a terminal of width columns, or 0 for none.
func printPruned(w io.Writer, res *imageanalysis.Pruned, width int) error {
	var b strings.Builder
	room := max(cmp.Or(width, 91)-21, 10)
	for _, l := range res.Layers {
		by := []rune(analyze.Printable(l.Instruction))
		if len(by) > room {
			by = append(by[:room-1], '…')
		}
		fmt.Fprintf(&b, "%8s → %-8s  %s\n", units.Size(l.Before), units.Size(l.After), string(by))
	}
	if res.Base.Source == analyze.BaseGuess && res.Base.Layers > 0 {
		_ = analyze.Wrap(&b, "", fmt.Sprintf("the first %d layers are kept: they are the base "+
			"image, as a guess; if it is wrong, give --base", res.Base.Layers), width)
	}
	if res.Entries == 0 {
		fmt.Fprintln(&b, "the image's own layers have no dead bytes")
	} else {
		_ = analyze.Wrap(&b, "", fmt.Sprintf("%s of dead content removed; the compressed image is "+
			"%s smaller, with the same files", units.Size(res.Bytes), signed(res.Compressed)),
			width)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// signed formats a size that may be negative: compressing a layer again can cost a few bytes if
// almost nothing was removed.
func signed(n int64) string {
	if n < 0 {
		return "-" + units.Size(-n)
	}
	return units.Size(n)
}
