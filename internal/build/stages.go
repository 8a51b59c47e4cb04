package build

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/job"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/runmount"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

type imageConfig = dockerspec.DockerOCIImage

// rootfs is a file system and the configuration of its image. A stage starts from one and results
// in one.
type rootfs struct {
	config imageConfig
	// key is the key of the step that made the file system.
	key cache.Key
	// top is the snapshot; "" is the empty file system.
	top snapshot.ID
	// layers lists the layers, lowest first.
	layers []*layers.Layer
	// origins has the origins of the history's entries, except those of a base image.
	origins []Origin
	// linked is the part that is the result of another solver; nil: there is none.
	linked *LinkedBase
	before stepBefore
}

// Origin is the instruction that made an entry of an image's history.
type Origin struct {
	Stage *parser.Stage
	Text  string
	Lines parser.Range
}

// SolverOptions determine how a Solver builds its plan.
type SolverOptions struct {
	Inputs  *inputs.Inputs
	Mounter *runmount.Mounter // for the mounts of RUNs
	Run     job.RunOptions
	NoCache NoCache
	Wants   Wants
	// File is the Dockerfile's name, for messages.
	File string
	// Label is the prefix of the names of steps if there are several platforms.
	Label string
	// Prefetch lists images that are unpacked while the first steps run.
	Prefetch []inputs.Use
	// Account explains why steps run; nil: nothing does.
	Account *Account
	// Publish is called with the result of each step under each of its keys, as soon as the result
	// is known. record waits for the layer. nil: nothing is called.
	Publish func(record func(ctx context.Context) (remotecache.Record, error))
	// Linked returns the solver whose result a named context is, and false for other contexts; nil:
	// there are none.
	Linked func(c parser.ContextInput) (*Solver, bool)
}

// NoCache names the stages whose steps run again.
type NoCache struct {
	All    bool
	Stages []string // names or indexes
}

// has reports whether the steps of a stage run again.
func (n *NoCache) has(st *parser.Stage) bool {
	return n.All || slices.ContainsFunc(n.Stages, func(name string) bool {
		return strings.EqualFold(name, st.Name) || name == fmt.Sprint(st.Index)
	})
}

// Wants describes for what the results of a plan are used.
type Wants struct {
	// Image is set if the target becomes an image, Files if its files are exported.
	Image, Files bool
	// Tables is set if the tables of layers are kept while the layers are sealed.
	Tables bool
	// Export is set if results are collected for Records, ExportAll if results of all stages are
	// collected.
	Export, ExportAll bool
	// SealAll is set if the layers of all stages are sealed.
	SealAll bool
}

// Solver builds a plan for one platform.
type Solver struct {
	plan      *parser.Plan
	o         SolverOptions
	engine    *Engine
	results   *results
	sealer    Sealer
	epoch     *int64 // see Config
	sink      event.Sink
	preparer  *job.Preparer
	predictor *predictor

	sealed []*parser.Stage // the stages whose layers are sealed
	direct bool            // layers may be written without a snapshot

	stages    memo.Map[*parser.Stage, rootfs]
	collector remotecache.Collector // for --cache-to
}

// Solver returns a solver for a plan.
func (e *Engine) Solver(plan *parser.Plan, o SolverOptions) *Solver {
	s := &Solver{
		plan: plan, o: o, engine: e, results: e.results, sealer: e.layers.Sealer, epoch: e.epoch,
		sink: e.sink, sealed: sealedStages(plan, o.Wants),
		direct: e.snapshots.Layered() && !o.Wants.Tables,
	}
	if o.Publish != nil {
		s.collector.Added = func(record func(context.Context,
			remotecache.Sealer) (remotecache.Record, error)) {
			o.Publish(func(ctx context.Context) (remotecache.Record, error) {
				return record(ctx, s.sealer)
			})
		}
	}
	s.preparer = &job.Preparer{Worker: e.worker, Inputs: o.Inputs, Opener: opener{s},
		Mounter: o.Mounter, Options: o.Run}
	s.predictor = &predictor{plan: plan,
		off:    !e.results.hasImports() || o.Wants.ExportAll || o.Linked != nil,
		inputs: o.Inputs, preparer: s.preparer, results: e.results, noCache: o.NoCache}
	return s
}

// Work returns the number of steps to perform, including one for each base image. With imported
// results it omits the stages that will probably not be needed.
func (s *Solver) Work(ctx context.Context) int {
	work := 0
	start := s.predictor.startStages(ctx)
	for i, st := range start {
		work += st.Total
		switch st.Base.(type) {
		case parser.ImageInput, parser.ContextInput:
			if !slices.ContainsFunc(start[:i], func(other *parser.Stage) bool {
				return s.o.Inputs.Same(other.Base, st.Base)
			}) {
				work++
			}
		}
	}
	return work
}

// note collects the result of a step for --cache-to.
func (s *Solver) note(st *parser.Stage, keys []cache.Key, created time.Time, l *layers.Layer,
	below []*layers.Layer) {
	if s.o.Wants.Export {
		own := slices.Contains(s.plan.Target.Lineage(), st)
		s.collector.Add(own, keys, created, l, below)
	}
}

// Records returns the records, for other machines, of the steps that Solve has performed: those of
// the image's own stages or, if all is set, those of every stage. It waits for their layers.
func (s *Solver) Records(ctx context.Context, all bool) (remotecache.Document, error) {
	return s.collector.Document(ctx, s.sealer, all)
}

// Target is the result of a plan's last stage.
type Target struct {
	Config imageConfig
	// Top is the snapshot with the files; "" is the empty file system.
	Top snapshot.ID
	// Layers lists the layers, lowest first.
	Layers []*layers.Layer
	// Origins has the origins of the history's entries, except those of a base image.
	Origins []Origin
	// Linked is the part that is the result of another solver; nil: there is none.
	Linked *LinkedBase
}

// Solve builds all needed stages at once. A stage waits for others when it needs their files. An
// error of an instruction is a *StepError or a *parser.Error.
func (s *Solver) Solve(ctx context.Context) (Target, error) {
	g, gctx := errgroup.WithContext(ctx)
	for _, st := range s.predictor.startStages(ctx) {
		g.Go(func() error {
			_, err := s.stage(gctx, st)
			return err
		})
	}
	if s.predictor.off { // otherwise perhaps none of the images is needed
		for _, use := range s.o.Prefetch {
			g.Go(func() error {
				_, err := s.o.Inputs.Unpack(gctx, use.Image, "")
				return At(s.o.File, use.Lines, "", err)
			})
		}
	}
	if err := g.Wait(); err != nil {
		return Target{}, err
	}
	r, err := s.result(ctx)
	return Target{Config: r.config, Top: r.top, Layers: r.layers, Origins: r.origins,
		Linked: r.linked}, err
}

// result builds the target, once.
func (s *Solver) result(ctx context.Context) (rootfs, error) {
	r, err := s.stage(ctx, s.plan.Target)
	r.config = s.plan.Finish(r.config)
	return r, err
}

// sealedStages returns the stages whose layers are part of an image or of an exported cache. Layers
// of other stages are not sealed.
func sealedStages(plan *parser.Plan, w Wants) []*parser.Stage {
	switch {
	case w.ExportAll, w.SealAll:
		return plan.Stages
	case w.Image || w.Export:
		return plan.Target.Lineage()
	}
	return nil
}

// seal begins to seal the layer of a stage, if it is needed.
func (s *Solver) seal(st *parser.Stage, l *layers.Layer) {
	if slices.Contains(s.sealed, st) {
		s.sealer.Seal(l)
	}
}

// stage builds a stage, once in a build.
func (s *Solver) stage(ctx context.Context, st *parser.Stage) (rootfs, error) {
	return s.stages.Do(ctx, st, func() (rootfs, error) {
		cur, err := s.base(ctx, st)
		if err != nil {
			return rootfs{}, At(s.o.File, st.Range, "", err)
		}
		base := cur.config
		cur.config = st.Start(base)
		n := 1
		for step, err := range st.Steps(base) {
			if err != nil {
				return rootfs{}, err
			}
			if step.Action != nil {
				n++
			}
			if cur, err = s.step(ctx, st, cur, step, n); err != nil {
				return rootfs{}, err
			}
		}
		return cur, nil
	})
}

// stageLabel returns the prefix of a step's name, such as "[build 2/5]". As in BuildKit, FROM
// counts as a step if it names an image or a context, and not if it names scratch or another stage.
// n always counts FROM.
func (s *Solver) stageLabel(ctx context.Context, st *parser.Stage, n int) string {
	name := st.Name
	if name == "" && len(s.plan.Stages) > 1 {
		name = fmt.Sprintf("stage-%d", st.Index)
	}
	if name != "" {
		name += " "
	}
	number := stepNumber(st, n)
	return fmt.Sprintf("[%s%s%d/%d]", s.o.Label, name, number, s.total(ctx, st)+number-n+1)
}

// stepNumber returns the number of a stage's step n as it is shown.
func stepNumber(st *parser.Stage, n int) int {
	switch st.Base.(type) {
	case parser.Scratch, parser.StageInput:
		return n - 1
	}
	return n
}

// total returns the number of a stage's steps that have an action, including the triggers of its
// base image.
func (s *Solver) total(ctx context.Context, st *parser.Stage) int {
	base, err := s.o.Inputs.BaseConfig(ctx, st)
	if err != nil { // it was resolved when the plan was made
		return st.Total
	}
	return st.TotalOn(base)
}

func (s *Solver) stepID(st *parser.Stage, n int) event.ID {
	return event.ID(fmt.Sprintf("%s%d.%d", s.o.Label, st.Index, n))
}

// base returns the file system with which a stage starts.
func (s *Solver) base(ctx context.Context, st *parser.Stage) (rootfs, error) {
	var cur rootfs
	var err error
	switch in := st.Base.(type) {
	case parser.Scratch:
		cur = rootfs{key: job.ScratchKey}
	case parser.StageInput:
		cur, err = s.stage(ctx, in.Stage)
	case parser.ImageInput, parser.ContextInput:
		if other, ok := s.linked(in); ok {
			cur, err = s.linkedBase(ctx, st, other)
			break
		}
		cur, err = s.baseImage(ctx, st, in)
	default:
		panic("unreachable")
	}
	if err != nil {
		return rootfs{}, err
	}
	if in, ok := st.Base.(parser.StageInput); ok {
		cur.before.stage, cur.before.number = StageName(in.Stage), 0
	} else {
		cur.before = stepBefore{}
	}
	cur.config.History = slices.Clone(cur.config.History)
	cur.layers = slices.Clone(cur.layers)
	cur.origins = slices.Clone(cur.origins)
	return cur, nil
}

// step performs one step on cur.
func (s *Solver) step(ctx context.Context, st *parser.Stage, cur rootfs, step parser.Step,
	n int) (rootfs, error) {
	next := rootfs{config: step.Image, key: cur.key, top: cur.top, layers: cur.layers,
		origins: cur.origins, linked: cur.linked, before: cur.before}
	next.config.History, next.config.RootFS = cur.config.History, cur.config.RootFS
	from := Origin{Stage: st, Text: step.Text, Lines: step.Range}
	if step.Action == nil {
		if step.History == "" {
			return next, nil
		}
		next.origins = append(next.origins, from)
		created, err := s.metadataTime(ctx, st, cur, step)
		next.config.History = append(next.config.History, ocispec.History{
			Created: &created, CreatedBy: step.History, Comment: parser.Comment, EmptyLayer: true,
		})
		next.config.Created = &created
		return next, err
	}
	if err := ctx.Err(); err != nil {
		return rootfs{}, err
	}
	line := s.line(ctx, st, step, n)
	why := s.explain(st, &cur, &step, n, line)
	res, err := s.action(ctx, st, cur, step, line, s.needed(ctx, st, n), why)
	why.ended(res, err)
	if err != nil {
		return rootfs{}, err
	}
	next.before = stepBefore{number: stepNumber(st, n), ran: !res.cached}
	l := &layers.Layer{Snapshot: res.snapshot, NoOp: res.unchanged,
		Text: step.Text, Lines: step.Range}
	if res.image != nil {
		l.Base, l.Descriptor, l.DiffID = res.image, res.image.Manifest.Layers[0],
			res.image.Config.RootFS.DiffIDs[0]
		l.Unchecked = res.unchecked
	}
	s.seal(st, l)
	next.key, next.top = res.key, res.snapshot
	next.layers, next.origins = append(next.layers, l), append(next.origins, from)
	created := s.results.time(res.created)
	s.note(st, []cache.Key{res.defKey, res.key}, created, l, cur.layers)
	next.config.History = append(next.config.History,
		ocispec.History{Created: &created, CreatedBy: step.History, Comment: parser.Comment})
	next.config.Created = &created
	return next, nil
}

// metadataTime returns the time at which an instruction without a layer was first built on cur, so
// that a build that changes nothing makes the same image again.
func (s *Solver) metadataTime(ctx context.Context, st *parser.Stage, cur rootfs,
	step parser.Step) (time.Time, error) {
	history := make([]string, 0, len(cur.config.History))
	for _, h := range cur.config.History {
		history = append(history, h.CreatedBy)
	}
	key, err := job.MakeKey(cur.key, "metadata", step.History, history...)
	if err != nil {
		return time.Time{}, err
	}
	return s.firstTime(ctx, st, key, cur.top)
}

// firstTime returns the time at which the result of a key was first built, and collects it for
// --cache-to.
func (s *Solver) firstTime(ctx context.Context, st *parser.Stage, key cache.Key,
	top snapshot.ID) (time.Time, error) {
	created, err := s.results.firstTime(ctx, key, top)
	if err == nil && s.epoch == nil {
		s.note(st, []cache.Key{key}, created, nil, nil)
	}
	return created, err
}

// line returns the line of step n of a stage.
func (s *Solver) line(ctx context.Context, st *parser.Stage, step parser.Step, n int) *line {
	name := s.stageLabel(ctx, st, n) + " " + strings.TrimSpace(step.Name)
	below := s.stepID(st, n-1)
	if n == 2 { // the first after FROM
		below = s.lineOf(ctx, st.Base)
	}
	used := []event.ID{below}
	for _, in := range inputs.From(step.Action) {
		used = append(used, s.lineOf(ctx, in))
	}
	used = slices.DeleteFunc(used, func(id event.ID) bool { return id == "" })
	return &line{id: s.stepID(st, n), inputs: used, name: name, step: step,
		sink: s.sink, file: s.o.File}
}

// lineOf returns the ID of the work that makes an input; "" if there is none.
func (s *Solver) lineOf(ctx context.Context, in parser.Input) event.ID {
	switch in := in.(type) {
	case parser.StageInput:
		if n := s.total(ctx, in.Stage); n > 0 {
			return s.stepID(in.Stage, n+1)
		}
		return s.lineOf(ctx, in.Stage.Base)
	case parser.ImageInput:
		return inputs.LineOf(in)
	case parser.ContextInput:
		if other, ok := s.linked(in); ok {
			return other.lineOf(ctx, parser.StageInput{Stage: other.plan.Target})
		}
	}
	return ""
}

// action finds or makes the result of a step.
func (s *Solver) action(ctx context.Context, st *parser.Stage, cur rootfs, step parser.Step,
	l *line, req request, why *explained) (stepResult, error) {
	l.start()
	j, err := s.preparer.Job(ctx, st.Platform, cur.key, step.Action, s.nameOf)
	if err != nil {
		return stepResult{}, l.done(false, err)
	}
	defer j.Close() // ignore the error: its files are read-only or temporary
	req.useCache = !s.o.NoCache.has(st)
	req.withLayer = s.direct && slices.Contains(s.sealed, st)
	req.runs = func(j *job.Job) { why.runs(ctx, j, req.useCache) }
	if res, ok, err := s.results.find(ctx, cur, j, l, req.useCache); ok || err != nil {
		return res, l.done(ok, err)
	}
	for attempts := 1; ; attempts++ {
		res, cached, err := s.engine.perform(ctx, cur, j, l, req)
		if !job.StartsAgain(err, attempts) {
			res.cached = cached
			return res, l.done(cached, err)
		}
		if err := j.Reset(); err != nil {
			return stepResult{}, l.done(false, err)
		}
	}
}
