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
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/snapshot"
)

// stepResult is the result of a step with an action.
type stepResult struct {
	snapshot snapshot.ID
	// key is the content key, or the definition key if the content key is not known.
	key cache.Key
	// unchanged is set if the step changed nothing. The snapshot is that of the step before.
	unchanged bool
	created   time.Time
	cached    bool
	// defKey is the definition key that the result was recorded under; "" if there is none.
	defKey cache.Key
	// image holds the layer of a result that was imported; nil for other results.
	image *image.Image
}

// results finds the results of steps, in the cache of this machine and among imported records, and
// adds new ones.
type results struct {
	records   Records
	snapshots Snapshots
	imports   *remotecache.Imports
	images    LayerImages
	sealer    Sealer
	lazy      *layers.Lazy
	state     *state.State
	ran       *Ran
	epoch     *int64 // see Engine
	sink      event.Sink

	fetched memo.Map[string, stepResult] // imported results, by key and parent
}

// find looks for the result of a job on cur, first in the cache of this machine. It downloads the
// layer of an imported result.
func (r *results) find(ctx context.Context, cur rootfs, j *job, l *line,
	useCache bool) (stepResult, bool, error) {
	if !useCache && !r.ran.has(j.defKey, j.key) {
		return stepResult{}, false, nil
	}
	res, ok := r.local(cur, j)
	var err error
	if !ok {
		res, ok, err = r.imported(ctx, cur, j, l)
	}
	res.defKey = j.defKey
	return res, ok, err
}

// predict returns what find would find, without downloads: the key of the result, and its name if
// it is on this machine. The top of cur is "" if the file system that the job will run on is not
// known.
func (r *results) predict(cur rootfs, j *job) (key cache.Key, result snapshot.ID, hit bool) {
	if f, ok := r.recorded(j); ok && (cur.top == "" || cur.top == resultOf(f.on)) {
		return f.contentKey(), resultOf(f.id), true
	}
	for _, found := range r.importable(j) {
		return found.ContentKey(), "", true
	}
	return "", "", false
}

// found is a record of a job in the cache of this machine.
type found struct {
	rec cache.Record
	key cache.Key // the key that it was found under
	id  snapshot.ID
	on  snapshot.ID // the snapshot that the step ran on
	// layer is set if the snapshot is to be made of this layer when it is needed.
	layer *cache.Layer
}

func (f found) contentKey() cache.Key { return cmp.Or(f.rec.ContentKey, f.key) }

// recorded looks for a valid record of a job, under the content key if it is known and else under
// the definition key.
func (r *results) recorded(j *job) (found, bool) {
	key := cmp.Or(j.key, j.defKey)
	if key == "" {
		return found{}, false
	}
	rec, ok := r.records.Get(key)
	if !ok || !r.keepsEpoch(rec.ClampedTo) || key == j.defKey && !j.madeFrom(rec) {
		return found{}, false
	}
	f := found{rec: rec, key: key, id: snapshot.ID(rec.Snapshot)}
	if info, err := r.snapshots.Stat(f.id); err == nil {
		f.on = info.Parent
	} else if l, ok := r.state.LazyLayer(rec); ok {
		f.on, f.layer = snapshot.ID(rec.Lazy.Parent), &l
	} else {
		return found{}, false
	}
	if rec.NoOp {
		f.on = f.id
	}
	return f, true
}

// local looks for the result of a job in the cache of this machine. A record made on another
// snapshot of the parent would give layers that do not belong together.
func (r *results) local(cur rootfs, j *job) (stepResult, bool) {
	f, ok := r.recorded(j)
	if !ok || f.on != cur.top {
		return stepResult{}, false
	}
	if f.layer != nil {
		r.addLazy(f.id, f.on, image.Stored(f.layer.Descriptor, f.layer.DiffID), "", nil)
	}
	r.records.Touch(f.key)
	return stepResult{snapshot: f.id, key: f.contentKey(), unchanged: f.rec.NoOp,
		created: f.rec.Created.UTC(), cached: true}, true
}

// add records what a job that was run has made.
func (r *results) add(j *job, rec cache.Record) (stepResult, error) {
	rec.Created, rec.ContentKey = time.Now().UTC(), j.key
	return stepResult{snapshot: snapshot.ID(rec.Snapshot), key: j.key, unchanged: rec.NoOp,
		created: rec.Created}, r.put(j, rec)
}

// put writes a record under all keys of a job whose content key is known.
func (r *results) put(j *job, rec cache.Record) error {
	if j.inputs != "" {
		rec.Inputs = j.inputs
	}
	for _, key := range []cache.Key{j.defKey, j.key} {
		if key == "" {
			continue
		}
		if err := r.records.Put(key, rec); err != nil {
			return err
		}
		r.ran.add(key)
	}
	return nil
}

// renew copies the record under a job's content key to its definition key. It is called if only the
// content key has a valid result.
func (r *results) renew(j *job) error {
	if j.defKey == "" {
		return nil
	}
	rec, ok := r.records.Get(j.key)
	if !ok {
		return nil // the result is one of --cache-from that nothing has needed as files yet
	}
	return r.put(j, rec)
}

// addLazy adds a lazy snapshot that is made from the layer of img when it is first needed; after,
// unless nil, is called then. id names the line in the progress; "" is none.
func (r *results) addLazy(name, on snapshot.ID, img *image.Image, id event.ID, after func() error) {
	r.lazy.Add(name, func(ctx context.Context) error {
		if err := r.lazy.Materialize(ctx, on); err != nil {
			return err
		}
		r.ran.changed.Store(true)
		err := r.images.UnpackOn(ctx, img, on, name, image.UnpackOptions{ID: id, Sink: r.sink})
		if err != nil || after == nil {
			return err
		}
		return after()
	})
}

// importable returns the imported records whose layer can be the result of a job.
func (r *results) importable(j *job) []remotecache.Found {
	key := cmp.Or(j.key, j.defKey)
	if key == "" || j.key == "" && j.inputs != "" {
		// The stages that the job takes files from were built on this machine. Their results on
		// another machine may differ, so only a record under the content key is valid.
		return nil
	}
	var list []remotecache.Found
	for _, f := range r.imports.Find(key) {
		if r.keepsEpoch(f.Layer.Epoch()) {
			list = append(list, f)
		}
	}
	return list
}

// keepsEpoch reports whether files whose times were limited to the epoch clamped have the right
// times for this build; clamped is nil if they were not limited. A layer that was sealed with an
// epoch has no times after the epoch, and neither has a snapshot unpacked from it. In a build with
// a later epoch, or without one, the step would leave other times.
func (r *results) keepsEpoch(clamped *int64) bool {
	return clamped == nil || r.epoch != nil && *r.epoch <= *clamped
}

// imported looks for the result of a job among the imported records. It fetches the blob at once,
// so that the step can run if the blob is missing. The blob is unpacked when something runs on the
// result or reads it.
func (r *results) imported(ctx context.Context, cur rootfs, j *job,
	l *line) (stepResult, bool, error) {
	list := r.importable(j)
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
		res, err := r.fetched.Do(ctx, string(f.Key)+" on "+string(cur.top),
			func() (stepResult, error) { return r.fetch(ctx, cur, j, f, l) })
		if err == nil {
			return res, true, nil
		}
		if ctx.Err() != nil {
			return stepResult{}, false, context.Cause(ctx)
		}
		output{l}.warn(fmt.Sprintf("running the step: cannot read its result from the cache at %s: %v", f.From.Name, err))
	}
	return stepResult{}, false, nil
}

// fetch downloads the layer of an imported record and adds its lazy snapshot.
func (r *results) fetch(ctx context.Context, cur rootfs, j *job, f remotecache.Found,
	l *line) (stepResult, error) {
	img, err := f.From.Layer(f.Layer.Descriptor, f.Layer.DiffID)
	if err != nil {
		return stepResult{}, err
	}
	if err := r.images.Ensure(ctx, img,
		image.UnpackOptions{ID: l.id, Sink: r.sink}); err != nil {
		return stepResult{}, err
	}
	id, err := newID()
	if err != nil {
		return stepResult{}, err
	}
	rec := cache.Record{
		Snapshot: string(id), Created: f.Created, ContentKey: f.ContentKey(), Inputs: j.inputs,
		ClampedTo: f.Layer.Epoch(),
	}
	keys := []cache.Key{f.Key, f.ContentKey(), j.defKey}
	r.addLazy(id, cur.top, img, l.id, func() error {
		for i, key := range keys {
			if key == "" || slices.Contains(keys[:i], key) {
				continue
			}
			if err := r.records.Put(key, rec); err != nil {
				return err
			}
		}
		return r.records.PutSealed(string(id), f.Layer.Sealed,
			cache.Layer{Descriptor: f.Layer.Descriptor, DiffID: f.Layer.DiffID})
	})
	res := stepResult{snapshot: id, key: f.ContentKey(), created: f.Created.UTC(), cached: true}
	if f.Layer.Sealed == r.sealer.Format() {
		res.image = img
	}
	return res, nil
}
