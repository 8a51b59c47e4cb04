package build

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/job"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/outline"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/snapshot"
)

// stepResult is the result of a step with an action.
type stepResult struct {
	snapshot snapshot.ID
	// key is the content key, or the definition key if the content key is not known.
	key cache.Key
	// unchanged is set if the step changed nothing. The snapshot is the one of the previous step.
	unchanged bool
	created   time.Time
	cached    bool
	// defKey is the definition key under which the result was recorded; "" if there is none.
	defKey cache.Key
	// image holds the layer of an imported result; nil for other results.
	image *image.Image
	// unchecked is set if the layer of image was not fetched yet.
	unchecked bool
	// record is the record that local has found; nil for other results.
	record *cache.Record
}

// results finds and adds results of steps: in the cache of this machine, and among imported
// records.
type results struct {
	records    Records
	lazyLayers LazyLayers
	snapshots  Snapshots
	imports    *remotecache.Imports
	images     LayerImages
	sealer     Sealer
	lazy       *layers.Lazy
	ran        *Ran
	epoch      *int64    // see Config
	notBefore  time.Time // see Config
	sink       event.Sink

	fetched memo.Map[fetchKey, stepResult] // imported results
}

// fetchKey identifies an imported record on a snapshot. A result that cannot be fetched from one
// place may be in another one, which has a record, and so a layer, of its own.
type fetchKey struct {
	layer *remotecache.Layer
	on    snapshot.ID
}

// find looks for the result of a job on cur, first in the cache of this machine. It downloads the
// layer of an imported result.
func (r *results) find(ctx context.Context, cur rootfs, j *job.Job, l *line,
	useCache bool) (stepResult, bool, error) {
	if !useCache && !r.ran.has(j.DefKey, j.Key) {
		return stepResult{}, false, nil
	}
	res, ok := r.local(ctx, cur, j)
	if !ok && ctx.Err() != nil { // the look-up may have been canceled
		return stepResult{}, false, context.Cause(ctx)
	}
	var err error
	if !ok {
		res, ok, err = r.imported(ctx, cur, j, l)
	}
	res.defKey = j.DefKey
	return res, ok, err
}

// time returns the creation time in the image of something that was made at t: the epoch, if there
// is one.
func (r *results) time(t time.Time) time.Time {
	if r.epoch != nil {
		t = time.Unix(*r.epoch, 0)
	}
	return t.UTC()
}

// firstTime returns the time at which the result of a key was first built: the time of a local or
// imported record, or otherwise the current time. top is the snapshot of the result.
func (r *results) firstTime(ctx context.Context, key cache.Key,
	top snapshot.ID) (time.Time, error) {
	if r.epoch != nil {
		return r.time(time.Time{}), nil
	}
	rec, ok := r.records.Get(key)
	if !ok {
		if rec.Created, ok = r.imports.Created(key); !ok {
			rec.Created = time.Now().UTC()
		}
		first := cache.Record{Created: rec.Created}
		// A record that names a snapshot is removed with it. A lazy snapshot does not exist yet.
		if _, err := r.snapshots.Stat(ctx, top); err == nil {
			first.Snapshot = string(top)
		}
		if err := r.records.Put(ctx, key, first); err != nil {
			return time.Time{}, err
		}
	}
	return rec.Created.UTC(), nil
}

// predict returns the result of find without downloading anything: the key, and the snapshot if it
// is on this machine. The top of cur is "" if the file system on which the job will run is not
// known.
func (r *results) predict(ctx context.Context, cur rootfs,
	j *job.Job) (key cache.Key, result snapshot.ID, hit bool) {
	if f, ok := r.recorded(ctx, j); ok && (cur.top == "" || cur.top == job.ResultOf(f.on)) {
		return f.contentKey(), job.ResultOf(f.id), true
	}
	for _, found := range r.importable(ctx, j) {
		return found.ContentKey(), "", true
	}
	return "", "", false
}

// found is a record of a job in the cache of this machine.
type found struct {
	rec cache.Record
	key cache.Key // the key under which it was found
	id  snapshot.ID
	on  snapshot.ID // the snapshot on which the step ran
	// layer is set if the snapshot is made from this layer when it is first needed.
	layer *cache.Layer
}

func (f found) contentKey() cache.Key { return cmp.Or(f.rec.ContentKey, f.key) }

// recorded looks for a valid record of a job, under the content key if it is known, and otherwise
// under the definition key.
func (r *results) recorded(ctx context.Context, j *job.Job) (found, bool) {
	key := cmp.Or(j.Key, j.DefKey)
	if key == "" {
		return found{}, false
	}
	rec, ok := r.records.Get(key)
	if !ok || !r.keepsEpoch(rec.ClampedTo) || key == j.DefKey && !j.MadeFrom(rec) ||
		rec.Created.Before(r.notBefore) && !r.ran.has(j.DefKey, j.Key) {
		return found{}, false
	}
	f := found{rec: rec, key: key, id: snapshot.ID(rec.Snapshot)}
	if info, err := r.snapshots.Stat(ctx, f.id); err == nil {
		f.on = info.Parent
	} else if l, ok := r.lazyLayers.LazyLayer(ctx, rec); ok {
		f.on, f.layer = snapshot.ID(rec.Lazy.Parent), &l
	} else if !rec.NoOp || !r.lazy.Has(f.id) {
		return found{}, false
	}
	if rec.NoOp {
		f.on = f.id
	}
	return f, true
}

// local looks for the result of a job in the cache of this machine. A record that was made on
// another snapshot of the parent is not used: its layer does not fit the parent's layers.
func (r *results) local(ctx context.Context, cur rootfs, j *job.Job) (stepResult, bool) {
	f, ok := r.recorded(ctx, j)
	if !ok || f.on != cur.top {
		return stepResult{}, false
	}
	if f.layer != nil {
		r.addLazy(f.id, f.on, image.Stored(f.layer.Descriptor, f.layer.DiffID), false,
			"", nil)
	}
	r.records.Touch(f.key)
	return stepResult{snapshot: f.id, key: f.contentKey(), unchanged: f.rec.NoOp,
		created: f.rec.Created.UTC(), cached: true, record: &f.rec}, true
}

// add records the result of a job that was run.
func (r *results) add(ctx context.Context, j *job.Job, rec cache.Record) (stepResult, error) {
	rec.Created, rec.ContentKey = time.Now().UTC(), j.Key
	return stepResult{snapshot: snapshot.ID(rec.Snapshot), key: j.Key, unchanged: rec.NoOp,
		created: rec.Created}, r.put(ctx, j, rec)
}

// addLayer records the result of a job of which only the layer l was made. The snapshot id on the
// snapshot on is made from the layer when it is first needed.
func (r *results) addLayer(ctx context.Context, j *job.Job, id, on snapshot.ID,
	l cache.Layer) (stepResult, error) {
	format := r.sealer.Format()
	if err := r.records.PutSealed(ctx, string(id), format, l); err != nil {
		return stepResult{}, err
	}
	r.addLazy(id, on, image.Stored(l.Descriptor, l.DiffID), false, "", nil)
	return r.add(ctx, j, cache.Record{Snapshot: string(id),
		Lazy: &cache.Lazy{Parent: string(on), Sealed: format}})
}

// put writes a record under all keys of a job whose content key is known.
func (r *results) put(ctx context.Context, j *job.Job, rec cache.Record) error {
	if j.Inputs != "" {
		rec.Inputs = j.Inputs
	}
	for _, key := range []cache.Key{j.DefKey, j.Key} {
		if key == "" {
			continue
		}
		if err := r.records.Put(ctx, key, rec); err != nil {
			return err
		}
		r.ran.add(key)
	}
	return nil
}

// renew copies the record of a result that find has found under a job's content key to its
// definition key, under which there was no valid record.
func (r *results) renew(ctx context.Context, j *job.Job, res stepResult) error {
	if j.DefKey == "" || res.record == nil {
		return nil
	}
	return r.put(ctx, j, *res.record)
}

// addLazy adds a lazy snapshot, which is made from the layer of img when it is first needed. record
// is called then, or with the place of the layer when an outline is made; it is nil unless img is
// imported. unchecked is set if img was not read yet. id is the line in the progress; "" is none.
func (r *results) addLazy(name, on snapshot.ID, img *image.Image, unchecked bool, id event.ID,
	record func(context.Context, *cache.Lazy) error) {
	r.lazy.Add(name, func(ctx context.Context) error {
		if err := r.lazy.Materialize(ctx, on); err != nil {
			return err
		}
		r.ran.noteChanged()
		err := r.images.UnpackOn(ctx, img, on, name, image.UnpackOptions{ID: id, Sink: r.sink})
		if record == nil {
			return err
		}
		if err != nil && unchecked && ctx.Err() == nil && !state.IsFull(err) {
			return &layers.ImportError{Layer: img.Manifest.Layers[0].Digest, Err: err}
		}
		if err != nil {
			// The layer was checked as far as is possible without its parent. It is too late to
			// run the step instead: steps after it were found by the key of its result.
			return fmt.Errorf("%w; build without --cache-from %s", err, img.Name)
		}
		return record(ctx, nil)
	})
	r.lazy.AddOutline(name, func(ctx context.Context) (snapshot.ID, error) {
		below, err := r.lazy.Outline(ctx, on)
		if below == "" || err != nil {
			return "", err
		}
		top := outlineOf(name)
		if _, err := r.snapshots.Stat(ctx, top); err == nil {
			return top, nil
		}
		err = r.images.UnpackOn(ctx, img, below, top, image.UnpackOptions{})
		if err != nil && ctx.Err() == nil && !state.IsFull(err) {
			return "", nil // the layer may refer to a file that the outline lacks
		}
		if err == nil && record != nil {
			// The records of later steps name the snapshot as their parent.
			err = record(ctx, &cache.Lazy{Parent: string(on)})
		}
		return top, err
	})
}

// outlineOf returns the name of the outline of a lazy snapshot.
func outlineOf(id snapshot.ID) snapshot.ID { return id + ".outline" + outline.Version }

// hasImports reports whether there are imported records.
func (r *results) hasImports() bool { return !r.imports.Empty() }

// importable returns the imported records whose layers can be the result of a job.
func (r *results) importable(ctx context.Context, j *job.Job) []remotecache.Found {
	key := cmp.Or(j.Key, j.DefKey)
	if key == "" || j.Key == "" && j.Inputs != "" {
		// The stages from which the job takes files were built on this machine. Their results on
		// another machine may differ, so only a record under the content key is valid.
		return nil
	}
	var list []remotecache.Found
	for _, f := range r.imports.Find(ctx, key) {
		if r.keepsEpoch(f.Layer.Epoch()) && !f.Created.Before(r.notBefore) {
			list = append(list, f)
		}
	}
	return list
}

// keepsEpoch reports whether files whose times were limited to the epoch clamped have correct times
// in this build; clamped is nil if they were not limited. A layer that was sealed with an epoch,
// and a snapshot unpacked from it, have no times after the epoch. In a build with a later epoch, or
// without one, the step would result in other times.
func (r *results) keepsEpoch(clamped *int64) bool {
	return clamped == nil || r.epoch != nil && *r.epoch <= *clamped
}

// imported looks for the result of a job among the imported records. The layer is unpacked when a
// step runs on the result or reads from it.
func (r *results) imported(ctx context.Context, cur rootfs, j *job.Job,
	l *line) (stepResult, bool, error) {
	list := r.importable(ctx, j)
	if len(list) == 0 {
		return stepResult{}, false, nil
	}
	parent, err := r.sealer.ChainID(ctx, cur.layers)
	if err != nil {
		return stepResult{}, false, err
	}
	for _, f := range list {
		if f.Layer.Parent != parent {
			continue
		}
		res, err := r.fetched.Do(ctx, fetchKey{f.Layer, cur.top},
			func() (stepResult, error) { return r.fetch(ctx, cur, j, f, l) })
		if err == nil {
			return res, true, nil
		}
		if ctx.Err() != nil {
			return stepResult{}, false, context.Cause(ctx)
		}
		output{l}.Warn(fmt.Sprintf("cannot read the step's result from the cache at %s: %v",
			f.From.Name, err))
	}
	return stepResult{}, false, nil
}

// leased takes the lease of a job that is about to run, so that no other machine runs it at the
// same time. If another machine runs it, leased waits for the result, and returns it.
func (r *results) leased(ctx context.Context, cur rootfs, j *job.Job,
	l *line) (stepResult, bool, error) {
	if !r.imports.Lease(ctx, j.Key, l.name) {
		return stepResult{}, false, context.Cause(ctx)
	}
	res, ok, err := r.imported(ctx, cur, j, l)
	if !ok && err == nil {
		r.imports.Apart()
	}
	return res, ok, err
}

// fetch adds the lazy snapshot of an imported record. Unless the record is lazy, it fetches and
// checks the layer at once, so that the step can run if the layer is missing or the record is
// wrong.
func (r *results) fetch(ctx context.Context, cur rootfs, j *job.Job, f remotecache.Found,
	l *line) (stepResult, error) {
	img, err := f.From.Layer(f.Layer.Descriptor, f.Layer.DiffID)
	if err != nil {
		return stepResult{}, err
	}
	if !f.Lazy {
		err := r.images.EnsureLayer(ctx, img, image.UnpackOptions{ID: l.id, Sink: r.sink})
		if err != nil {
			return stepResult{}, err
		}
	}
	id := snapshot.NewID()
	rec := cache.Record{
		Snapshot: string(id), Created: f.Created, ContentKey: f.ContentKey(), Inputs: j.Inputs,
		ClampedTo: f.Layer.Epoch(),
	}
	keys := []cache.Key{f.Key, f.ContentKey(), j.DefKey}
	r.addLazy(id, cur.top, img, f.Lazy, l.id, func(ctx context.Context, lazy *cache.Lazy) error {
		rec := rec
		if rec.Lazy = lazy; lazy != nil {
			lazy.Sealed = f.Layer.Sealed
		}
		for i, key := range keys {
			if key == "" || slices.Contains(keys[:i], key) {
				continue
			}
			if err := r.records.Put(ctx, key, rec); err != nil {
				return err
			}
		}
		return r.records.PutSealed(ctx, string(id), f.Layer.Sealed,
			cache.Layer{Descriptor: f.Layer.Descriptor, DiffID: f.Layer.DiffID})
	})
	r.shareOutline(id, append(cur.layers[:len(cur.layers):len(cur.layers)],
		&layers.Layer{Base: img}))
	res := stepResult{snapshot: id, key: f.ContentKey(), created: f.Created.UTC(), cached: true}
	if f.Layer.Sealed == r.sealer.Format() {
		res.image, res.unchecked = img, f.Lazy
	}
	return res, nil
}
