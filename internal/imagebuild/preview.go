package imagebuild

import (
	"context"
	"errors"
	"time"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/explain"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Preview holds the facts about a build for one platform that are known before it runs.
type Preview struct {
	Platform ocispec.Platform
	Plan     *parser.Plan
	Stages   []build.StagePreview

	ran []explain.Step // of earlier builds
}

// previews adds what is known about the plans to the results. Nothing is built or written.
func (a *batch) previews(ctx context.Context, lazy *layers.Lazy, res []*Result) (err error) {
	shared := build.NewShared(a.jobs)
	for i, b := range a.builders {
		if !b.opts.Preview {
			continue
		}
		b.shared = newShared(&b.opts, b.file.name)
		b.seal(ctx, lazy, &layers.Sealings{})
		e, err1 := b.newEngine(ctx, shared)
		if err1 != nil {
			return b.failed(err1)
		}
		defer func() { err = errors.Join(err, e.Close()) }()
		ran := b.account.Earlier().Steps
		for k, s := range b.attempt.solvers {
			stages, err := s.Preview(ctx)
			if err != nil {
				return b.failed(err)
			}
			p := b.plans[k].plan
			res[i].Previews = append(res[i].Previews,
				Preview{Platform: p.Target.Platform, Plan: p, Stages: stages, ran: ran})
		}
	}
	return nil
}

// Took returns the time that a step took when it last ran on this machine, and false if that is not
// known. The time of the same instruction with other inputs counts, too.
func (f *Preview) Took(st *parser.Stage, s *build.StepPreview) (time.Duration, bool) {
	stage, platform := build.StageName(st), parser.FormatPlatform(st.Platform)
	var took time.Duration
	for i := range f.ran {
		e := &f.ran[i]
		if e.Took == 0 || e.Text != s.Step.Text || e.Platform != platform {
			continue
		}
		if s.Key != "" && e.Key == string(s.Key) {
			return e.Took, true
		}
		if e.Stage == stage {
			took = e.Took // the latest is the last one
		}
	}
	return took, took > 0
}
