package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// engine finds or makes the results of steps. The stages of all platforms share one.
type engine struct {
	exec      Executor
	snapshots Snapshots
	records   Records
	images    LayerImages
	state     *state.State // for lazy layers, the user namespace, and errors of a full disk

	// These are replaced when the build starts again because of a damaged blob.
	sealer      Sealer // nil before the plan is made
	directories DirectorySealer
	lazy        *layers.Lazy
	checker     *layers.Checker // nil: layers are not checked
	imports     *remotecache.Imports
	// keeps equal steps of different stages from being run twice at once
	runs    memo.Map[string, stepResult]
	fetched memo.Map[string, stepResult] // by key and parent: what was imported

	pool snapshotPool
	// made holds the keys of the steps that this build has run. When the build starts again, those
	// steps do not run again, even with --no-cache.
	made   made
	dirty  atomic.Bool // set when a step is run
	epoch  *int64      // seconds since 1970; nil: real times
	tables bool        // the tables of layers are kept while the layers are sealed
	sink   event.Sink
}

// Executor runs the action of a step.
type Executor interface {
	Run(ctx context.Context, spec *executor.Spec, stdout, stderr io.Writer) (executor.Result, error)
}

// processes runs actions with package executor.
type processes struct{}

func (processes) Run(ctx context.Context, spec *executor.Spec, stdout,
	stderr io.Writer) (executor.Result, error) {
	return executor.Run(ctx, spec, stdout, stderr)
}

// Snapshots holds the results of steps. *snapshot.Store implements it.
type Snapshots interface {
	Prepare(ctx context.Context, parent snapshot.ID) (*snapshot.Active, error)
	View(ctx context.Context, id snapshot.ID) ([]mount.Mount, error)
	Stat(id snapshot.ID) (snapshot.Info, error)
	// Layered reports whether a snapshot's directory holds what differs from its parent.
	Layered() bool
}

// Records keeps the results of steps and the layers of snapshots. *cache.Cache implements it.
type Records interface {
	Get(k cache.Key) (cache.Record, bool)
	Put(k cache.Key, r cache.Record) error
	Touch(k cache.Key)
	PutSealed(snapshot, format string, l cache.Layer) error
}

// Sealer makes the layers of snapshots. *layers.Sealer implements it.
type Sealer interface {
	Seal(l *layers.Layer)
	ChainID(ctx context.Context, list []*layers.Layer) (digest.Digest, error)
	Format() string
	// Wait waits until nothing is being sealed.
	Wait()
}

// DirectorySealer makes the layer of a COPY of a directory from the files that are copied.
// *layers.Sealer implements it.
type DirectorySealer interface {
	SealDirectory(ctx context.Context, ch snapshot.Changes,
		dir *executor.Directory) (cache.Layer, error)
	BeginDirectory(id snapshot.ID, ch snapshot.Changes, dir *executor.Directory)
}

// LayerImages brings layers of images to this machine. *image.Resolver implements it.
type LayerImages interface {
	Ensure(ctx context.Context, img *image.Image, o image.UnpackOptions) error
	UnpackOn(ctx context.Context, img *image.Image, parent, id snapshot.ID,
		o image.UnpackOptions) error
}

// need holds what the build needs of a step.
type need struct {
	cache bool // an earlier result may be used
	seal  bool // the layer is sealed
	last  bool // nothing but the layer is needed
}

// stepResult is the result of a step with an action.
type stepResult struct {
	snapshot snapshot.ID
	// unchanged is set if the step changed nothing. The snapshot is that of the step before.
	unchanged bool
	created   time.Time
	cached    bool
	// defKey is the definition key that the result was recorded under; "" if there is none.
	defKey cache.Key
	// image holds the layer of a result that was imported; nil for other results.
	image *image.Image
}

// perform makes the result of a job that find did not find. If the content key of the job was not
// known, perform computes it and looks for the result under it first. cached reports whether the
// result was found, or made by an equal step.
func (e *engine) perform(ctx context.Context, cur rootfs, job *job, l *line,
	n need) (res stepResult, key cache.Key, cached bool, err error) {
	if job.key == "" {
		if err := job.load(ctx); err != nil {
			return stepResult{}, "", false, err
		}
		if res, key, ok, err := e.find(ctx, cur, job, l, n.cache); ok || err != nil {
			if ok && err == nil {
				err = e.renew(job)
			}
			return res, key, ok, err
		}
	}
	mine := false
	run := string(job.key) + " on " + string(cur.top)
	res, err = e.runs.Do(ctx, run, func() (stepResult, error) {
		mine = true
		return e.make(ctx, cur, job, output{l}, n)
	})
	if again(err, 0) {
		e.runs.Forget(run)
	}
	if err != nil {
		return stepResult{}, "", false, err
	}
	res.defKey = job.defKey
	return res, job.key, !mine, nil
}

// find looks for the result of a job in the local cache, and then among the imported records.
func (e *engine) find(ctx context.Context, cur rootfs, j *job, l *line,
	useCache bool) (stepResult, cache.Key, bool, error) {
	if !useCache && !e.made.has(j.defKey, j.key) {
		return stepResult{}, "", false, nil
	}
	res, key, ok := e.lookup(cur, j)
	var err error
	if !ok {
		res, key, ok, err = e.imported(ctx, cur, j, l)
	}
	res.defKey = j.defKey
	return res, key, ok, err
}

// lookup looks for the result of a job in the local cache, under the content key if it is known and
// else under the definition key.
func (e *engine) lookup(cur rootfs, j *job) (stepResult, cache.Key, bool) {
	key := j.key
	if key == "" {
		key = j.defKey
	}
	if key == "" {
		return stepResult{}, "", false
	}
	rec, ok := e.records.Get(key)
	if !ok || !e.keepsTimes(rec) || key == j.defKey && !j.madeFrom(rec) {
		return stepResult{}, "", false
	}
	// A record made on another snapshot of the parent would give layers that do not belong
	// together.
	info, err := e.snapshots.Stat(snapshot.ID(rec.Snapshot))
	if err != nil {
		info, ok = e.lazyResult(rec)
	}
	if !ok || rec.NoOp && info.ID != cur.top || !rec.NoOp && info.Parent != cur.top {
		return stepResult{}, "", false
	}
	e.records.Touch(key)
	res := stepResult{snapshot: info.ID, unchanged: rec.NoOp,
		created: rec.Created.UTC(), cached: true}
	return res, cmp.Or(rec.ContentKey, key), true
}

// make runs a job on a new snapshot over cur, commits the snapshot and writes the records. For a
// COPY of which only the layer is needed it makes only the layer if it can.
func (e *engine) make(ctx context.Context, cur rootfs, j *job, out output,
	n need) (stepResult, error) {
	e.dirty.Store(true)
	id, err := newID()
	if err != nil {
		return stepResult{}, err
	}
	parent, do := cur.top, j.do
	switch {
	case j.link && e.snapshots.Layered():
		parent = ""
	case j.link:
		do = func(ctx context.Context, active *snapshot.Active, out output) error {
			return e.runLinked(ctx, j, active, out)
		}
	}
	if err := e.lazy.Materialize(ctx, cur.top); err != nil {
		return stepResult{}, err
	}
	active, err := e.pool.take(ctx, e.snapshots, parent)
	if err != nil {
		return stepResult{}, err
	}
	if e.copiesToLayer(j, n) {
		if res, ok, err := e.copyToLayer(ctx, cur, j, id, active, out, n); ok || err != nil {
			return res, errors.Join(err, active.Discard())
		}
	}
	err = e.state.Filled(do(ctx, active, out)) // before what was written is removed
	if err == nil && parent == cur.top && cur.top != "" {
		var same bool
		if same, err = layers.Unchanged(ctx, active); same && err == nil {
			if err := e.checker.NoOp(ctx, active); err != nil {
				return stepResult{}, errors.Join(err, active.Discard())
			}
			if err := e.pool.put(parent, active); err != nil {
				return stepResult{}, err
			}
			return e.record(j, cache.Record{Snapshot: string(cur.top), NoOp: true})
		}
	}
	if err == nil {
		// no instruction changes the root of what it copies to
		err = active.CommitOn(ctx, id, cur.top, false)
	}
	if err != nil {
		return stepResult{}, errors.Join(err, active.Discard())
	}
	return e.record(j, cache.Record{Snapshot: string(id)})
}

// record writes the records of a job that was run.
func (e *engine) record(j *job, rec cache.Record) (stepResult, error) {
	rec.Created, rec.ContentKey = time.Now().UTC(), j.key
	return stepResult{snapshot: snapshot.ID(rec.Snapshot), unchanged: rec.NoOp,
		created: rec.Created}, e.putRecord(j, rec)
}

// putRecord writes a record under all keys of a job whose content key is known.
func (e *engine) putRecord(j *job, rec cache.Record) error {
	if j.inputs != "" {
		rec.Inputs = j.inputs
	}
	for _, key := range []cache.Key{j.defKey, j.key} {
		if key == "" {
			continue
		}
		if err := e.records.Put(key, rec); err != nil {
			return err
		}
		e.made.add(key)
	}
	return nil
}

// renew copies the record under a job's content key to its definition key. perform calls it if only
// the content key has a valid result.
func (e *engine) renew(j *job) error {
	if j.defKey == "" {
		return nil
	}
	rec, ok := e.records.Get(j.key)
	if !ok {
		return nil // the result is one of --cache-from that nothing has needed as files yet
	}
	return e.putRecord(j, rec)
}

// addLazy adds a lazy snapshot that is made from a layer in the store when it is first needed.
func (e *engine) addLazy(id, on snapshot.ID, l cache.Layer) {
	e.lazy.Add(id, func(ctx context.Context) error {
		if err := e.lazy.Materialize(ctx, on); err != nil {
			return err
		}
		e.dirty.Store(true)
		return e.images.UnpackOn(ctx, image.Stored(l.Descriptor, l.DiffID), on, id,
			image.UnpackOptions{Sink: e.sink})
	})
}

// lazyResult adds the lazy snapshot of a record that an earlier build wrote. It reports false if
// the record is not lazy or its layer is not in the store.
func (e *engine) lazyResult(rec cache.Record) (snapshot.Info, bool) {
	l, ok := e.state.LazyLayer(rec)
	if !ok {
		return snapshot.Info{}, false
	}
	info := snapshot.Info{ID: snapshot.ID(rec.Snapshot), Parent: snapshot.ID(rec.Lazy.Parent)}
	e.addLazy(info.ID, info.Parent, l)
	return info, true
}

// importable returns the imported records whose layer can be the result of a job.
func (e *engine) importable(j *job) []remotecache.Found {
	key := cmp.Or(j.key, j.defKey)
	if key == "" || j.key == "" && j.inputs != "" {
		// The stages that the job takes files from were built on this machine. Their results on
		// another machine may differ, so only a record under the content key is valid.
		return nil
	}
	var list []remotecache.Found
	for _, r := range e.imports.Find(key) {
		if e.keepsEpoch(r.Layer.Epoch()) {
			list = append(list, r)
		}
	}
	return list
}

// A layer that was sealed with an epoch has no times after the epoch, and neither has a snapshot
// unpacked from it. In a build with a later epoch, or without one, the step would leave other
// times.

// keepsTimes reports whether the times in a record's snapshot are right for this build.
func (e *engine) keepsTimes(rec cache.Record) bool {
	return e.keepsEpoch(rec.ClampedTo)
}

// keepsEpoch is keepsTimes for files whose times were limited to the epoch clamped; nil if they
// were not limited.
func (e *engine) keepsEpoch(clamped *int64) bool {
	return clamped == nil || e.epoch != nil && *e.epoch <= *clamped
}

// imported looks for the result of a job among the imported records. It fetches the blob at once,
// so that the step can run if the blob is missing. The blob is unpacked when something runs on the
// result or reads it.
func (e *engine) imported(ctx context.Context, cur rootfs, j *job,
	l *line) (stepResult, cache.Key, bool, error) {
	found := e.importable(j)
	if len(found) == 0 {
		return stepResult{}, "", false, nil
	}
	parent, err := e.sealer.ChainID(ctx, cur.layers)
	if err != nil {
		return stepResult{}, "", false, err
	}
	for _, r := range found {
		if r.Layer.Parent != parent {
			continue
		}
		res, err := e.fetched.Do(ctx, string(r.Key)+" on "+string(cur.top),
			func() (stepResult, error) { return e.fetch(ctx, cur, j, r, l) })
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

// fetch downloads the layer of an imported record and adds its lazy snapshot.
func (e *engine) fetch(ctx context.Context, cur rootfs, j *job, r remotecache.Found,
	l *line) (stepResult, error) {
	img, err := r.From.Layer(r.Layer.Descriptor, r.Layer.DiffID)
	if err != nil {
		return stepResult{}, err
	}
	if err := e.images.Ensure(ctx, img, image.UnpackOptions{ID: l.id, Sink: e.sink}); err != nil {
		return stepResult{}, err
	}
	id, err := newID()
	if err != nil {
		return stepResult{}, err
	}
	rec := cache.Record{
		Snapshot: string(id), Created: r.Created, ContentKey: r.ContentKey(), Inputs: j.inputs,
		ClampedTo: r.Layer.Epoch(),
	}
	keys := []cache.Key{r.Key, r.ContentKey(), j.defKey}
	e.lazy.Add(id, func(ctx context.Context) error {
		if err := e.lazy.Materialize(ctx, cur.top); err != nil {
			return err
		}
		if err := e.images.UnpackOn(ctx, img, cur.top, id,
			image.UnpackOptions{ID: l.id, Sink: e.sink}); err != nil {
			return err
		}
		e.dirty.Store(true)
		for i, key := range keys {
			if key == "" || slices.Contains(keys[:i], key) {
				continue
			}
			if err := e.records.Put(key, rec); err != nil {
				return err
			}
		}
		return e.records.PutSealed(string(id), r.Layer.Sealed,
			cache.Layer{Descriptor: r.Layer.Descriptor, DiffID: r.Layer.DiffID})
	})
	res := stepResult{snapshot: id, created: r.Created.UTC(), cached: true}
	if r.Layer.Sealed == e.sealer.Format() {
		res.image = img
	}
	return res, nil
}

// recorded looks for a record of a job as find does. If the snapshot of cur is unknown, recorded
// does not check the snapshot that the record was made on.
func (e *engine) recorded(cur rootfs, j *job) (key cache.Key, top snapshot.ID, hit bool) {
	if key = cmp.Or(j.key, j.defKey); key == "" {
		return "", "", false
	}
	if rec, ok := e.records.Get(key); ok && e.keepsTimes(rec) && (key == j.key || j.madeFrom(rec)) {
		if parent, ok := e.recordedOn(rec); ok && (cur.top == "" || cur.top == parent) {
			return cmp.Or(rec.ContentKey, key), resultOf(snapshot.ID(rec.Snapshot)), true
		}
	}
	for _, r := range e.importable(j) {
		return r.ContentKey(), "", true
	}
	return "", "", false
}

// recordedOn returns the name of the snapshot that a record's result was made on, and reports
// whether the result is there.
func (e *engine) recordedOn(rec cache.Record) (snapshot.ID, bool) {
	id := snapshot.ID(rec.Snapshot)
	var parent snapshot.ID
	if info, err := e.snapshots.Stat(id); err == nil {
		parent = info.Parent
	} else if _, lazy := e.state.LazyLayer(rec); lazy {
		parent = snapshot.ID(rec.Lazy.Parent)
	} else {
		return "", false
	}
	if rec.NoOp {
		parent = id
	}
	return resultOf(parent), true
}

// run runs an action of the executor on a root file system.
func (e *engine) run(ctx context.Context, root []mount.Mount,
	action executor.Action, out output) error {
	res, err := e.execute(ctx, root, action, out)
	tell(res, out)
	return err
}

// execute is run without warnings to the user.
func (e *engine) execute(ctx context.Context, root []mount.Mount, action executor.Action,
	out output) (executor.Result, error) {
	spec := &executor.Spec{Root: root, MountPoints: e.state.MountPoints(), Action: action,
		UserNS: e.state.NS.Rootless, SingleID: e.state.NS.SingleID, Epoch: e.epoch}
	return e.exec.Run(ctx, spec, out.stream(1), out.stream(2))
}

// runLinked runs a job on an empty snapshot and applies the result to active (COPY --link):
// symbolic links in active are replaced and not followed, and directories get the mode that the job
// gives them. It is used where snapshots are whole trees. Where they are overlays the result is
// stacked on the parent instead.
func (e *engine) runLinked(ctx context.Context, j *job, active *snapshot.Active,
	out output) (err error) {
	alone, err := e.snapshots.Prepare(ctx, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, alone.Discard()) }()
	if err := j.do(ctx, alone, out); err != nil {
		return err
	}
	r, w := io.Pipe()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := diff.Write(ctx, w, diff.Tree{Dir: alone.Upper(), Full: true,
			StandIns: e.state.NS.Rootless}, diff.Options{Warn: func(path, problem string) {
			out.warn(path + ": " + problem)
		}})
		return errors.Join(err, w.CloseWithError(err))
	})
	g.Go(func() error {
		o := diff.ApplyOptions{Full: true}
		if e.state.NS.SingleID {
			o.OnOwnerError = func(string, int, int, error) {} // the job has said so
		}
		if e.state.NS.Rootless {
			o.OnStandIn = func(string) {} // here, too
		}
		_, err := diff.Apply(ctx, r, active.Upper(), o)
		r.CloseWithError(err)
		return err
	})
	return g.Wait()
}
