package build

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/parser"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Results of steps travel between machines as a document of records, with the layers that they name. As an artifact of
// its own it is an OCI manifest whose configuration is the document and whose layers are the layers: registries and
// tools copy it like an image. Inline it is a field of the image's configuration.
const (
	cacheMediaType = "application/vnd.layerbuild.cache.v1+json"
	cacheField     = "layerbuild.cache.v1"
)

// cacheDocument is what step results are written as.
type cacheDocument struct {
	Records []carried `json:"records"`
}

// carried is one record that travels. Its Layer is nil for an instruction that only describes the image: then it is only
// said when it was first built.
type carried struct {
	Key cache.Key `json:"key"`
	// Content is the key that the next step's is made of, where that is another one.
	Content cache.Key     `json:"content,omitempty"`
	Created time.Time     `json:"created"`
	Layer   *carriedLayer `json:"layer,omitempty"`
}

// carriedLayer is the layer that a step has made. It is good on the layers of Parent only: a command that is run again
// somewhere else may well leave other files, and layers of two runs would not fit together.
type carriedLayer struct {
	Descriptor ocispec.Descriptor `json:"descriptor"`
	DiffID     digest.Digest      `json:"diffID"`
	Parent     digest.Digest      `json:"parent,omitempty"` // chain ID
	// Sealed is how it was sealed. Where it would be sealed otherwise the blob is not used as it is.
	Sealed string `json:"sealed"`
}

// imports are the records that were found in the places of --cache-from.
type imports struct {
	records map[cache.Key][]foundRecord
}

type foundRecord struct {
	carried
	from *image.Artifact
}

// importRecords reads the records of all places of --cache-from.
func (b *builder) importRecords(ctx context.Context, platforms []ocispec.Platform) error {
	if b.opts.Cache.No || len(b.opts.Cache.From) == 0 {
		return nil
	}
	found := make([][]foundRecord, len(b.opts.Cache.From))
	g, gctx := errgroup.WithContext(ctx)
	for i, place := range b.opts.Cache.From {
		g.Go(func() error {
			id := event.ID(fmt.Sprint("cache-from ", i))
			b.sink(event.Start{ID: id, Name: "importing cache from " + place.String(), Time: time.Now()})
			var err error
			found[i], err = b.importFrom(gctx, place, platforms)
			if err != nil && gctx.Err() == nil {
				// A cache that is not there makes a build slower, and not fail.
				b.sink(event.Warning{ID: id, Message: fmt.Sprintf("nothing is taken from the cache at %s: %v", place, err), Time: time.Now()})
			}
			b.sink(event.Done{ID: id, Note: fmt.Sprintf("%d records", len(found[i])), Time: time.Now()})
			return gctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	b.imports.records = map[cache.Key][]foundRecord{}
	for _, list := range found {
		for _, r := range list {
			b.imports.records[r.Key] = append(b.imports.records[r.Key], r)
		}
	}
	return nil
}

// importFrom reads the records of one place: an artifact's, or those in the images for the platforms.
func (b *builder) importFrom(ctx context.Context, place CachePlace, platforms []ocispec.Platform) ([]foundRecord, error) {
	var list []foundRecord
	var errs []error
	seen := map[digest.Digest]bool{}
	for _, p := range platforms {
		a, err := b.images.Artifact(ctx, place.location(), image.ResolveOptions{Platform: p, Pull: !place.Plain})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if seen[a.Descriptor.Digest] {
			continue
		}
		seen[a.Descriptor.Digest] = true
		records, err := recordsOf(a)
		if err != nil {
			errs = append(errs, err)
		}
		for _, r := range records {
			list = append(list, foundRecord{r, a})
		}
	}
	return list, errors.Join(errs...)
}

// errNoRecords is what an image is that was built without --cache-to type=inline.
var errNoRecords = errors.New("it holds no records of steps; was it built with --cache-to?")

func recordsOf(a *image.Artifact) ([]carried, error) {
	data := json.RawMessage(a.Config)
	if a.Manifest.Config.MediaType != cacheMediaType {
		var config map[string]json.RawMessage
		if err := json.Unmarshal(a.Config, &config); err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		if data = config[cacheField]; data == nil {
			return nil, errNoRecords
		}
	}
	var doc cacheDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	return doc.Records, nil
}

// importable returns the imported records that name a layer which a job's result can be made of.
func (b *builder) importable(j *job) []foundRecord {
	key := cmp.Or(j.key, j.quick)
	if key == "" || j.key == "" && j.inputs != "" {
		// The stages that the job takes files from were built here. Their results on another machine may differ, so
		// only a record under the content key counts.
		return nil
	}
	var list []foundRecord
	for _, r := range b.imports.records[key] {
		if r.Layer != nil && b.keepsEpoch(r.Layer.epoch()) {
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

// epoch returns the epoch that a layer was sealed with; nil for none.
func (l *carriedLayer) epoch() *int64 { return layers.EpochOf(l.Sealed) }

// created is when an instruction that makes no layer was first built.
func (im *imports) created(key cache.Key) (time.Time, bool) {
	for _, r := range im.records[key] {
		if r.Layer == nil {
			return r.Created, true
		}
	}
	return time.Time{}, false
}

// imported looks for a job's result among the imported records. The blob is fetched at once, so that a cache that has
// lost it costs no more than the step; it is unpacked when something runs on it, or reads it.
func (s *solver) imported(ctx context.Context, cur rootfs, j *job, l *line) (stepResult, cache.Key, bool, error) {
	found := s.importable(j)
	if len(found) == 0 {
		return stepResult{}, "", false, nil
	}
	parent, err := s.chain(ctx, cur.layers)
	if err != nil {
		return stepResult{}, "", false, err
	}
	for _, r := range found {
		if r.Layer.Parent != parent {
			continue
		}
		res, err := s.fetched.Do(ctx, string(r.Key)+" on "+string(cur.top), func() (stepResult, error) { return s.fetch(ctx, cur, j, r, l) })
		if err == nil {
			return res, cmp.Or(r.Content, r.Key), true, nil
		}
		if ctx.Err() != nil {
			return stepResult{}, "", false, context.Cause(ctx)
		}
		output{l}.warn(fmt.Sprintf("the step is run, for its result cannot be had from the cache at %s: %v", r.from.Name, err))
	}
	return stepResult{}, "", false, nil
}

// fetch brings a record's layer here and promises its snapshot.
func (s *solver) fetch(ctx context.Context, cur rootfs, j *job, r foundRecord, l *line) (stepResult, error) {
	img, err := r.from.Layer(r.Layer.Descriptor, r.Layer.DiffID)
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
		Snapshot: string(id), Created: r.Created, ContentKey: cmp.Or(r.Content, r.Key), Inputs: j.inputs, ClampedTo: r.Layer.epoch(),
	}
	keys := []cache.Key{r.Key, cmp.Or(r.Content, r.Key), j.quick}
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

// chain is the chain ID of layers, which are sealed for it if nobody else wants that.
func (s *solver) chain(ctx context.Context, layers []*layers.Layer) (digest.Digest, error) {
	ids := make([]digest.Digest, len(layers))
	for i, l := range layers {
		s.sealer.Seal(l)
		if err := s.wait(ctx, l); err != nil {
			return "", err
		}
		ids[i] = l.DiffID
	}
	return identity.ChainID(ids), nil
}

// outgoing is a record that may be exported.
type outgoing struct {
	carried
	stage  *parser.Stage
	layer  *layers.Layer   // nil: metadata
	parent []*layers.Layer // below layer
}

// note keeps a step's record for the exports.
func (s *solver) note(st *parser.Stage, keys []cache.Key, created time.Time, l *layers.Layer, parent []*layers.Layer) {
	if len(s.opts.Cache.To) == 0 {
		return
	}
	content := keys[len(keys)-1]
	s.noted.Lock()
	defer s.noted.Unlock()
	for i, key := range keys {
		if key == "" || slices.Contains(keys[:i], key) {
			continue
		}
		o := outgoing{carried: carried{Key: key, Created: created.UTC()}, stage: st, layer: l, parent: parent}
		if key != content {
			o.Content = content
		}
		s.outgoing = append(s.outgoing, o)
	}
}

// exportsAll says whether the results of all stages are wanted somewhere, which therefore are all sealed.
func (b *builder) exportsAll() bool {
	return slices.ContainsFunc(b.opts.Cache.To, func(p CachePlace) bool { return p.Max })
}

// exportsInline says whether results are left in the image itself.
func (b *builder) exportsInline() bool {
	return slices.ContainsFunc(b.opts.Cache.To, func(p CachePlace) bool { return p.Type == "inline" })
}

// document collects the records of all stages, or of those that the image is made of, in an order that is always the
// same.
func (s *solver) document(ctx context.Context, all bool) (cacheDocument, error) {
	s.noted.Lock()
	list := slices.Clone(s.outgoing)
	s.noted.Unlock()
	own := s.imageStages()
	doc := cacheDocument{Records: []carried{}}
	for _, o := range list {
		if !all && !own[o.stage] {
			continue
		}
		if o.layer != nil {
			if err := s.wait(ctx, o.layer); err != nil {
				return doc, err
			}
			parent, err := s.chain(ctx, o.parent)
			if err != nil {
				return doc, err
			}
			o.Layer = &carriedLayer{Descriptor: image.OCIDescriptor(o.layer.Descriptor), DiffID: o.layer.DiffID, Parent: parent, Sealed: s.sealer.Format()}
		}
		doc.Records = append(doc.Records, o.carried)
	}
	doc.sort()
	return doc, nil
}

func (doc *cacheDocument) sort() {
	compare := func(a, b carried) int {
		n := cmp.Compare(a.Key, b.Key)
		if n == 0 && a.Layer != nil && b.Layer != nil {
			n = cmp.Compare(a.Layer.Parent+a.Layer.DiffID, b.Layer.Parent+b.Layer.DiffID)
		}
		return n
	}
	slices.SortStableFunc(doc.Records, compare)
	doc.Records = slices.CompactFunc(doc.Records, func(a, b carried) bool { return compare(a, b) == 0 && (a.Layer == nil) == (b.Layer == nil) })
}

// exportRecords leaves the records of this build in the places of --cache-to.
func (b *builder) exportRecords(ctx context.Context, solvers []*solver) error {
	for i, place := range b.opts.Cache.To {
		if place.Type == "inline" {
			continue
		}
		id := event.ID(fmt.Sprint("cache-to ", i))
		b.sink(event.Start{ID: id, Name: "exporting cache to " + place.String(), Time: time.Now()})
		err := b.exportTo(ctx, id, place, solvers)
		if err != nil && place.IgnoreError && ctx.Err() == nil {
			b.sink(event.Warning{ID: id, Message: fmt.Sprintf("the cache is not exported: %v", err), Time: time.Now()})
			err = nil
		}
		b.sink(event.Done{ID: id, Err: err, Time: time.Now()})
		if err != nil {
			return fmt.Errorf("export the cache to %s: %w", place, err)
		}
	}
	return nil
}

func (b *builder) exportTo(ctx context.Context, id event.ID, place CachePlace, solvers []*solver) error {
	var doc cacheDocument
	for _, s := range solvers {
		d, err := s.document(ctx, place.Max)
		if err != nil {
			return err
		}
		doc.Records = append(doc.Records, d.Records...)
	}
	doc.sort()
	root, err := b.writeRecords(ctx, doc)
	if err != nil {
		return err
	}
	if place.Type == "registry" {
		if b.opts.Export.Pusher == nil {
			return errors.New("there is no way to push")
		}
		return b.opts.Export.Pusher.Push(ctx, place.Ref, root, b.state.Store, export.PushOptions{ID: id, Sink: b.sink, Insecure: place.Insecure})
	}
	spec := export.Spec{Type: export.TypeOCI, Dest: place.Dir, Dir: true}
	exporters, err := export.New(b.opts.Export, spec)
	if err != nil {
		return err
	}
	img := &export.Image{Root: root, Names: []string{"cache:" + cmp.Or(place.Tag, "latest")}, Content: b.state.Store}
	return exporters[0].Export(ctx, img, event.Discard)
}

// writeRecords writes the artifact that holds a document and its layers.
func (b *builder) writeRecords(ctx context.Context, doc cacheDocument) (ocispec.Descriptor, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: strings.TrimSuffix(cacheMediaType, "+json"), Layers: []ocispec.Descriptor{},
	}
	have := map[digest.Digest]bool{}
	for _, r := range doc.Records {
		if r.Layer != nil && !have[r.Layer.Descriptor.Digest] {
			have[r.Layer.Descriptor.Digest] = true
			m.Layers = append(m.Layers, r.Layer.Descriptor)
		}
	}
	slices.SortFunc(m.Layers, func(a, b ocispec.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	var err error
	if m.Config, err = b.writeJSON(ctx, cacheMediaType, doc); err != nil {
		return ocispec.Descriptor{}, err
	}
	return b.writeJSON(ctx, ocispec.MediaTypeImageManifest, m)
}
