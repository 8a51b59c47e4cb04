package build

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/image"
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
	b.imports, err = remotecache.Import(ctx, b.images, b.opts.Cache.From, platforms, b.sink)
	return err
}

// importable returns the imported records that name a layer which a job's result can be made of.
func (b *builder) importable(j *job) []remotecache.Found {
	key := cmp.Or(j.key, j.quick)
	if key == "" || j.key == "" && j.inputs != "" {
		// The stages that the job takes files from were built here. Their results on another machine may differ, so
		// only a record under the content key counts.
		return nil
	}
	var list []remotecache.Found
	for _, r := range b.imports.Find(key) {
		if b.keepsEpoch(r.Layer.Epoch()) {
			list = append(list, r)
		}
	}
	return list
}

// A layer that was sealed with an epoch has no times after it, and neither has a snapshot unpacked from it. In a build
// with a later epoch, or with none, the step would give other times.

// keepsTimes reports whether the times in a record's snapshot are right for this build.
func (b *builder) keepsTimes(rec cache.Record) bool {
	return b.keepsEpoch(rec.ClampedTo)
}

// keepsEpoch is keepsTimes for files whose times were limited to an epoch; nil: they were not.
func (b *builder) keepsEpoch(clamped *int64) bool {
	return clamped == nil || b.epoch != nil && *b.epoch <= *clamped
}

// imported looks for a job's result among the imported records. The blob is fetched at once, so that a cache that has
// lost it costs no more than the step; it is unpacked when something runs on it, or reads it.
func (s *solver) imported(ctx context.Context, cur rootfs, j *job, l *line) (stepResult, cache.Key, bool, error) {
	found := s.importable(j)
	if len(found) == 0 {
		return stepResult{}, "", false, nil
	}
	parent, err := s.sealer.ChainID(ctx, cur.layers)
	if err != nil {
		return stepResult{}, "", false, err
	}
	for _, r := range found {
		if r.Layer.Parent != parent {
			continue
		}
		res, err := s.fetched.Do(ctx, string(r.Key)+" on "+string(cur.top), func() (stepResult, error) { return s.fetch(ctx, cur, j, r, l) })
		if err == nil {
			return res, r.ContentKey(), true, nil
		}
		if ctx.Err() != nil {
			return stepResult{}, "", false, context.Cause(ctx)
		}
		output{l}.warn(fmt.Sprintf("the step is run, for its result cannot be had from the cache at %s: %v", r.From.Name, err))
	}
	return stepResult{}, "", false, nil
}

// fetch brings a record's layer here and promises its snapshot.
func (s *solver) fetch(ctx context.Context, cur rootfs, j *job, r remotecache.Found, l *line) (stepResult, error) {
	img, err := r.From.Layer(r.Layer.Descriptor, r.Layer.DiffID)
	if err != nil {
		return stepResult{}, err
	}
	if err := s.images.Ensure(ctx, img, image.UnpackOptions{ID: l.id, Sink: s.sink}); err != nil {
		return stepResult{}, err
	}
	id, err := newID()
	if err != nil {
		return stepResult{}, err
	}
	rec := cache.Record{
		Snapshot: string(id), Created: r.Created, ContentKey: r.ContentKey(), Inputs: j.inputs, ClampedTo: r.Layer.Epoch(),
	}
	keys := []cache.Key{r.Key, r.ContentKey(), j.quick}
	s.lazy.Add(id, func(ctx context.Context) error {
		if err := s.lazy.Materialize(ctx, cur.top); err != nil {
			return err
		}
		if err := s.images.UnpackOn(ctx, img, cur.top, id, image.UnpackOptions{ID: l.id, Sink: s.sink}); err != nil {
			return err
		}
		s.dirty.Store(true)
		for i, key := range keys {
			if key == "" || slices.Contains(keys[:i], key) {
				continue
			}
			if err := s.state.Cache.Put(key, rec); err != nil {
				return err
			}
		}
		return s.state.Cache.PutSealed(string(id), r.Layer.Sealed, cache.Layer{Descriptor: r.Layer.Descriptor, DiffID: r.Layer.DiffID})
	})
	res := stepResult{snapshot: id, created: r.Created.UTC(), cached: true}
	if r.Layer.Sealed == s.sealer.Format() {
		res.image = img
	}
	return res, nil
}

// note keeps a step's result for the exports.
func (s *solver) note(st *parser.Stage, keys []cache.Key, created time.Time, l *layers.Layer, below []*layers.Layer) {
	if len(s.opts.Cache.To) > 0 {
		s.collector.Add(s.imageStages()[st], keys, created, l, below)
	}
}

// exportsAll reports whether the results of all stages are exported somewhere. Their layers are then all sealed.
func (b *builder) exportsAll() bool {
	return slices.ContainsFunc(b.opts.Cache.To, func(p remotecache.Place) bool { return p.Max })
}

// exportsInline reports whether results are exported in the image itself.
func (b *builder) exportsInline() bool {
	return slices.ContainsFunc(b.opts.Cache.To, func(p remotecache.Place) bool { return p.Type == "inline" })
}

// exportRecords exports the results of this build to the places of --cache-to.
func (b *builder) exportRecords(ctx context.Context, solvers []*solver) error {
	e := remotecache.Exporter{Store: b.state.Store, Env: b.opts.Export, Sink: b.sink}
	return e.Export(ctx, b.opts.Cache.To, func(all bool) (doc remotecache.Document, err error) {
		for _, s := range solvers {
			d, err := s.collector.Document(ctx, b.sealer, all)
			if err != nil {
				return doc, err
			}
			doc.Records = append(doc.Records, d.Records...)
		}
		doc.Sort()
		return doc, nil
	})
}
