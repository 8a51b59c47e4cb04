package build

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/cachemount"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
)

// Config holds the parts and options that the steps of a build share.
type Config struct {
	Executor  Executor // nil: package executor
	Snapshots Snapshots
	Records   Records
	Images    LayerImages
	State     *state.State // for lazy layers, the user namespace, and errors of a full disk

	Sealer      Sealer
	Directories DirectorySealer
	Lazy        *layers.Lazy
	Checker     *layers.Checker      // nil: layers are not checked
	Imports     *remotecache.Imports // nil: nothing was imported
	Ran         *Ran                 // the steps that this build has run so far
	Inputs      *inputs.Inputs
	Secrets     *secret.Store
	CacheMounts *cachemount.Store
	// TempDir returns the temporary directory of the build.
	TempDir func() (string, error)
	Sink    event.Sink

	// File is the Dockerfile's name, for messages.
	File string
	// Epoch is the latest time of a file, and the creation time of new layers and entries of the
	// history (SOURCE_DATE_EPOCH); nil keeps real times.
	Epoch *time.Time
	Run   RunOptions
	// NoCache runs every step again. The stages in NoCacheStages (names or indexes) run again even
	// without NoCache.
	NoCache       bool
	NoCacheStages []string
	// Tables keeps the tables of layers while the layers are sealed.
	Tables bool
	// Image is set if the target becomes an image, Files if its files are exported.
	Image, Files bool
	// Export is set if results are collected for Records, ExportAll if results of all stages are
	// collected.
	Export, ExportAll bool
}

// RunOptions holds the options for the commands of RUN.
type RunOptions struct {
	// Network is "host" or "none"; "" is "host".
	Network string
	Hosts   []executor.Host
	ShmSize int64
	Ulimits []executor.Ulimit
	// Insecure allows RUN --security=insecure. HostNetwork allows RUN --network=host if Network is
	// none.
	Insecure    bool
	HostNetwork bool
	// Hostname is the host name of commands; "" is the default of package executor.
	Hostname string
	// CacheNamespace keeps cache mounts with equal ids apart.
	CacheNamespace string
}

// Engine finds or makes the results of steps. The stages of all platforms share one.
type Engine struct {
	cfg     Config
	epoch   *int64 // cfg.Epoch in seconds since 1970; nil: real times
	worker  *worker
	results results
	// keeps equal steps of different stages from running at the same time
	runs memo.Map[string, stepResult]
	// A step that changes nothing has a layer but no snapshot: the next step runs on the snapshot
	// before it. Each snapshot would be one more directory that overlay has to open for all later
	// steps.
	pool snapshot.Pool
}

// New returns an engine. Close it after its solvers have returned.
func New(c Config) *Engine {
	if c.Executor == nil {
		c.Executor = processes{}
	}
	if c.Ran == nil {
		c.Ran = &Ran{}
	}
	e := &Engine{cfg: c, pool: snapshot.Pool{From: c.Snapshots}}
	if c.Epoch != nil {
		seconds := c.Epoch.Unix()
		e.epoch = &seconds
	}
	e.worker = &worker{executor: c.Executor, state: c.State, epoch: e.epoch}
	e.results = results{
		records: c.Records, snapshots: c.Snapshots, imports: c.Imports, images: c.Images,
		sealer: c.Sealer, lazy: c.Lazy, state: c.State, ran: c.Ran, epoch: e.epoch, sink: c.Sink,
	}
	return e
}

// Close discards prepared snapshots that were not used.
func (e *Engine) Close() error { return e.pool.Close() }

// now returns the creation time of new layers and history entries: the epoch or, without one, the
// current time.
func (e *Engine) now() time.Time {
	if e.cfg.Epoch != nil {
		return e.cfg.Epoch.UTC()
	}
	return time.Now().UTC()
}

// Ran records the steps that a build has run. It is kept when the build starts again because of a
// damaged blob: these steps do not run again, even with Config.NoCache.
type Ran struct {
	mu        sync.Mutex
	keys      map[cache.Key]bool
	restarted bool
	changed   atomic.Bool
}

// Changed reports whether the build has changed the state.
func (r *Ran) Changed() bool { return r.changed.Load() }

// Restarted records that the build has started again.
func (r *Ran) Restarted() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restarted = true
}

func (r *Ran) add(key cache.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys == nil {
		r.keys = map[cache.Key]bool{}
	}
	r.keys[key] = true
}

// has reports whether a step with one of the keys was run before the build started again.
func (r *Ran) has(keys ...cache.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.restarted && slices.ContainsFunc(keys, func(k cache.Key) bool { return r.keys[k] })
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
	Stat(ctx context.Context, id snapshot.ID) (snapshot.Info, error)
	// Layered reports whether a snapshot's directory contains only the difference to its parent.
	Layered() bool
}

// Records keeps the results of steps and the layers of snapshots. *cache.Cache implements it.
type Records interface {
	Get(k cache.Key) (cache.Record, bool)
	Put(ctx context.Context, k cache.Key, r cache.Record) error
	Touch(k cache.Key)
	PutSealed(ctx context.Context, snapshot, format string, l cache.Layer) error
}

// Sealer makes the layers of snapshots. *layers.Sealer implements it.
type Sealer interface {
	Seal(l *layers.Layer)
	ChainID(ctx context.Context, list []*layers.Layer) (digest.Digest, error)
	Format() string
	// Wait waits until nothing is being sealed.
	Wait()
}

// DirectorySealer makes the layer of a COPY of a directory from the source files. *layers.Sealer
// implements it.
type DirectorySealer interface {
	SealDirectory(ctx context.Context, ch snapshot.Changes,
		dir *copyfs.Directory) (cache.Layer, error)
	BeginDirectory(id snapshot.ID, ch snapshot.Changes, dir *copyfs.Directory)
}

// LayerImages downloads layers of images. *image.Resolver implements it.
type LayerImages interface {
	// EnsureLayer copies an imported layer into the store, and checks its content.
	EnsureLayer(ctx context.Context, img *image.Image, o image.UnpackOptions) error
	UnpackOn(ctx context.Context, img *image.Image, parent, id snapshot.ID,
		o image.UnpackOptions) error
}

// demand describes which results of a step the build needs.
type demand struct {
	cache bool // an earlier result may be used
	seal  bool // the layer is sealed
	last  bool // only the layer is needed
}

// perform makes the result of a job that results.find did not find. If the content key of the job
// was not known, perform computes it and first looks for a result under it. cached reports whether
// the result was found, or was made by an equal step.
func (e *Engine) perform(ctx context.Context, cur rootfs, job *job, l *line,
	d demand) (res stepResult, cached bool, err error) {
	if job.key == "" {
		if err := job.load(ctx); err != nil {
			return stepResult{}, false, err
		}
		if res, ok, err := e.results.find(ctx, cur, job, l, d.cache); ok || err != nil {
			if ok && err == nil {
				err = e.results.renew(ctx, job)
			}
			return res, ok, err
		}
	}
	mine := false
	run := string(job.key) + " on " + string(cur.top)
	res, err = e.runs.Try(ctx, run, func() (stepResult, error) {
		mine = true
		return e.make(ctx, cur, job, output{l}, d)
	})
	if err != nil {
		return stepResult{}, false, err
	}
	res.defKey = job.defKey
	return res, !mine, nil
}

// make runs a job on a new snapshot over cur, commits the snapshot and adds the result. If only the
// layer of a COPY is needed, it tries to write the layer without a snapshot.
func (e *Engine) make(ctx context.Context, cur rootfs, j *job, out output,
	d demand) (stepResult, error) {
	e.cfg.Ran.changed.Store(true)
	id, err := newID()
	if err != nil {
		return stepResult{}, err
	}
	parent, run := cur.top, j.action.run
	switch {
	case j.link && e.cfg.Snapshots.Layered():
		parent = ""
	case j.link:
		run = func(ctx context.Context, active *snapshot.Active, out output) error {
			return e.runLinked(ctx, j, active, out)
		}
	}
	if err := e.cfg.Lazy.Materialize(ctx, cur.top); err != nil {
		return stepResult{}, err
	}
	active, err := e.pool.Take(ctx, parent)
	if err != nil {
		return stepResult{}, err
	}
	if c := e.layerCopy(j, d); c != nil {
		if res, ok, err := e.copyToLayer(ctx, cur, j, c, id, active, out, d); ok || err != nil {
			return res, errors.Join(err, active.Discard())
		}
	}
	err = e.cfg.State.Filled(run(ctx, active, out)) // before the files are removed
	if err == nil && parent == cur.top && cur.top != "" {
		var same bool
		if same, err = layers.Unchanged(ctx, active); same && err == nil {
			if err := e.cfg.Checker.NoOp(ctx, active); err != nil {
				return stepResult{}, errors.Join(err, active.Discard())
			}
			if err := e.pool.Put(parent, active); err != nil {
				return stepResult{}, err
			}
			return e.results.add(ctx, j, cache.Record{Snapshot: string(cur.top), NoOp: true})
		}
	}
	if err == nil {
		// false: no instruction changes the attributes of the root directory
		err = active.CommitOn(ctx, id, cur.top, false)
	}
	if err != nil {
		return stepResult{}, errors.Join(err, active.Discard())
	}
	return e.results.add(ctx, j, cache.Record{Snapshot: string(id)})
}

// runLinked runs a job on an empty snapshot and stacks the result on active (COPY --link). It is
// used if snapshots are whole trees; overlays are stacked by their parents.
func (e *Engine) runLinked(ctx context.Context, j *job, active *snapshot.Active,
	out output) (err error) {
	alone, err := e.cfg.Snapshots.Prepare(ctx, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, alone.Discard()) }()
	if err := j.action.run(ctx, alone, out); err != nil {
		return err
	}
	return layers.Stack(ctx, e.cfg.State, alone, active, out.warn)
}
