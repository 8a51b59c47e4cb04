package build

import (
	"context"
	"slices"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// importRecords reads the records of all places of --cache-from.
func (b *builder) importRecords(ctx context.Context, platforms []ocispec.Platform) (err error) {
	if b.opts.Cache.No || len(b.opts.Cache.From) == 0 {
		return nil
	}
	b.e.imports, err = remotecache.Import(ctx, b.artifacts, b.opts.Cache.From, platforms, b.sink)
	return err
}

// note collects the result of a step for --cache-to.
func (s *solver) note(st *parser.Stage, keys []cache.Key, created time.Time, l *layers.Layer,
	below []*layers.Layer) {
	if len(s.b.opts.Cache.To) > 0 {
		s.collector.Add(s.imageStages()[st], keys, created, l, below)
	}
}

// exportsAll reports whether the results of all stages are exported somewhere. Their layers are
// then all sealed.
func (b *builder) exportsAll() bool {
	return slices.ContainsFunc(b.opts.Cache.To, func(p remotecache.Place) bool { return p.Max })
}

// exportsInline reports whether results are exported in the image itself.
func (b *builder) exportsInline() bool {
	return slices.ContainsFunc(b.opts.Cache.To,
		func(p remotecache.Place) bool { return p.Type == "inline" })
}

// exportRecords exports the results of this build to the places of --cache-to.
func (b *builder) exportRecords(ctx context.Context, solvers []*solver) error {
	e := remotecache.Exporter{Store: b.state.Store, Env: b.opts.Export, Sink: b.sink}
	return e.Export(ctx, b.opts.Cache.To, func(all bool) (doc remotecache.Document, err error) {
		for _, s := range solvers {
			d, err := s.collector.Document(ctx, b.e.sealer, all)
			if err != nil {
				return doc, err
			}
			doc.Records = append(doc.Records, d.Records...)
		}
		doc.Sort()
		return doc, nil
	})
}
