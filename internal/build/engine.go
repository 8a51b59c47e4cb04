package build

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/job"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config holds the parts and options of an Engine.
type Config struct {
	Parts   Parts
	Layers  Layers
	State   *state.State         // for the user namespace, and errors of a full disk
	Imports *remotecache.Imports // nil: nothing was imported
	Ran     *Ran                 // the steps that this build has run so far
	// Epoch is the latest time of a file, and the creation time of new layers and entries of the
	// history (SOURCE_DATE_EPOCH), in seconds since 1970; nil keeps real times.
	Epoch *int64
	// NotBefore is the time before which the results of steps are too old to be used; zero: none
	// are.
	NotBefore time.Time
	// Shared has the parts that the engines of builds that run together share; nil: there is one
	// engine.
	Shared *Shared
	Sink   event.Sink
}

// Shared has the parts that engines of builds that run together share.
type Shared struct {
	// runs has the results of the steps that were run. Of equal steps of different stages one runs,
	// and the others wait for its result.
	runs memo.Map[string, stepResult]
	// commands has a place for each command of RUN that may run at the same time; nil: there is no
	// limit.
	commands chan struct{}
}

// NewShared returns the parts for several engines. jobs limits the commands of RUN that run at the
// same time; 0: all that can run do.
func NewShared(jobs int) *Shared {
	s := &Shared{}
	if jobs > 0 {
		s.commands = make(chan struct{}, jobs)
	}
	return s
}

// Parts are the parts of an Engine that tests replace.
type Parts struct {
	// Run runs the action of a step; nil: executor.Run.
	Run        job.RunFunc
	Snapshots  Snapshots
	Records    Records
	LazyLayers LazyLayers
	Images     LayerImages
}

// Layers holds the parts that make the layers of snapshots, and the snapshots of layers.
type Layers struct {
	Sealer      Sealer
	Directories DirectorySealer
	Outlines    OutlineSealer
	Lazy        *layers.Lazy
	Checker     *layers.Checker // nil: layers are not checked
}

// Engine finds or makes the results of steps. The stages of all platforms share one.
type Engine struct {
	worker    *job.Worker
	results   *results
	snapshots Snapshots
	layers    Layers
	state     *state.State
	ran       *Ran
	epoch     *int64 // see Config
	sink      event.Sink
	shared    *Shared
	// pool has the prepared snapshots of steps that changed nothing, for other steps on the same
	// parents. Committed, each would be one more directory that overlay has to open for all later
	// steps.
	pool    snapshot.Pool
	merging merging
}

// New returns an engine. Close it after its solvers have returned.
func New(c Config) *Engine {
	if c.Parts.Run == nil {
		c.Parts.Run = executor.Run
	}
	if c.Shared == nil {
		c.Shared = NewShared(0)
	}
	return &Engine{
		worker: &job.Worker{RunFunc: c.Parts.Run, State: c.State, Epoch: c.Epoch,
			Commands: c.Shared.commands},
		shared: c.Shared,
		results: &results{
			records: c.Parts.Records, lazyLayers: c.Parts.LazyLayers,
			snapshots: c.Parts.Snapshots, images: c.Parts.Images, imports: c.Imports,
			sealer: c.Layers.Sealer, lazy: c.Layers.Lazy, ran: c.Ran, epoch: c.Epoch,
			notBefore: c.NotBefore, sink: c.Sink,
		},
		snapshots: c.Parts.Snapshots, layers: c.Layers, state: c.State, ran: c.Ran,
		epoch: c.Epoch, sink: c.Sink, pool: snapshot.Pool{From: c.Parts.Snapshots},
		merging: merging{chains: c.Parts.Snapshots},
	}
}

// Close waits for the work that steps have begun, and discards prepared snapshots that were not
// used.
func (e *Engine) Close() error {
	e.merging.wait.Wait()
	return e.pool.Close()
}

// Snapshots holds the results of steps. *snapshot.Store implements it.
type Snapshots interface {
	Prepare(ctx context.Context, parent snapshot.ID) (*snapshot.Active, error)
	Stat(ctx context.Context, id snapshot.ID) (snapshot.Info, error)
	// Layered reports whether a snapshot's directory contains only the difference to its parent.
	Layered() bool
	Chains
}

// Records keeps the results of steps and the layers of snapshots. *cache.Cache implements it.
type Records interface {
	Get(k cache.Key) (cache.Record, bool)
	Put(ctx context.Context, k cache.Key, r cache.Record) error
	Touch(k cache.Key)
	PutSealed(ctx context.Context, source, format string, l cache.Layer) error
}

// LazyLayers finds the layers of lazy snapshots. *state.State implements it.
type LazyLayers interface {
	// LazyLayer returns the layer of a record for a lazy snapshot, if the store has it.
	LazyLayer(ctx context.Context, rec cache.Record) (cache.Layer, bool)
}

// Sealer makes the layers of snapshots. *layers.Sealer implements it.
type Sealer interface {
	Seal(l *layers.Layer)
	ChainID(ctx context.Context, list []*layers.Layer) (digest.Digest, error)
	Format() string
}

// DirectorySealer makes the layer of a COPY of a directory from the source files. *layers.Sealer
// implements it.
type DirectorySealer interface {
	// SealDirectory returns false if the files must be copied before the layer is sealed.
	SealDirectory(ctx context.Context, ch snapshot.Changes,
		dir *copyfs.Directory) (l cache.Layer, ok bool, err error)
	// BeginDirectory begins to make the layer of the snapshot id, which is committed later.
	// Otherwise CancelDirectory must be called, before ch is discarded. CancelDirectory does
	// nothing for a snapshot for which BeginDirectory was not called.
	BeginDirectory(id snapshot.ID, ch snapshot.Changes, dir *copyfs.Directory)
	CancelDirectory(id snapshot.ID)
}

// LayerImages downloads layers of images. *image.Resolver implements it.
type LayerImages interface {
	// EnsureLayer copies an imported layer into the store, and checks its content.
	EnsureLayer(ctx context.Context, img *image.Image, o image.UnpackOptions) error
	UnpackOn(ctx context.Context, img *image.Image, parent, id snapshot.ID,
		o image.UnpackOptions) error
	// SharedOutline makes the outline of an image, or loads it.
	SharedOutline(ctx context.Context, img *image.Image, o image.OutlineOptions) (snapshot.ID,
		error)
	// Pack compresses what pack writes, and stores it as a blob.
	Pack(ctx context.Context, mediaType string, pack func(io.Writer) error) (ocispec.Descriptor,
		error)
}

// request describes how the result of a step may be made.
type request struct {
	useCache  bool // an earlier result may be used
	withLayer bool // the layer is needed too, and may be written while files are copied
	layerOnly bool // only the layer is needed
	// onOutline is set if the step may run on the outline of its parent, because no later step
	// needs the files.
	onOutline bool
	// runs is called before the job of the step runs; nil: nothing is.
	runs func(*job.Job)
}

// perform makes the result of a job that results.find did not find. If the content key of the job
// was not known, perform computes it and first looks for a result under it. cached reports whether
// the result was found, or was made by an equal step.
func (e *Engine) perform(ctx context.Context, cur rootfs, j *job.Job, l *line,
	req request) (res stepResult, cached bool, err error) {
	if j.Key == "" {
		if err := j.Load(ctx); err != nil {
			return stepResult{}, false, err
		}
		if res, ok, err := e.results.find(ctx, cur, j, l, req.useCache); ok || err != nil {
			if ok && err == nil {
				err = e.results.renew(ctx, j, res)
			}
			return res, ok, err
		}
	}
	mine := false
	run := string(j.Key) + " on " + string(cur.top)
	res, err = e.shared.runs.Try(ctx, run, func() (stepResult, error) {
		if req.useCache && j.IsCommand() {
			if res, ok, err := e.results.leased(ctx, cur, j, l); ok || err != nil {
				return res, err
			}
		}
		if mine = true; req.runs != nil {
			req.runs(j)
		}
		res, err := e.make(ctx, cur, j, output{l}, req)
		if err != nil {
			e.results.imports.Release(j.Key)
		}
		return res, err
	})
	if err != nil {
		return stepResult{}, false, err
	}
	res.defKey = j.DefKey
	return res, !mine, nil
}

// onNothing finds or makes the result of a job on an empty file system, without a line in the
// progress.
func (e *Engine) onNothing(ctx context.Context, j *job.Job) (snapshot.ID, error) {
	if res, ok := e.results.local(ctx, rootfs{}, j); ok {
		return res.snapshot, nil
	}
	silent := output{&line{sink: event.Discard}}
	res, err := e.shared.runs.Try(ctx, string(j.Key),
		func() (stepResult, error) { return e.make(ctx, rootfs{}, j, silent, request{}) })
	return res.snapshot, err
}

// make runs a job on a new snapshot over cur, commits the snapshot and adds the result. If only the
// layer of a COPY is needed, it tries to write the layer without a snapshot.
func (e *Engine) make(ctx context.Context, cur rootfs, j *job.Job, out output,
	req request) (stepResult, error) {
	e.ran.noteChanged()
	id, parent, run := snapshot.NewID(), cur.top, j.Run
	switch {
	case j.Link && e.snapshots.Layered():
		parent = ""
	case j.Link:
		run = func(ctx context.Context, active *snapshot.Active, out job.Output) error {
			return e.runLinked(ctx, j, active, out)
		}
	}
	if req.onOutline {
		if res, ok, err := e.makeOnOutline(ctx, cur, j, id, out, req); ok || err != nil {
			return res, err
		}
	}
	if err := e.layers.Lazy.Materialize(ctx, cur.top); err != nil {
		return stepResult{}, err
	}
	active, err := e.pool.Take(ctx, parent)
	if err != nil {
		return stepResult{}, err
	}
	e.merging.consider(ctx, parent)
	if writesLayer(j, req) {
		if res, ok, err := e.copyToLayer(ctx, cur, j, id, active, out, req); ok || err != nil {
			return res, errors.Join(err, active.Discard())
		}
	}
	err = e.state.Filled(run(ctx, active, out)) // before the files are removed
	if err == nil && parent == cur.top && cur.top != "" {
		var same bool
		if same, err = layers.Unchanged(ctx, active); same && err == nil {
			e.layers.Directories.CancelDirectory(id)
			return e.addNoOp(ctx, cur, j, active)
		}
	}
	if err == nil {
		// false: no instruction changes the attributes of the root directory
		err = active.CommitOn(ctx, id, cur.top, false)
	}
	if err != nil {
		e.layers.Directories.CancelDirectory(id)
		return stepResult{}, errors.Join(err, active.Discard())
	}
	return e.results.add(ctx, j, cache.Record{Snapshot: string(id)})
}

// addNoOp adds the result of a job that has changed nothing in active, a snapshot on cur. Another
// step can use the snapshot.
func (e *Engine) addNoOp(ctx context.Context, cur rootfs, j *job.Job,
	active *snapshot.Active) (stepResult, error) {
	if err := e.layers.Checker.NoOp(ctx, active); err != nil {
		return stepResult{}, errors.Join(err, active.Discard())
	}
	if err := e.pool.Put(active.Parent(), active); err != nil {
		return stepResult{}, err
	}
	return e.results.add(ctx, j, cache.Record{Snapshot: string(cur.top), NoOp: true})
}

// runLinked runs a job on an empty snapshot and stacks the result on active (COPY --link). It is
// used if snapshots are whole trees; overlays are stacked by their parents.
func (e *Engine) runLinked(ctx context.Context, j *job.Job, active *snapshot.Active,
	out job.Output) (err error) {
	alone, err := e.snapshots.Prepare(ctx, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, alone.Discard()) }()
	if err := j.Run(ctx, alone, out); err != nil {
		return err
	}
	return layers.Stack(ctx, e.state, alone, active, out.Warn)
}
