package remotecache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Artifacts finds artifacts and images by their names. *image.Resolver implements it.
type Artifacts interface {
	Artifact(ctx context.Context, ref string, o image.ResolveOptions) (*image.Artifact, error)
}

// Imports holds the records that were found in the places of --cache-from. A nil *Imports has none.
type Imports struct {
	records map[cache.Key][]Found
	shared  []*Shared // asked for each key
}

// Found is a record and the artifact that contains it.
type Found struct {
	Record
	From *image.Artifact
	// Lazy is set if the layer need not be fetched before the result is used: a build whose result
	// turns out to be wrong starts again without it.
	Lazy bool
}

// Import reads the records of all places. A place that cannot be read results in a warning: the
// build is only slower without it.
func Import(ctx context.Context, artifacts Artifacts, places []Place, platforms []ocispec.Platform,
	sink event.Sink) (*Imports, error) {
	found := make([][]Found, len(places))
	g, gctx := errgroup.WithContext(ctx)
	for i, place := range places {
		g.Go(func() error {
			id := event.ID(fmt.Sprint("cache-from ", i))
			sink(event.Start{ID: id, Name: "importing cache from " + place.String(),
				Time: time.Now()})
			var err error
			found[i], err = importFrom(gctx, artifacts, place, platforms)
			if err != nil && gctx.Err() == nil {
				sink(event.Warning{ID: id,
					Message: fmt.Sprintf("the cache at %s is not used: %v", place, err),
					Time:    time.Now()})
				err = nil
			}
			sink(event.Done{ID: id, Err: err, Note: fmt.Sprintf("%d records", len(found[i])),
				Time: time.Now()})
			return gctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	im := &Imports{records: map[cache.Key][]Found{}}
	for _, list := range found {
		for _, r := range list {
			im.records[r.Key] = append(im.records[r.Key], r)
		}
	}
	return im, nil
}

// Ask returns im with shared caches, which are asked for each key. It reads their hints.
func (im *Imports) Ask(ctx context.Context, shared []*Shared) *Imports {
	if im == nil {
		im = &Imports{}
	}
	var wg sync.WaitGroup
	for _, s := range shared {
		wg.Go(func() { s.ReadHint(ctx) })
	}
	wg.Wait()
	return &Imports{im.records, shared}
}

// importFrom reads the records of one place: the records of an artifact, or the records in the
// images for the platforms.
func importFrom(ctx context.Context, artifacts Artifacts, place Place,
	platforms []ocispec.Platform) ([]Found, error) {
	if place.isService() {
		return nil, place.unsupported()
	}
	var list []Found
	var errs []error
	failed := func(err error) { // the images of an index often fail in the same way
		if !slices.ContainsFunc(errs, func(e error) bool { return e.Error() == err.Error() }) {
			errs = append(errs, err)
		}
	}
	seen := map[digest.Digest]bool{}
	for _, p := range platforms {
		a, err := artifacts.Artifact(ctx, place.location(),
			image.ResolveOptions{Platform: p, Pull: !place.Plain})
		if err != nil {
			failed(err)
			continue
		}
		if seen[a.Descriptor.Digest] {
			continue
		}
		seen[a.Descriptor.Digest] = true
		a.Name = place.String() // errors name the place that the user gave, not a tag in it
		records, err := recordsOf(a)
		if err != nil {
			failed(err)
		}
		for _, r := range records {
			list = append(list, Found{Record: r, From: a})
		}
	}
	return list, errors.Join(errs...)
}

// IsShared reports whether there are shared caches.
func (im *Imports) IsShared() bool { return im != nil && len(im.shared) > 0 }

// Share writes a record to the shared caches, in the background. Its layer must be in the local
// store.
func (im *Imports) Share(ctx context.Context, r Record) {
	for _, s := range im.shared {
		s.Publish(ctx, func(context.Context) (Record, error) { return r, nil })
	}
}

// Empty reports whether there is no record, and no cache that may have one.
func (im *Imports) Empty() bool { return im == nil || len(im.records)+len(im.shared) == 0 }

// Find returns the records under a key that have a layer.
func (im *Imports) Find(ctx context.Context, key cache.Key) []Found {
	if im == nil {
		return nil
	}
	var list []Found
	for _, r := range im.records[key] {
		if r.Layer != nil {
			list = append(list, r)
		}
	}
	for _, s := range im.shared {
		for _, r := range s.find(ctx, key) {
			if r.Layer != nil {
				list = append(list, r)
			}
		}
	}
	return list
}

// Created returns the time at which an instruction without a layer was first built, and reports
// whether a record has that time. Of shared caches only the hints have such records.
func (im *Imports) Created(key cache.Key) (time.Time, bool) {
	if im == nil {
		return time.Time{}, false
	}
	list := im.records[key]
	for _, s := range im.shared {
		list = append(list[:len(list):len(list)], s.known(key)...)
	}
	for _, r := range list {
		if r.Layer == nil {
			return r.Created, true
		}
	}
	return time.Time{}, false
}
