package build

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
)

// forecast is what can be told of a stage without building anything. With results of another machine it decides which
// stages are looked at at all: an image whose last stage is known needs none of the stages that it was copied from, and
// there may be no results of those. It may err; then a stage is built when somebody asks for it.
type forecast struct {
	// cur has the key, the configuration, and as its top the snapshot in the local cache; "" if there is none.
	cur   rootfs
	known bool // cur.key is the stage's key
	// needs are the stages whose files are needed for what the cache does not have.
	needs []*parser.Stage
}

func (f forecast) name() inputName { return inputName{key: string(f.cur.key), result: f.cur.top} }

// needed returns the stages to begin with.
func (s *solver) needed(ctx context.Context) []*parser.Stage {
	if !s.forecasting() {
		return s.plan.Stages
	}
	need := s.neededSet(ctx)
	return slices.DeleteFunc(slices.Clone(s.plan.Stages), func(st *parser.Stage) bool { return !need[st] })
}

// needs reports whether a stage is one to begin with.
func (s *solver) needs(ctx context.Context, st *parser.Stage) bool {
	return !s.forecasting() || s.neededSet(ctx)[st]
}

func (s *solver) neededSet(ctx context.Context) map[*parser.Stage]bool {
	s.needOnce.Do(func() { s.need = s.findNeeded(ctx) })
	return s.need
}

func (s *solver) findNeeded(ctx context.Context) map[*parser.Stage]bool {
	need := map[*parser.Stage]bool{}
	var add func(*parser.Stage)
	add = func(st *parser.Stage) {
		if need[st] {
			return
		}
		need[st] = true
		for _, other := range s.foresee(ctx, st).needs {
			add(other)
		}
	}
	add(s.plan.Target)
	return need
}

// forecasting says whether it is worth while. When the results of all stages are to be exported all are needed.
func (s *solver) forecasting() bool { return !s.e.imports.Empty() && !s.b.exportsAll() }

func (s *solver) foresee(ctx context.Context, st *parser.Stage) forecast {
	if !s.forecasting() {
		return forecast{}
	}
	f, err := s.forecasts.Do(ctx, st, func() (forecast, error) { return s.makeForecast(ctx, st), nil })
	if err != nil {
		return forecast{needs: st.Needs}
	}
	return f
}

// errUnforeseen is what is said of a stage whose key is not known yet.
var errUnforeseen = errors.New("not known before it is built")

func (s *solver) makeForecast(ctx context.Context, st *parser.Stage) forecast {
	unknown := forecast{needs: st.Needs}
	var f forecast
	if base, ok := st.Base.(parser.StageInput); ok {
		below := s.foresee(ctx, base.Stage)
		if !below.known {
			return unknown
		}
		f.cur, f.needs = below.cur, []*parser.Stage{base.Stage}
	} else {
		name, err := s.fixedName(ctx, st.Base)
		if err != nil || name.key == "" {
			return unknown
		}
		if f.cur.config, err = s.baseConfig(ctx, st); err != nil {
			return unknown
		}
		f.cur.key = cache.Key(name.key)
	}
	base := f.cur.config
	f.cur.config = st.Start(base)
	f.known = s.useCache(st)
	for step, err := range st.Steps(base) {
		if err != nil {
			return unknown
		}
		f.cur.config = step.Image
		if step.Action == nil {
			continue
		}
		hit := false
		if f.known {
			f.cur.key, f.cur.top, hit = s.foreseeStep(ctx, st, f.cur, step)
			f.known = f.cur.key != ""
		}
		if !hit {
			f.needs = append(f.needs, stagesOf(step.Action)...)
		}
	}
	return f
}

// foreseeStep returns the content key of a step, or "" if the step must be run to know it, and the snapshot of its
// result if the local cache has one. hit reports whether there is a result, here or in the places of --cache-from.
func (s *solver) foreseeStep(ctx context.Context, st *parser.Stage, cur rootfs, step parser.Step) (key cache.Key, top snapshot.ID, hit bool) {
	j, err := s.prepare(ctx, st, cur, step, func(ctx context.Context, in parser.Input) (inputName, error) {
		stage, ok := in.(parser.StageInput)
		if !ok {
			return s.fixedName(ctx, in)
		}
		f := s.foresee(ctx, stage.Stage)
		if !f.known {
			return inputName{}, errUnforeseen
		}
		return f.name(), nil
	})
	if err != nil {
		return "", "", false
	}
	defer j.close()
	if j.key == "" && j.quick == "" && j.local {
		if err := j.load(ctx); err != nil {
			return "", "", false
		}
	}
	if !s.useCache(st) {
		return j.key, "", false
	}
	key, top, hit = s.e.recorded(cur, j)
	return cmp.Or(j.key, key), top, hit
}

// stagesOf are the stages that an action takes files from.
func stagesOf(a parser.Action) []*parser.Stage {
	var list []*parser.Stage
	add := func(in parser.Input) {
		if st, ok := in.(parser.StageInput); ok {
			list = append(list, st.Stage)
		}
	}
	switch a := a.(type) {
	case *parser.Copy:
		add(a.From)
	case *parser.Run:
		for _, m := range a.Mounts {
			add(m.From)
		}
	}
	return list
}
