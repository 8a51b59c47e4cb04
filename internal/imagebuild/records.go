package imagebuild

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// importRecords reads the records of all places of --cache-from.
func importRecords(ctx context.Context, artifacts remotecache.Artifacts, o *Options,
	plans []plan, shared []*remotecache.Shared) (*remotecache.Imports, error) {
	if o.Cache.No || len(o.Cache.From)+len(shared) == 0 {
		return nil, nil
	}
	var im *remotecache.Imports
	if len(o.Cache.From) == 0 {
		return im.Ask(ctx, shared), nil
	}
	platforms := make([]ocispec.Platform, len(plans))
	for i, p := range plans {
		platforms[i] = p.plan.Target.Platform
	}
	im, err := remotecache.Import(ctx, artifacts, o.Cache.From, platforms, o.Sink)
	if err != nil || len(shared) == 0 {
		return im, err
	}
	return im.Ask(ctx, shared), nil
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

// newShared returns the shared caches of a build. The hint is that of the first name of the image,
// or of the Dockerfile, and of what is built of it.
func newShared(o *Options, dockerfile string) []*remotecache.Shared {
	name := dockerfile
	if len(o.Image.Names) > 0 {
		if n, err := reference.Parse(o.Image.Names[0]); err == nil {
			name = n.Repository()
		}
	}
	hint := fmt.Sprint(name, " ", o.Target, " ", o.Platforms)
	list := make([]*remotecache.Shared, len(o.Cache.Shared))
	for i, c := range o.Cache.Shared {
		list[i] = remotecache.NewShared(c.Place, c.Store, hint, o.Sink)
	}
	return list
}

// writesShared reports whether the results of all steps are written to a shared cache.
func (o *CacheOptions) writesShared() bool {
	return slices.ContainsFunc(o.Shared, func(c SharedCache) bool { return !c.Place.ReadOnly })
}

// publish returns the function that writes the results of steps to the shared caches until ctx
// ends, or nil if there are none.
func (b *builder) publish(ctx context.Context) func(
	func(context.Context) (remotecache.Record, error)) {
	if !b.opts.Cache.writesShared() {
		return nil
	}
	return func(record func(context.Context) (remotecache.Record, error)) {
		for _, s := range b.shared {
			s.Publish(ctx, record)
		}
	}
}

// finishShared waits until the results that were published are in the shared caches, and saves the
// cache mounts.
func (a *batch) finishShared(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	for _, b := range a.running() {
		for _, s := range b.shared {
			s.Finish(ctx)
		}
	}
	for _, b := range a.running() {
		b.saveMounts(ctx)
	}
}

// closeShared ends the leases of steps whose results were not published.
func (a *batch) closeShared() {
	for _, b := range a.running() {
		for _, s := range b.shared {
			s.Close()
		}
	}
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
