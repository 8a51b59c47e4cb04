package build

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/job"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
)

// prediction is the knowledge about a stage before anything is built. With imported results it
// decides which stages the build starts: if the result of the last stage is known, the stages from
// which it copied files are not needed, and their results may be missing. A prediction can be
// wrong. Then a stage is built when a step needs it.
type prediction struct {
	// cur holds the key, the configuration, and as top the snapshot in the local cache; "" if there
	// is none.
	cur   rootfs
	known bool // cur.key is the stage's key
	// missed is the number of the first step that has no result, counting FROM as in
	// Solver.needed; 0 if all steps have results.
	missed int
	// needs lists the stages whose files are needed for results that the cache does not have.
	needs []*parser.Stage
	// steps are set for a Preview.
	steps []StepPreview
}

func (f prediction) name() job.InputName {
	return job.InputName{Key: string(f.cur.key), Result: f.cur.top}
}

// predictor predicts the results of a plan's stages.
type predictor struct {
	// off is set if no predictions are made. They are useless without imported results, and if all
	// results are exported, since then all stages are needed.
	off      bool
	plan     *parser.Plan
	inputs   *inputs.Inputs
	preparer *job.Preparer
	results  *results
	noCache  NoCache
	// describe is set to keep what is known about each step, for a Preview.
	describe bool

	predictions memo.Map[*parser.Stage, prediction]
	start       memo.Map[struct{}, map[*parser.Stage]bool] // the stages that the build starts
}

// startStages returns the stages that the build starts.
func (p *predictor) startStages(ctx context.Context) []*parser.Stage {
	return slices.DeleteFunc(slices.Clone(p.plan.Stages),
		func(st *parser.Stage) bool { return !p.starts(ctx, st) })
}

// starts reports whether the build starts a stage. The stages to start are found once for all
// callers. For a caller whose context ends it returns true.
func (p *predictor) starts(ctx context.Context, st *parser.Stage) bool {
	if p.off {
		return true
	}
	start, err := p.start.Do(ctx, struct{}{}, func() (map[*parser.Stage]bool, error) {
		return p.findStartSet(ctx), context.Cause(ctx)
	})
	return err != nil || start[st]
}

func (p *predictor) findStartSet(ctx context.Context) map[*parser.Stage]bool {
	start := map[*parser.Stage]bool{}
	var add func(*parser.Stage)
	add = func(st *parser.Stage) {
		if start[st] {
			return
		}
		start[st] = true
		for _, other := range p.predict(ctx, st).needs {
			add(other)
		}
	}
	add(p.plan.Target)
	return start
}

// predict returns the prediction of a stage, made once for all callers. One that was made while ctx
// ended may lack keys of files that were not digested; it is not kept.
func (p *predictor) predict(ctx context.Context, st *parser.Stage) prediction {
	if p.off {
		return unpredicted(st)
	}
	f, err := p.predictions.Do(ctx, st, func() (prediction, error) {
		return p.makePrediction(ctx, st), context.Cause(ctx)
	})
	if err != nil {
		return unpredicted(st)
	}
	return f
}

// unpredicted is the prediction of a stage of which nothing is known.
func unpredicted(st *parser.Stage) prediction {
	return prediction{needs: st.Needs, missed: firstStep}
}

// firstStep is the number of the first step after FROM.
const firstStep = 2

// missed returns the number of the first step of a stage that has no result, counting FROM; 0 if
// all steps have results.
func (p *predictor) missed(ctx context.Context, st *parser.Stage) int {
	return p.predict(ctx, st).missed
}

// errUnpredicted is returned for a stage whose key is not known before it is built.
var errUnpredicted = errors.New("not known before it is built")

func (p *predictor) makePrediction(ctx context.Context, st *parser.Stage) prediction {
	unknown := unpredicted(st)
	var f prediction
	if base, ok := st.Base.(parser.StageInput); ok {
		below := p.predict(ctx, base.Stage)
		f.cur, f.needs, f.known = below.cur, []*parser.Stage{base.Stage}, below.known
	} else {
		name, err := fixedName(ctx, p.inputs, st.Base)
		f.known = err == nil && name.Key != ""
		if f.cur.config, err = p.inputs.BaseConfig(ctx, st); err != nil {
			return unknown
		}
		f.cur.key = cache.Key(name.Key)
	}
	if !f.known && !p.describe {
		return unknown
	}
	base := f.cur.config
	f.cur.config = st.Start(base)
	f.known = f.known && !p.noCache.has(st)
	n := firstStep - 1
	for step, err := range st.Steps(base) {
		if err != nil {
			return unknown
		}
		f.cur.config = step.Image
		if step.Action == nil {
			continue
		}
		n++
		hit := false
		of := StepPreview{Step: step, From: inputs.From(step.Action)}
		if f.known {
			f.cur.key, f.cur.top, hit = p.predictStep(ctx, st, f.cur, step, &of)
			f.known = f.cur.key != ""
		}
		if p.describe {
			f.steps = append(f.steps, of)
		}
		if !hit {
			f.missed = cmp.Or(f.missed, n)
			f.needs = append(f.needs, stagesOf(step.Action)...)
		}
	}
	return f
}

// predictStep returns the content key of a step, and the snapshot of its result if the local cache
// has one. The key is "" if it is only known after running the step. hit reports whether there is a
// result, in the local cache or in the places of --cache-from. With p.describe, of gets what is
// known.
func (p *predictor) predictStep(ctx context.Context, st *parser.Stage, cur rootfs,
	step parser.Step, of *StepPreview) (key cache.Key, top snapshot.ID, hit bool) {
	j, err := p.preparer.Job(ctx, st.Platform, cur.key, step.Action,
		func(ctx context.Context, in parser.Input) (job.InputName, error) {
			stage, ok := in.(parser.StageInput)
			if !ok {
				return fixedName(ctx, p.inputs, in)
			}
			f := p.predict(ctx, stage.Stage)
			if !f.known {
				return job.InputName{}, errUnpredicted
			}
			return f.name(), nil
		})
	if err != nil {
		return "", "", false
	}
	defer j.Close() // ignore the error: its files are read-only or temporary
	if j.Key == "" && j.DefKey == "" && j.Local {
		if err := j.Load(ctx); err != nil {
			return "", "", false
		}
	}
	if p.noCache.has(st) {
		return j.Key, "", false
	}
	key, top, hit = p.results.predict(ctx, cur, j)
	if p.describe {
		of.Local = top != ""
		key, hit = p.results.describe(ctx, j, key, of), hit || len(of.Places) > 0
	}
	return cmp.Or(j.Key, key), top, hit
}

// stagesOf returns the stages from which an action takes files.
func stagesOf(a parser.Action) []*parser.Stage {
	var list []*parser.Stage
	for _, in := range inputs.From(a) {
		if st, ok := in.(parser.StageInput); ok {
			list = append(list, st.Stage)
		}
	}
	return list
}
