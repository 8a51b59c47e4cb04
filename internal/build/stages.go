package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/remotecache"
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
}

// Origin is the instruction that made an entry of an image's history.
type Origin struct {
	Stage *parser.Stage
	Text  string
	Lines parser.Range
}

// Solver builds a plan for one platform.
type Solver struct {
	e     *Engine
	plan  *parser.Plan
	label string // prefix of the names of steps if there are several platforms

	sealed map[*parser.Stage]bool // the stages whose layers are sealed, set by markSealed

	stages      memo.Map[*parser.Stage, rootfs]
	predictions memo.Map[*parser.Stage, prediction]
	start       memo.Map[struct{}, map[*parser.Stage]bool] // the stages that run starts

	collector remotecache.Collector // for --cache-to
	// prefetch lists images that are unpacked while the first steps run.
	prefetch []inputs.Use
}

// Work returns the number of steps to perform, including one for each base. With imported results
// it omits the stages that will probably not be needed.
func (s *Solver) Work(ctx context.Context) int {
	work := 0
	for _, st := range s.startStages(ctx) {
		work += st.Total
		switch st.Base.(type) {
		case parser.ImageInput, parser.ContextInput:
			work++
		}
	}
	return work
}

// note collects the result of a step for --cache-to.
func (s *Solver) note(st *parser.Stage, keys []cache.Key, created time.Time, l *layers.Layer,
	below []*layers.Layer) {
	if s.e.cfg.Export {
		s.collector.Add(s.imageStages()[st], keys, created, l, below)
	}
}

// Records returns the records, for other machines, of the steps that Solve has performed: those of
// the image's own stages or, if all is set, those of every stage. It waits for their layers.
func (s *Solver) Records(ctx context.Context, all bool) (remotecache.Document, error) {
	return s.collector.Document(ctx, s.e.cfg.Sealer, all)
}

// Solver returns a solver for a plan. label is the prefix of the names of steps. The images in
// prefetch are unpacked while the first steps run.
func (e *Engine) Solver(plan *parser.Plan, label string, prefetch []inputs.Use) *Solver {
	s := &Solver{e: e, plan: plan, label: label, prefetch: prefetch}
	s.markSealed()
	return s
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
}

// Solve builds all needed stages at once. A stage waits for others when it needs their files. An
// error of an instruction is a *StepError or a *parser.Error.
func (s *Solver) Solve(ctx context.Context) (Target, error) {
	g, gctx := errgroup.WithContext(ctx)
	for _, st := range s.startStages(ctx) {
		g.Go(func() error {
			_, err := s.stage(gctx, st)
			return err
		})
	}
	for _, use := range s.prefetch {
		if s.predicts() {
			break // perhaps none of them is needed
		}
		g.Go(func() error {
			_, err := s.e.unpack(gctx, use.Image, "")
			return At(s.e.cfg.File, use.Lines, "", err)
		})
	}
	if err := g.Wait(); err != nil {
		return Target{}, err
	}
	r, err := s.stage(ctx, s.plan.Target)
	return Target{Config: s.plan.Finish(r.config), Top: r.top, Layers: r.layers,
		Origins: r.origins}, err
}

// markSealed finds the stages whose layers are part of an image or of an exported cache. Layers of
// other stages are not sealed.
func (s *Solver) markSealed() {
	s.sealed = map[*parser.Stage]bool{}
	if s.e.cfg.ExportAll {
		for _, st := range s.plan.Stages {
			s.sealed[st] = true
		}
	}
	if s.e.cfg.Image || s.e.cfg.Export {
		for st := range s.imageStages() {
			s.sealed[st] = true
		}
	}
}

// imageStages returns the stages whose layers are part of the image: the target and the stages on
// which it is based.
func (s *Solver) imageStages() map[*parser.Stage]bool {
	own := map[*parser.Stage]bool{}
	for st := s.plan.Target; st != nil; {
		own[st] = true
		base, ok := st.Base.(parser.StageInput)
		if !ok {
			break
		}
		st = base.Stage
	}
	return own
}

// stage builds a stage, once a build.
func (s *Solver) stage(ctx context.Context, st *parser.Stage) (rootfs, error) {
	return s.stages.Do(ctx, st, func() (rootfs, error) {
		cur, err := s.base(ctx, st)
		if err != nil {
			return rootfs{}, At(s.e.cfg.File, st.Range, "", err)
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
	from := 1
	switch st.Base.(type) {
	case parser.Scratch, parser.StageInput:
		from = 0
	}
	return fmt.Sprintf("[%s%s%d/%d]", s.label, name, n-1+from, s.total(ctx, st)+from)
}

// total returns the number of a stage's steps that have an action, including the triggers of its
// base image.
func (s *Solver) total(ctx context.Context, st *parser.Stage) int {
	base, err := s.e.cfg.Inputs.BaseConfig(ctx, st)
	if err != nil { // it was resolved when the plan was made
		return st.Total
	}
	return st.TotalOn(base)
}

func (s *Solver) stepID(st *parser.Stage, n int) event.ID {
	return event.ID(fmt.Sprintf("%s%d.%d", s.label, st.Index, n))
}

// base returns the file system with which a stage starts.
func (s *Solver) base(ctx context.Context, st *parser.Stage) (rootfs, error) {
	var cur rootfs
	var err error
	switch in := st.Base.(type) {
	case parser.Scratch:
		cur = rootfs{key: "scratch"}
	case parser.StageInput:
		cur, err = s.stage(ctx, in.Stage)
	case parser.ImageInput, parser.ContextInput:
		cur, err = s.baseImage(ctx, st, in)
	default:
		panic("unreachable")
	}
	if err != nil {
		return rootfs{}, err
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
		origins: cur.origins}
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
	res, err := s.action(ctx, st, cur, step, line, s.endsImage(ctx, st, n))
	if err != nil {
		return rootfs{}, err
	}
	l := &layers.Layer{Snapshot: res.snapshot, NoOp: res.unchanged,
		Text: step.Text, Lines: step.Range}
	if res.image != nil {
		l.Base, l.Descriptor, l.DiffID = res.image, res.image.Manifest.Layers[0],
			res.image.Config.RootFS.DiffIDs[0]
	}
	if s.sealed[st] {
		s.e.cfg.Sealer.Seal(l)
	}
	next.key, next.top = res.key, res.snapshot
	next.layers, next.origins = append(next.layers, l), append(next.origins, from)
	created := res.created
	if s.e.cfg.Epoch != nil {
		created = s.e.now()
	}
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
	key, err := makeKey(cur.key, "metadata", step.History, history...)
	if err != nil {
		return time.Time{}, err
	}
	return s.firstTime(ctx, st, key, cur.top)
}

// firstTime returns the time at which the result of a key was first built: the time of a local or
// imported record, or otherwise the current time.
func (s *Solver) firstTime(ctx context.Context, st *parser.Stage, key cache.Key,
	top snapshot.ID) (time.Time, error) {
	if s.e.cfg.Epoch != nil {
		return s.e.now(), nil
	}
	rec, ok := s.e.cfg.Records.Get(key)
	if !ok {
		if rec.Created, ok = s.e.cfg.Imports.Created(key); !ok {
			rec.Created = s.e.now()
		}
		if err := s.e.cfg.Records.Put(ctx, key, cache.Record{Snapshot: string(top),
			Created: rec.Created}); err != nil {
			return time.Time{}, err
		}
	}
	s.note(st, []cache.Key{key}, rec.Created, nil, nil)
	return rec.Created.UTC(), nil
}

// line is a step's line in the progress.
type line struct {
	id   event.ID
	name string
	step parser.Step
	sink event.Sink
	file string // the Dockerfile's name
}

func (s *Solver) line(ctx context.Context, st *parser.Stage, step parser.Step, n int) *line {
	name := s.stageLabel(ctx, st, n) + " " + strings.TrimSpace(step.Name)
	return &line{id: s.stepID(st, n), name: name, step: step,
		sink: s.e.cfg.Sink, file: s.e.cfg.File}
}

func (l *line) start() {
	l.sink(event.Start{ID: l.id, Name: l.name, File: l.file,
		Line: l.step.Range.Start, Time: time.Now()})
}

// done ends the line, and adds the position in the Dockerfile to the error.
func (l *line) done(cached bool, err error) error {
	if err != nil {
		err = At(l.file, l.step.Range, l.name, err)
	}
	shown := err
	var step *StepError
	if errors.Is(err, context.Canceled) ||
		errors.As(err, &step) && step.Range != l.step.Range { // another step has failed
		shown = context.Canceled
	}
	l.sink(event.Done{ID: l.id, Cached: cached, Err: shown, Time: time.Now()})
	return err
}

// output sends the output and warnings of a step to its line in the progress.
type output struct{ line *line }

// silent returns an output that discards everything.
func silent() output {
	return output{&line{sink: event.Discard}}
}

func (o output) warn(message string) {
	o.line.sink(event.Warning{ID: o.line.id, Message: message, File: o.line.file,
		Line: o.line.step.Range.Start, Time: time.Now()})
}

func (o output) stream(n int) *logger { return &logger{o.line, n} }

// logger writes a command's output to the progress.
type logger struct {
	line   *line
	stream int
}

func (w *logger) Write(p []byte) (int, error) {
	w.line.sink(event.Log{ID: w.line.id, Stream: w.stream, Data: p, Time: time.Now()})
	return len(p), nil
}

// action finds or makes the result of a step. last is set if only the layer is needed.
func (s *Solver) action(ctx context.Context, st *parser.Stage, cur rootfs, step parser.Step,
	l *line, last bool) (stepResult, error) {
	l.start()
	job, err := s.prepare(ctx, st, cur, step, s.nameOf)
	if err != nil {
		return stepResult{}, l.done(false, err)
	}
	defer job.action.close() // ignore the error: its files are read-only or temporary
	d := demand{cache: s.useCache(st), seal: s.sealed[st], last: last}
	if res, ok, err := s.e.results.find(ctx, cur, job, l, d.cache); ok || err != nil {
		return res, l.done(ok, err)
	}
	for attempts := 1; ; attempts++ {
		res, cached, err := s.e.perform(ctx, cur, job, l, d)
		if !startsAgain(err, attempts) {
			return res, l.done(cached, err)
		}
		if err := job.reset(); err != nil {
			return stepResult{}, l.done(false, err)
		}
	}
}

func (s *Solver) useCache(st *parser.Stage) bool {
	if s.e.cfg.NoCache {
		return false
	}
	for _, name := range s.e.cfg.NoCacheStages {
		if strings.EqualFold(name, st.Name) || name == fmt.Sprint(st.Index) {
			return false
		}
	}
	return true
}
