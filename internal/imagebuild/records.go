package imagebuild

import (
	"context"
	"slices"
	"time"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// importRecords reads the records of all places of --cache-from.
func importRecords(ctx context.Context, artifacts remotecache.Artifacts, o *Options,
	plans []plan) (*remotecache.Imports, error) {
	if o.Cache.No || len(o.Cache.From) == 0 {
		return nil, nil
	}
	platforms := make([]ocispec.Platform, len(plans))
	for i, p := range plans {
		platforms[i] = p.plan.Target.Platform
	}
	return remotecache.Import(ctx, artifacts, o.Cache.From, platforms, o.Sink)
}

// notBefore returns the time before which the results of steps are too old; zero if none are.
func (o *CacheOptions) notBefore() time.Time {
	if o.MaxAge == 0 {
		return time.Time{}
	}
	return time.Now().Add(-o.MaxAge)
}

// exportsAll reports whether the results of all stages are exported somewhere. Their layers are
// then all sealed.
func (o *CacheOptions) exportsAll() bool {
	return slices.ContainsFunc(o.To, func(p remotecache.Place) bool { return p.Max })
}

// exportsInline reports whether results are exported in the image itself.
func (o *CacheOptions) exportsInline() bool {
	return slices.ContainsFunc(o.To, func(p remotecache.Place) bool { return p.Type == "inline" })
}

// exportRecords exports the results of the solvers to the places of --cache-to.
func exportRecords(ctx context.Context, st *state.State, o *Options,
	solvers []*build.Solver) error {
	e := remotecache.Exporter{Store: st.Store, Env: o.Export, Sink: o.Sink}
	return e.Export(ctx, o.Cache.To, func(all bool) (doc remotecache.Document, err error) {
		for _, s := range solvers {
			d, err := s.Records(ctx, all)
			if err != nil {
				return doc, err
			}
			doc.Records = append(doc.Records, d.Records...)
		}
		doc.Sort()
		return doc, nil
	})
}
