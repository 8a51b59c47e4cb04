package remotecache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/sorting"
	"github.com/layerbuild/layerbuild/internal/store"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Collector collects the results of steps that may be exported. It is safe for concurrent use; the
// zero value is empty.
type Collector struct {
	// Added is called for each result under each of its keys. record waits for the layer, as
	// Document does. nil: nothing is called.
	Added func(record func(ctx context.Context, sealer Sealer) (Record, error))

	mu   sync.Mutex
	list []collected
}

type collected struct {
	Record
	own   bool
	layer *layers.Layer   // nil: the instruction only changes the configuration
	below []*layers.Layer // the layers below layer
}

// Add adds the result of a step under its keys, the last of which is its content key. own reports
// whether the step belongs to the stages of the image. l is nil for an instruction that only
// changes the image's configuration.
func (c *Collector) Add(own bool, keys []cache.Key, created time.Time, l *layers.Layer,
	below []*layers.Layer) {
	content := keys[len(keys)-1]
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, key := range keys {
		if key == "" || slices.Contains(keys[:i], key) {
			continue
		}
		r := collected{Record: Record{Key: key, Created: created.UTC()}, own: own,
			layer: l, below: below}
		if key != content {
			r.Content = content
		}
		c.list = append(c.list, r)
		if c.Added != nil {
			c.Added(func(ctx context.Context, sealer Sealer) (Record, error) {
				rec, err := r.complete(ctx, sealer)
				if l != nil {
					rec.Step = shortened(l.Text)
				}
				return rec, err
			})
		}
	}
}

// maxStep limits the length of Record.Step.
const maxStep = 160

// shortened returns the beginning of an instruction.
func shortened(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	for i := range text {
		if i > maxStep-len("…") {
			return text[:i] + "…"
		}
	}
	return text
}

// complete returns the record of a result. It waits for the layer, and requests layers that have
// not been requested before from the sealer.
func (r collected) complete(ctx context.Context, sealer Sealer) (Record, error) {
	l := r.layer
	if l == nil {
		return r.Record, nil
	}
	if err := l.Wait(ctx); err != nil {
		return r.Record, err
	}
	parent, err := sealer.ChainID(ctx, r.below)
	r.Layer = &Layer{Descriptor: ocidoc.OCIDescriptor(l.Descriptor), DiffID: l.DiffID,
		Parent: parent, Sealed: sealer.Format()}
	return r.Record, err
}

// Sealer makes layers and names the format in which it seals them. *layers.Sealer implements it.
type Sealer interface {
	ChainID(ctx context.Context, list []*layers.Layer) (digest.Digest, error)
	Format() string
}

// Document returns the records of all steps, or only of steps of the image's own stages. It waits
// for their layers, and requests layers that have not been requested before from the sealer.
func (c *Collector) Document(ctx context.Context, sealer Sealer, all bool) (Document, error) {
	c.mu.Lock()
	list := slices.Clone(c.list)
	c.mu.Unlock()
	doc := Document{Records: []Record{}}
	for _, r := range list {
		if !all && !r.own {
			continue
		}
		rec, err := r.complete(ctx, sealer)
		if err != nil {
			return doc, err
		}
		doc.Records = append(doc.Records, rec)
	}
	doc.Sort()
	return doc, nil
}

// Exporter writes documents to places of --cache-to.
type Exporter struct {
	Store *store.Store
	Env   export.Env
	Sink  event.Sink
}

// Export writes the records to each place that is not inline. document returns the records of all
// stages, or only of the image's own stages.
func (e *Exporter) Export(ctx context.Context, places []Place,
	document func(all bool) (Document, error)) error {
	for i, place := range places {
		if place.Type == "inline" {
			continue
		}
		id := event.ID(fmt.Sprint("cache-to ", i))
		e.Sink(event.Start{ID: id, Name: "exporting cache to " + place.String(), Time: time.Now()})
		err := e.exportDocument(ctx, id, place, document)
		if err != nil && place.IgnoreError && ctx.Err() == nil {
			e.Sink(event.Warning{ID: id, Message: fmt.Sprintf("the cache is not exported: %v", err),
				Time: time.Now()})
			err = nil
		}
		e.Sink(event.Done{ID: id, Err: err, Time: time.Now()})
		if err != nil {
			return fmt.Errorf("export the cache to %s: %w", place, err)
		}
	}
	return nil
}

func (e *Exporter) exportDocument(ctx context.Context, id event.ID, place Place,
	document func(all bool) (Document, error)) error {
	if place.isService() {
		return place.unsupported()
	}
	doc, err := document(place.Max)
	if err != nil {
		return err
	}
	return e.exportTo(ctx, id, place, doc)
}

func (e *Exporter) exportTo(ctx context.Context, id event.ID, place Place, doc Document) error {
	root, err := e.write(ctx, doc)
	if err != nil {
		return err
	}
	if place.Type == "registry" {
		if e.Env.Pusher == nil {
			return errors.New("pushing to a registry is not available")
		}
		return e.Env.Pusher.Push(ctx, place.Ref, root, e.Store,
			export.PushOptions{ID: id, Sink: e.Sink, Insecure: place.Insecure})
	}
	exporters, err := export.New(e.Env, export.Spec{Type: export.TypeOCI,
		Dest: place.Dir, Dir: true})
	if err != nil {
		return err
	}
	img := &export.Image{Root: root, Names: []string{"cache:" + cmp.Or(place.Tag, "latest")},
		Content: e.Store}
	return exporters[0].Export(ctx, img, event.Discard)
}

// write writes the artifact that holds a document and its layers to the store.
func (e *Exporter) write(ctx context.Context, doc Document) (ocispec.Descriptor, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: strings.TrimSuffix(MediaType, "+json"), Layers: []ocispec.Descriptor{},
	}
	have := map[digest.Digest]bool{}
	for _, r := range doc.Records {
		if r.Layer != nil && !have[r.Layer.Descriptor.Digest] {
			have[r.Layer.Descriptor.Digest] = true
			m.Layers = append(m.Layers, r.Layer.Descriptor)
		}
	}
	sorting.Func(m.Layers, func(a, b ocispec.Descriptor) int {
		return cmp.Compare(a.Digest, b.Digest)
	})
	var err error
	if m.Config, err = e.Store.WriteJSON(ctx, MediaType, doc); err != nil {
		return ocispec.Descriptor{}, err
	}
	return e.Store.WriteJSON(ctx, ocispec.MediaTypeImageManifest, m)
}
