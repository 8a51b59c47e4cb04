package imagebuild

import (
	"context"
	"slices"

	"github.com/layerbuild/layerbuild/internal/remotecache"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// importRecords reads the records of all places of --cache-from.
func (b *builder) importRecords(ctx context.Context, plans []*plan) (*remotecache.Imports, error) {
	if b.opts.Cache.No || len(b.opts.Cache.From) == 0 {
		return nil, nil
	}
	platforms := make([]ocispec.Platform, len(plans))
	for i, p := range plans {
		platforms[i] = p.plan.Target.Platform
	}
	return remotecache.Import(ctx, b.parts.Artifacts, b.opts.Cache.From, platforms, b.sink)
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
func (b *builder) exportRecords(ctx context.Context, plans []*plan) error {
	e := remotecache.Exporter{Store: b.state.Store, Env: b.opts.Export, Sink: b.sink}
	return e.Export(ctx, b.opts.Cache.To, func(all bool) (doc remotecache.Document, err error) {
		for _, p := range plans {
			d, err := p.solver.Records(ctx, all)
			if err != nil {
				return doc, err
			}
			doc.Records = append(doc.Records, d.Records...)
		}
		doc.Sort()
		return doc, nil
	})
}
