package imagebuild

import (
	"cmp"
	"context"
	"io"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/imageanalysis"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/outputs"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/parser"
)

// newWriter returns the writer of the images. It checks the destinations, before anything is
// built.
func (b *builder) newWriter() (*outputs.Writer, error) {
	exporters, err := export.New(b.opts.Export, b.opts.Outputs...)
	if err != nil {
		return nil, err
	}
	o := b.opts.outputs()
	o.InlineCache = b.opts.Cache.exportsInline()
	// that of the command line, or else of a build argument or the Dockerfile
	o.Epoch = cmp.Or(b.opts.Image.Epoch, b.plans[0].plan.Epoch)
	o.Warn(b.opts.Sink)
	w := &outputs.Writer{State: b.all.state, Images: b.all.images, Options: o,
		Recipe:    o.StoreRecipe(),
		Exporters: exporters, Sink: b.opts.Sink}
	if !b.opts.Analyze && b.opts.Attest.SBOM == nil && len(b.opts.Cache.To) == 0 {
		w.Remote = b.opts.Upload
	} // otherwise layers are read after the build
	return w, nil
}

// built returns the result of a plan for the writer, without its Record.
func (b *builder) built(p plan, s *build.Solver, t build.Target) outputs.Built {
	w, lazy := b.writer, b.attempt.layers.Lazy
	out := outputs.Built{
		Platform: p.plan.Target.Platform, Config: t.Config, Layers: t.Layers,
		Files: func(ctx context.Context, to io.Writer) error {
			return layers.WriteFiles(ctx, to, b.all.state, lazy, t.Top, w.Options.Epoch)
		},
	}
	if w.Options.InlineCache {
		out.Records = func(ctx context.Context) (remotecache.Document, error) {
			return s.Records(ctx, false)
		}
	}
	return out
}

// record returns the record of an image: its base, and the lines of the Dockerfile that made the
// entries of its history.
func record(ctx context.Context, file string, in *inputs.Inputs, plan *parser.Plan,
	t build.Target) (imageanalysis.Record, error) {
	rec := imageanalysis.Record{Dockerfile: file}
	own := plan.Target.Lineage()
	first := own[len(own)-1].Base
	base, ok := first.(parser.ImageInput)
	if c, context := first.(parser.ContextInput); context {
		base, ok = in.ContextImage(c)
	}
	if ok {
		img, err := in.Resolve(ctx, base)
		if err != nil {
			return rec, err
		}
		rec.Base = imageanalysis.RecordedBase{Name: img.Name,
			Digest: img.Descriptor.Digest.String(), Layers: len(img.Manifest.Layers),
			History: len(img.Config.History)}
	}
	if l := t.Linked; l != nil {
		rec.Base = imageanalysis.RecordedBase{Layers: l.Layers, History: l.History}
	}
	for _, o := range t.Origins {
		rec.Steps = append(rec.Steps, imageanalysis.RecordStep{
			Text: o.Text, Stage: o.Stage.Name, Line: o.Lines.Start, End: o.Lines.End,
			Earlier: o.Stage != plan.Target,
		})
	}
	return rec, nil
}
