package build

import (
	"cmp"
	"context"
	"slices"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/job"
	"github.com/layerbuild/layerbuild/parser"
)

// StagePreview holds the facts about a stage that are known before it is built.
type StagePreview struct {
	Stage *parser.Stage
	Steps []StepPreview
}

// StepPreview holds the facts about a step with an action that are known before it runs.
type StepPreview struct {
	Step parser.Step
	// Number is the number of the step in its stage, as the progress and an explain.Step have it.
	Number int
	// Key is the content key, and DefKey the definition key. A key is "" if it is only known after
	// an earlier step has run; see package job.
	Key, DefKey cache.Key
	// From are the inputs from which the step takes files.
	From []parser.Input
	// Local is set if this machine has the result.
	Local bool
	// Places are the caches of other machines that have a result.
	Places []string
}

// Preview returns what is known about the stages of the plan. Nothing is built, and no layer is
// fetched: it reads the files of contexts, to digest them, and asks the caches for keys.
func (s *Solver) Preview(ctx context.Context) ([]StagePreview, error) {
	p := &predictor{plan: s.plan, inputs: s.o.Inputs, preparer: s.preparer, results: s.results,
		noCache: s.o.NoCache, describe: true}
	list := make([]StagePreview, len(s.plan.Stages))
	for i, st := range s.plan.Stages {
		steps := slices.Clone(p.predict(ctx, st).steps)
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		for k := range steps {
			steps[k].Number = stepNumber(st, k+2) // FROM is number 1
		}
		list[i] = StagePreview{Stage: st, Steps: steps}
	}
	return list, nil
}

// describe sets the keys of a job and the places that have a result of it. It returns the content
// key: key if that is known, or otherwise that of a result under the definition key. Such a result
// is one on other machines, also if it may not be used on this one, which has another result of a
// stage from which the job takes files.
func (r *results) describe(ctx context.Context, j *job.Job, key cache.Key,
	of *StepPreview) cache.Key {
	of.DefKey, of.Key = j.DefKey, cmp.Or(j.Key, key)
	for _, k := range []cache.Key{of.Key, j.DefKey} {
		if k == "" {
			continue
		}
		for _, f := range r.imports.Find(ctx, k) {
			if !r.keepsEpoch(f.Layer.Epoch()) || f.Created.Before(r.notBefore) {
				continue
			}
			of.Key = cmp.Or(of.Key, f.ContentKey())
			if !slices.Contains(of.Places, f.From.Name) {
				of.Places = append(of.Places, f.From.Name)
			}
		}
	}
	return of.Key
}
