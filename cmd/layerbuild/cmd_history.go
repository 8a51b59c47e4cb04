package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/gotemplate"
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
			{"layerbuild history --format 'table {{.CreatedBy}}\\t{{.Size}}' app",
				"choose the columns"},
		}, notes: historyNotes, flags: func(fs *pflag.FlagSet) prepareFunc {
			var f historyFlags
			f.define(fs)
			return f.prepare
		}}
}

// historyNotes is a part of the help of history.
const historyNotes = "A template of --format is one of Go's text/template, without methods. It " +
	"has the fields .ID, .CreatedSince, .CreatedAt, .CreatedBy, .Size and .Comment of docker, " +
	"and .Layer, the digest of the layer. As in docker, .ID is the ID of the image in the line " +
	"of the last instruction, and <missing> in the others. 'table TEMPLATE' prints headings, too."

// historyTable is the template of the table without --format.
const historyTable = `table {{.Layer}}\t{{.CreatedSince}}\t{{.Size}}\t{{.CreatedBy}}`

type historyFlags struct {
	state               stateFlags
	whole, quiet, human bool
	format, of          string
	want                wanted
	template            *gotemplate.Template
	table               bool
}

func (f *historyFlags) define(fs *pflag.FlagSet) {
	f.state.define(fs)
	f.format = "text"
	fs.Var((*given)(&f.format), "format", "`text|json|TEMPLATE` output format")
	fs.BoolVarP(&f.human, "human", "H", true, "print units of sizes, and ages")
	fs.BoolVar(&f.whole, "no-trunc", false, "do not shorten instructions and IDs")
	fs.Var((*given)(&f.of), "platform", platformUsage)
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print only IDs")
}

func (f *historyFlags) prepare(e *env, args []string) (runFunc, error) {
	var err, ferr error
	f.want, err = platform(e, f.of)
	text, plain := f.format, f.format == "text" || f.format == "table"
	switch {
	case f.quiet && plain:
		text = "{{.ID}}"
	case f.quiet:
		ferr = errors.New("--quiet and --format: give one of them")
	case plain:
		text = historyTable
	}
	if ferr == nil {
		f.template, f.table, ferr = parseFormat(text, "table", "json", "text")
	}
	if err := errors.Join(oneImage(args), err, ferr, f.state.resolve(e)); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		return f.state.with(ctx, func(_ *state.State, im *images) error {
			img, err := im.local(ctx, args[0], f.want)
			if err != nil {
				return err
			}
			out := e.text(e.stdout)
			if f.template == nil {
				out = e.json(e.stdout)
			}
			return f.print(out, historyOf(img), img.Manifest.Config.Digest.String())
		})
	}, nil
}

// print prints the history of the image with an ID.
func (f *historyFlags) print(w io.Writer, list []historyLine, id string) error {
	if f.template == nil {
		return printJSON(w, list)
	}
	if !f.whole {
		id = shortDigest(id)
	}
	var rows []historyRow
	for _, m := range slices.Backward(list) { // the newest comes first, as in docker
		r := m.row(f.human, f.whole)
		if r.ID = "<missing>"; len(rows) == 0 {
			r.ID = id
		}
		rows = append(rows, r)
	}
	return printTemplate(w, f.template, f.table, rows, historyHeadings())
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

// historyRow has the fields of a line for a template. Those of docker have its names.
type historyRow struct {
	ID, CreatedSince, CreatedAt, CreatedBy, Size, Comment, Layer string
}

// historyHeadings returns the headings of a table, by field.
func historyHeadings() map[string]string {
	return map[string]string{"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT",
		"CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT", "Layer": "LAYER"}
}

// row returns the fields of a line without its ID. Without human, sizes are numbers of bytes, and
// times are not ages.
func (m *historyLine) row(human, whole bool) historyRow {
	r := historyRow{Layer: "<none>", CreatedSince: "-", CreatedAt: "-",
		CreatedBy: ui.Visible(strings.Join(strings.Fields(m.CreatedBy), " ")),
		Size:      strconv.FormatInt(m.Size, 10), Comment: ui.Visible(m.Comment)}
	if human {
		r.Size = units.Size(m.Size)
	}
	if m.Digest != "" {
		r.Layer = shortDigest(m.Digest)
		if whole {
			r.Layer = m.Digest
		}
	}
	if m.Created != nil {
		r.CreatedAt = m.Created.UTC().Format(time.RFC3339)
		if r.CreatedSince = r.CreatedAt; human {
			r.CreatedSince = age(*m.Created)
		}
	}
	if runes := []rune(r.CreatedBy); !whole && len(runes) > 80 {
		r.CreatedBy = string(runes[:79]) + "…"
	}
	return r
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
