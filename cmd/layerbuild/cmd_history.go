package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/internal/units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

func historyVerb() verb {
	return verb{name: "history", args: "IMAGE", takesPaths: true,
		summary: "show which instructions made an image", examples: []example{
			{"layerbuild history app", "show the instructions and the sizes of their layers"},
		}, flags: func(fs *pflag.FlagSet) prepareFunc {
			var f stateFlags
			f.define(fs)
			var format string
			defineFormat(fs, &format)
			whole := fs.Bool("no-trunc", false, "do not shorten instructions")
			var of string
			fs.Var((*given)(&of), "platform", platformUsage)
			return func(e *env, args []string) (runFunc, error) {
				want, err := platform(e, of)
				if err := errors.Join(oneImage(args), err, f.resolve(e)); err != nil {
					return nil, err
				}
				return func(ctx context.Context) error {
					return f.with(ctx, func(_ *state.State, im *images) error {
						img, err := im.local(ctx, args[0], want)
						if err != nil {
							return err
						}
						list := historyOf(img)
						if format == "json" {
							return printJSON(e.stdout, list)
						}
						return printHistory(e.stdout, list, *whole)
					})
				}, nil
			}
		}}
}

// historyLine is one line of `layerbuild history`.
type historyLine struct {
	Created    *time.Time `json:"created,omitempty"`
	CreatedBy  string     `json:"createdBy"`
	Comment    string     `json:"comment,omitempty"`
	EmptyLayer bool       `json:"emptyLayer,omitempty"`
	Size       int64      `json:"size"` // bytes of the blob; 0: no layer
	Digest     string     `json:"digest,omitempty"`
	DiffID     string     `json:"diffID,omitempty"`
}

// historyOf returns the history with the layer of each entry, the oldest entry first. If their
// numbers do not match, as in images of some other tools, the remaining layers have no instruction.
func historyOf(img *image.Image) []historyLine {
	var list []historyLine
	n := 0
	layer := func(m *historyLine) {
		if n < len(img.Manifest.Layers) {
			m.Size, m.Digest = img.Manifest.Layers[n].Size, img.Manifest.Layers[n].Digest.String()
			if n < len(img.Config.RootFS.DiffIDs) {
				m.DiffID = img.Config.RootFS.DiffIDs[n].String()
			}
			n++
		}
	}
	for _, h := range img.Config.History {
		m := historyLine{Created: h.Created, CreatedBy: h.CreatedBy, Comment: h.Comment,
			EmptyLayer: h.EmptyLayer}
		if !h.EmptyLayer {
			layer(&m)
		}
		list = append(list, m)
	}
	for n < len(img.Manifest.Layers) {
		var m historyLine
		layer(&m)
		list = append(list, m)
	}
	return list
}

// printHistory prints the newest instruction first, as docker does.
func printHistory(w io.Writer, list []historyLine, whole bool) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "LAYER\tCREATED\tSIZE\tCREATED BY")
	for _, m := range slices.Backward(list) {
		digest, created, by := "<none>", "-",
			ui.Visible(strings.Join(strings.Fields(m.CreatedBy), " "))
		if m.Digest != "" {
			digest = shortDigest(m.Digest)
		}
		if m.Created != nil {
			created = age(*m.Created)
		}
		if runes := []rune(by); !whole && len(runes) > 80 {
			by = string(runes[:79]) + "…"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", digest, created, units.Size(m.Size), by)
	}
	return tw.Flush()
}

// local finds an image in the store, or in another place that its name has. It uses a registry only
// for docker://NAME.
func (im *images) local(ctx context.Context, name string, want wanted) (*image.Image, error) {
	ref, err := im.ref(ctx, name)
	local := !strings.HasPrefix(ref, string(imageref.Docker))
	if err == nil && !image.HasPlace(ref) {
		_, err = im.stored(ctx, ref)
	}
	if err != nil {
		return nil, err
	}
	img, err := im.resolver.Resolve(ctx, ref,
		image.ResolveOptions{Platform: want.platform, Local: local})
	if err != nil {
		return nil, err
	}
	return img, want.isFor(name, img)
}

// stored finds an image in the store. It returns an error if the store does not have it.
func (im *images) stored(ctx context.Context, name string) (ocispec.Descriptor, error) {
	_, d, err := im.resolver.Identify(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return d, fmt.Errorf("image %s: %w; 'layerbuild images' lists the images there, "+
			"'layerbuild pull' fetches others", name, store.ErrNotFound)
	}
	return d, err
}
