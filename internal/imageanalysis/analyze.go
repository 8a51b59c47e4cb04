package imageanalysis

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/parser"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Options holds information about an image that is not in the image.
type Options struct {
	// Base is the name of the image's base image, or "scratch" for none. "": the base is found by
	// the rules of docs/WASTE.md.
	Base string
	// Accept has patterns of accepted paths.
	Accept []string
}

// Analyze finds the wasted bytes of an image. It does not read layers whose tables are stored.
func Analyze(ctx context.Context, s *state.State, images *image.Resolver, img *image.Image,
	o Options) (*analyze.Report, error) {
	in, err := analyzeInput(ctx, s, images, img, o)
	if err != nil {
		return nil, fmt.Errorf("analyze %s: %w", img.Name, err)
	}
	r, err := analyze.Image(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("analyze %s: %w", img.Name, err)
	}
	return r, nil
}

func analyzeInput(ctx context.Context, s *state.State, images *image.Resolver, img *image.Image,
	o Options) (analyze.Input, error) {
	in := analyze.Input{Image: img.Name, Digest: img.Descriptor.Digest.String(),
		Platform: parser.FormatPlatform(img.Platform)}
	rec := recordOf(s, img.Manifest.Config.Digest)
	end, err := baseEnd(ctx, images, img, rec, o)
	if err != nil {
		return in, err
	}
	in.Base, in.Accept = end.base, o.Accept
	in.Instructions = instructions(img, end, rec)
	if rec != nil {
		in.Dockerfile = rec.Dockerfile
	}
	for i, d := range img.Manifest.Layers {
		in.Layers = append(in.Layers, analyze.LayerInput{
			Digest: d.Digest.String(), DiffID: img.Config.RootFS.DiffIDs[i].String(),
			Compressed: d.Size,
			Table: func(ctx context.Context) (*analyze.Table, error) {
				return layerTable(ctx, s, images, img, i)
			},
		})
	}
	return in, nil
}

// layerTable returns the table of a layer: the stored one, or a new one that it makes by reading
// the layer, and stores.
func layerTable(ctx context.Context, s *state.State, images *image.Resolver, img *image.Image,
	layer int) (t *analyze.Table, err error) {
	d := img.Manifest.Layers[layer].Digest
	if t := table(s, d); t != nil {
		return t, nil
	}
	err = images.Read(ctx, img, layer, func(r io.Reader) (err error) {
		t, err = analyze.Scan(ctx, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return t, putTable(s, d, t)
}

// The tables of layers are stored in cache/tables, by the digests of the layers' blobs. A table
// that cannot be read is treated as missing: tables are not synced to disk.

func table(s *state.State, d digest.Digest) *analyze.Table {
	data, err := s.ReadKept(state.Tables, d)
	if err != nil {
		return nil
	}
	t := new(analyze.Table)
	if t.UnmarshalBinary(data) != nil {
		return nil
	}
	return t
}

func putTable(s *state.State, d digest.Digest, t *analyze.Table) error {
	data, err := t.MarshalBinary()
	if err != nil {
		return err
	}
	return s.Keep(state.Tables, d, data)
}

// Record is the information about an image that its build stores, under the digest of the
// configuration.
type Record struct {
	Dockerfile string       `json:"dockerfile"`
	Base       RecordedBase `json:"base"`
	Steps      []RecordStep `json:"steps"` // of the history entries after the base's
}

// RecordedBase is the base image of an image. It is zero for scratch.
type RecordedBase struct {
	Name    string `json:"name,omitempty"`
	Digest  string `json:"digest,omitempty"`
	Layers  int    `json:"layers"`
	History int    `json:"history"`
}

// RecordStep is the instruction that made one entry of the history.
type RecordStep struct {
	Text  string `json:"text"`
	Stage string `json:"stage,omitempty"`
	Line  int    `json:"line"`
	End   int    `json:"end"`
	// Earlier is set if the step belongs to an earlier stage, on which the target is based.
	Earlier bool `json:"earlier,omitempty"`
}

// Keep stores the record for the image with the digest of its configuration.
func (r Record) Keep(s *state.State, config digest.Digest) error {
	for i := range r.Steps {
		r.Steps[i].Text = oneLine(r.Steps[i].Text)
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.Keep(state.Builds, config, data)
}

// recordOf returns the record of an image, or nil if there is none or it cannot be read.
func recordOf(s *state.State, config digest.Digest) *Record {
	data, err := s.ReadKept(state.Builds, config)
	if err != nil {
		return nil
	}
	rec := new(Record)
	if json.Unmarshal(data, rec) != nil {
		return nil
	}
	return rec
}

// instructionText returns the text of a history entry in the form of a Dockerfile: it removes the
// text that BuildKit and docker's old builder add.
func instructionText(by string) string {
	by = strings.TrimSuffix(oneLine(by), " # buildkit")
	if shell, ok := strings.CutPrefix(by, "/bin/sh -c "); ok {
		if meta, ok := strings.CutPrefix(shell, "#(nop)"); ok {
			return strings.TrimSpace(meta)
		}
		return "RUN " + shell
	}
	if shell, ok := strings.CutPrefix(by, "RUN /bin/sh -c "); ok {
		return "RUN " + shell
	}
	return by
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// ending is the end of a base: the number of its layers, in base, and the number of its history
// entries.
type ending struct {
	base    analyze.Base
	history int
}

// noBase is the value of --base for an image without a base.
const noBase = "scratch"

// baseTimeout limits the time for finding, in a registry, a base that an annotation names: the
// base is not important enough to wait longer.
const baseTimeout = 15 * time.Second

// baseEnd finds the end of an image's base. The user's --base takes precedence over everything
// recorded in the image.
func baseEnd(ctx context.Context, images *image.Resolver, img *image.Image, rec *Record,
	o Options) (ending, error) {
	if o.Base == noBase {
		return ending{base: analyze.Base{Source: analyze.BaseGiven}}, nil
	}
	if o.Base != "" {
		base, err := images.Resolve(ctx, o.Base, image.ResolveOptions{Platform: img.Platform})
		if err != nil {
			return ending{}, fmt.Errorf("base: %w", err)
		}
		if !basedOn(img, base) {
			return ending{}, fmt.Errorf("it is not based on %s: its first layers are different",
				o.Base)
		}
		return endOf(img, base, analyze.BaseGiven), nil
	}
	if end, ok := recordedEnd(img, rec); ok {
		return end, nil
	}
	name, d := img.Manifest.Annotations[ocispec.AnnotationBaseImageName],
		img.Manifest.Annotations[ocispec.AnnotationBaseImageDigest]
	note := ""
	if name != "" || d != "" {
		base, err := annotated(ctx, images, img, name, d)
		switch {
		case err != nil:
			note = fmt.Sprintf("the base %s that its annotations name is not available: %v; ", name,
				err)
		case basedOn(img, base):
			end := endOf(img, base, analyze.BaseAnnotation)
			if name != "" {
				end.base.Name = name
			}
			return end, nil
		default:
			note = fmt.Sprintf(
				"its first layers are not those of the base %s that its annotations name; ",
				name)
		}
	}
	end := guess(img)
	end.base.Note = note + end.base.Note
	return end, nil
}

// recordedEnd returns the end of the base that the record of the build names. There is none if the
// record is missing or that of another history.
func recordedEnd(img *image.Image, rec *Record) (ending, bool) {
	if rec == nil || rec.Base.History+len(rec.Steps) != len(img.Config.History) {
		return ending{}, false
	}
	b := analyze.Base{Name: rec.Base.Name, Digest: rec.Base.Digest, Layers: rec.Base.Layers,
		Source: analyze.BaseRecord}
	return ending{b, rec.Base.History}, true
}

// annotated finds the base that annotations name.
func annotated(ctx context.Context, images *image.Resolver, img *image.Image, name,
	d string) (*image.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, baseTimeout)
	defer cancel()
	ref := name
	switch {
	case d != "" && digest.Digest(d).Validate() != nil:
		return nil, fmt.Errorf("%q is not a digest", d)
	case name == "":
		ref = d
	case d != "" && !strings.Contains(name, "@"):
		ref = name + "@" + d
	}
	if image.HasPlace(ref) {
		// do not read files that an image names
		return nil, fmt.Errorf("%q is not the name of an image", ref)
	}
	return images.Resolve(ctx, ref, image.ResolveOptions{Platform: img.Platform})
}

func basedOn(img, base *image.Image) bool {
	have, want := img.Config.RootFS.DiffIDs, base.Config.RootFS.DiffIDs
	return len(have) >= len(want) && slices.Equal(have[:len(want)], want)
}

func endOf(img, base *image.Image, source analyze.BaseSource) ending {
	b := analyze.Base{Name: base.Name, Digest: base.Descriptor.Digest.String(),
		Layers: len(base.Manifest.Layers), Source: source}
	return ending{b, historyOfLayers(img.Config.History, len(base.Manifest.Layers),
		len(base.Config.History))}
}

// historyOfLayers returns the number of history entries that belong to the first layers. It
// includes entries without a layer as far as the base's own history, of length own, has them.
func historyOfLayers(history []ocispec.History, layers, own int) int {
	made := 0
	for i, h := range history {
		if made == layers && i >= own {
			return i
		}
		if !h.EmptyLayer {
			if made == layers {
				return i
			}
			made++
		}
	}
	return len(history)
}

// gap is the minimum time between two history entries that are treated as made by different builds.
const gap = time.Hour

// guess searches the history for the end of a base: a base usually ends with its CMD or ENTRYPOINT,
// and is older than the rest.
func guess(img *image.Image) ending {
	history := img.Config.History
	at, note := 0, "the history does not show where a base ends, so all layers count as own layers"
	layersAfter := func(i int) bool {
		return slices.ContainsFunc(history[i:],
			func(h ocispec.History) bool { return !h.EmptyLayer })
	}
	for i, h := range history {
		by := strings.TrimSpace(strings.TrimPrefix(strings.TrimPrefix(h.CreatedBy, "/bin/sh -c "),
			"#(nop)"))
		if h.EmptyLayer && (strings.HasPrefix(by, "CMD") || strings.HasPrefix(by, "ENTRYPOINT")) &&
			layersAfter(i+1) {
			at, note = i+1, "the base seems to end at the last CMD or ENTRYPOINT before a layer"
		}
	}
	if longest := gap; at == 0 {
		for i := 1; i < len(history); i++ {
			a, b := history[i-1].Created, history[i].Created
			if a != nil && b != nil && a.Unix() > 0 && b.Sub(*a) > longest && layersAfter(i) {
				longest = b.Sub(*a)
				at, note = i, fmt.Sprintf(
					"the base seems to end where the history has a gap from %s to %s",
					a.Format(time.DateOnly), b.Format(time.DateOnly))
			}
		}
	}
	end := ending{base: analyze.Base{Source: analyze.BaseGuess, Note: note}, history: at}
	for _, h := range history[:at] {
		if !h.EmptyLayer {
			end.base.Layers++
		}
	}
	end.base.Layers = min(end.base.Layers, len(img.Manifest.Layers))
	return end
}

// instructions returns the entries of the history with their layers, first the base's and then the
// others. Layers without an entry, as in images of some other tools, get an instruction without a
// text.
func instructions(img *image.Image, end ending, rec *Record) []analyze.Instruction {
	var list []analyze.Instruction
	history, layer := img.Config.History, 0
	own := end.history
	add := func(h ocispec.History, owner analyze.Owner, last int) {
		ins := analyze.Instruction{Text: instructionText(h.CreatedBy), Created: h.Created,
			Owner: owner, Layer: -1}
		if !h.EmptyLayer && layer < last {
			ins.Layer = layer
			layer++
		}
		list = append(list, ins)
	}
	rest := func(owner analyze.Owner, last int) {
		for layer < last {
			add(ocispec.History{CreatedBy: "(not in the history)"}, owner, last)
		}
	}
	for _, h := range history[:own] {
		add(h, analyze.BaseImage, end.base.Layers)
	}
	rest(analyze.BaseImage, end.base.Layers)
	for i, h := range history[own:] {
		add(h, analyze.Own, len(img.Manifest.Layers))
		// A record has the instructions of the Dockerfile, from its own end of the base on. A
		// different --base may move that end.
		if rec == nil || rec.Base.History+len(rec.Steps) != len(history) {
			continue
		}
		if k := own + i - rec.Base.History; k >= 0 {
			step, ins := rec.Steps[k], &list[len(list)-1]
			ins.Text, ins.Stage, ins.Line, ins.EndLine = step.Text, step.Stage, step.Line, step.End
			if step.Earlier {
				ins.Owner = analyze.EarlierStage
			}
		}
	}
	rest(analyze.Own, len(img.Manifest.Layers))
	return list
}

// Seal seals a layer and stores its table. It makes the table from the tar while the layer is
// written, so that nothing has to be decompressed.
func Seal(ctx context.Context, s *state.State, tree diff.Tree, o diff.Options) (diff.Layer, error) {
	r, w := io.Pipe()
	o.Tee = w
	var t *analyze.Table
	var g errgroup.Group
	g.Go(func() (err error) {
		t, err = analyze.Scan(ctx, r)
		r.CloseWithError(err)
		return err
	})
	l, err := diff.Seal(ctx, s.Store, tree, o)
	w.CloseWithError(err) // with a nil error: the end of the tar
	if scanErr := g.Wait(); err == nil {
		err = scanErr
	}
	if err != nil {
		return diff.Layer{}, err
	}
	return l, putTable(s, l.Descriptor.Digest, t)
}
