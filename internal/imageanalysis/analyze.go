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

// Options holds what is known of an image besides its own content.
type Options struct {
	// Base is the name of the image that it is based on, "scratch" for none; "": it is found by the
	// rules of docs/WASTE.md.
	Base string
	// Accept are patterns of paths that may be there.
	Accept []string
}

// Analyze finds out what of an image is waste. Layers whose tables are kept are not read.
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

// layerTable is the table of a layer: the one that is kept, or one that is made by reading the
// layer, and then kept.
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

// The tables of layers are kept by the digests of their blobs, in cache/tables. What cannot be read
// is as if it were not there: tables are not synced to disk.

func table(s *state.State, d digest.Digest) *analyze.Table {
	data, err := s.ReadKept("tables", d)
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
	return s.Keep("tables", d, data)
}

// Record is what a build keeps about its image, under the digest of the configuration.
type Record struct {
	Dockerfile string       `json:"dockerfile"`
	Base       RecordedBase `json:"base"`
	Steps      []RecordStep `json:"steps"` // of the history entries after the base's
}

// RecordedBase is the image that an image was built on. It is zero for scratch.
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
	// Earlier reports whether the step is of a stage that the target is based on.
	Earlier bool `json:"earlier,omitempty"`
}

// Keep keeps the record for the image that has a configuration.
func (r Record) Keep(s *state.State, config digest.Digest) error {
	for i := range r.Steps {
		r.Steps[i].Text = oneLine(r.Steps[i].Text)
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.Keep("builds", config, data)
}

// recordOf returns the record of an image, nil if there is none that can be read.
func recordOf(s *state.State, config digest.Digest) *Record {
	data, err := s.ReadKept("builds", config)
	if err != nil {
		return nil
	}
	rec := new(Record)
	if json.Unmarshal(data, rec) != nil {
		return nil
	}
	return rec
}

// instructionText is an entry of a history as a Dockerfile would have it. BuildKit and docker's old
// builder add to it.
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

// ending is where a base ends: after how many layers and entries of the history.
type ending struct {
	base    analyze.Base
	history int
}

// noBase is the value of --base for an image without a base.
const noBase = "scratch"

// registryPatience is how long a registry is asked for a base that an annotation names, which is
// not worth more.
const registryPatience = 15 * time.Second

// baseEnd finds out where the base of an image ends. What the user says comes first: it was said
// about this image, now.
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
	if rec != nil && rec.Base.History+len(rec.Steps) == len(img.Config.History) {
		b := analyze.Base{Name: rec.Base.Name, Digest: rec.Base.Digest, Layers: rec.Base.Layers,
			Source: analyze.BaseRecord}
		return ending{b, rec.Base.History}, nil
	}
	name, d := img.Manifest.Annotations[ocispec.AnnotationBaseImageName],
		img.Manifest.Annotations[ocispec.AnnotationBaseImageDigest]
	note := ""
	if name != "" || d != "" {
		base, err := annotated(ctx, images, img, name, d)
		switch {
		case err != nil:
			note = fmt.Sprintf("the base %s that its annotations name is not available: %v; ", name, err)
		case basedOn(img, base):
			end := endOf(img, base, analyze.BaseAnnotation)
			if name != "" {
				end.base.Name = name
			}
			return end, nil
		default:
			note = fmt.Sprintf("its first layers are not those of the base %s that its annotations name; ",
				name)
		}
	}
	end := guess(img)
	end.base.Note = note + end.base.Note
	return end, nil
}

// annotated finds the base that annotations name.
func annotated(ctx context.Context, images *image.Resolver, img *image.Image, name,
	d string) (*image.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, registryPatience)
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
	if image.IsPath(ref) {
		// an image must not make us read files
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

// historyOfLayers is how many entries of a history belong to the first layers: as many as the
// base's own history has, where the two agree.
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

// gap is between what was built in one go and what was built on top of it.
const gap = time.Hour

// guess looks for the end of a base in the history: bases say last which command they run, and they
// are older.
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
				at, note = i, fmt.Sprintf("the base seems to end where the history has a gap from %s to %s", a.Format(time.DateOnly), b.Format(time.DateOnly))
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

// instructions joins the history with the layers, first the base's and then the others. Layers that
// the history does not know of, as in images of some other tools, get an instruction without a
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
		// A record tells what was written, counted from its own end of the base, which another
		// --base may move.
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

// Seal seals a layer and keeps its table, which it makes from the tar on the way: nothing has to be
// decompressed for it.
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
	w.CloseWithError(err) // nil is the end of the tar
	if scanErr := g.Wait(); err == nil {
		err = scanErr
	}
	if err != nil {
		return diff.Layer{}, err
	}
	return l, putTable(s, l.Descriptor.Digest, t)
}
