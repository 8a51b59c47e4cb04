package build

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/explain"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/job"
	"github.com/layerbuild/layerbuild/parser"
)

// Account collects what the steps of a build were made from, and has those of earlier builds. It is
// safe for concurrent use.
type Account struct {
	// Earlier returns the earlier builds. It is called when the first step runs.
	Earlier func() explain.History

	mu       sync.Mutex
	earlier  *explain.History
	ran      []explain.Step
	outcomes []explain.Outcome
}

// Ran returns the steps that have run, in the order in which they ended.
func (a *Account) Ran() []explain.Step {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ran
}

// history returns the earlier builds, which are read once.
func (a *Account) history() *explain.History {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.earlier == nil {
		h := a.Earlier()
		a.earlier = &h
	}
	return a.earlier
}

// Outcomes returns what happened to the steps, in the order in which they ended.
func (a *Account) Outcomes() []explain.Outcome {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.outcomes
}

// stepBefore is the step that made a file system, for the explanation of the next one.
type stepBefore struct {
	number int  // 0: the stage has had no step
	ran    bool // in this build
	// stage is the name of the stage on which this one is based, if number is 0; "": none.
	stage string
}

// explained is a step that is explained if it runs.
type explained struct {
	s      *Solver
	st     *parser.Stage
	cur    *rootfs
	step   *parser.Step
	line   *line
	number int

	record *explain.Step // set when the step runs
	began  time.Time     // when it began to run
	reason explain.Reason
}

// runs is called when the step of a job will run. It tells the user why, and keeps what the result
// depends on.
func (x *explained) runs(ctx context.Context, j *job.Job, useCache bool) {
	if x == nil {
		return
	}
	s := x.s
	r := &explain.Step{Stage: StageName(x.st), Number: x.number,
		Platform: parser.FormatPlatform(x.st.Platform), Line: x.step.Range.Start,
		Text: x.step.Text, Key: string(j.Key), Parent: string(x.cur.key)}
	x.base(ctx, r)
	j.Depends(r)
	x.variables(r)
	again := x.record != nil // the inputs changed while they were read
	x.record, x.began = r, time.Now()
	switch {
	case !useCache && s.o.NoCache.All:
		x.reason = explain.Reason{Code: explain.NoCache, Text: "--no-cache"}
	case !useCache:
		x.reason = explain.Reason{Code: explain.NoCache, Text: "--no-cache-filter"}
	case s.results.expired(j):
		x.reason = explain.Reason{Code: explain.Expired,
			Text: "its earlier result is older than --cache-ttl"}
	default:
		before := x.cur.before
		x.reason = s.o.Account.history().Explain(r, explain.Place{Texts: x.st.Texts,
			Above: before.number, AboveRan: before.ran, OnStage: before.stage})
	}
	if x.reason.Code == explain.First || again {
		return // the first build of a Dockerfile has this reason for each step
	}
	x.line.sink(event.Reason{ID: x.line.id, Text: x.reason.Text,
		New: x.reason.Code == explain.New, Time: time.Now()})
}

// base adds the base image of the first step of a stage.
func (x *explained) base(ctx context.Context, r *explain.Step) {
	if x.cur.before.number > 0 {
		return
	}
	in, ok := x.st.Base.(parser.ImageInput)
	if !ok {
		return
	}
	if img, err := x.s.o.Inputs.Resolve(ctx, in); err == nil {
		r.Parts = append(r.Parts, explain.Part{Kind: explain.Base, Name: nameOfImage(img),
			Value: img.Descriptor.Digest.String()})
	}
}

func nameOfImage(img *image.Image) string {
	name, _, _ := strings.Cut(img.Name, "@")
	return name
}

// variables adds the variables that are visible to the instruction, and tells arguments from
// variables of the image.
func (x *explained) variables(r *explain.Step) {
	args := map[string]string{}
	for _, a := range x.step.Args {
		args[a.Name] = a.Value
	}
	if _, ok := x.step.Action.(*parser.Run); ok {
		for i := range r.Parts {
			if p := &r.Parts[i]; p.Kind == explain.Arg {
				if _, declared := args[p.Name]; !declared {
					p.Kind = explain.Env
				}
			}
		}
		return
	}
	r.Parts = append(r.Parts, explain.Part{Kind: explain.Setting, Name: "WORKDIR",
		Value: explain.Sum(x.step.Image.Config.WorkingDir)})
	for _, a := range x.step.Args {
		r.Parts = append(r.Parts, explain.Part{Kind: explain.Arg, Name: a.Name,
			Value: explain.Sum(a.Value)})
	}
	for _, kv := range x.step.Image.Config.Env {
		name, value, _ := strings.Cut(kv, "=")
		r.Parts = append(r.Parts, explain.Part{Kind: explain.Env, Name: name,
			Value: explain.Sum(value)})
	}
}

// ended records what happened to the step.
func (x *explained) ended(res stepResult, err error) {
	if x == nil {
		return
	}
	cached := res.cached
	out := explain.Outcome{Step: x.line.name, Line: x.step.Range.Start, State: explain.Ran,
		Key: string(res.key)}
	switch {
	case err != nil:
		out.State = explain.Failed
	case cached:
		out.State = explain.Cached
	}
	a := x.s.o.Account
	a.mu.Lock()
	defer a.mu.Unlock()
	if out.State != explain.Cached && x.record != nil {
		out.Reason = &x.reason
	}
	// After a repair the steps begin again, and those that have run are in the cache.
	i := slices.IndexFunc(a.outcomes, func(o explain.Outcome) bool { return o.Step == out.Step })
	switch {
	case i < 0:
		a.outcomes = append(a.outcomes, out)
	case !cached:
		a.outcomes[i] = out
	}
	if out.State == explain.Ran && x.record != nil {
		x.record.Took = time.Since(x.began)
		a.ran = append(a.ran, *x.record)
	}
}

// StageName returns the name of a stage or, if it has none, its number.
func StageName(st *parser.Stage) string {
	if st.Name != "" {
		return st.Name
	}
	return fmt.Sprint(st.Index)
}

// explain returns what explains a step, or nil if steps are not explained.
func (s *Solver) explain(st *parser.Stage, cur *rootfs, step *parser.Step, n int,
	l *line) *explained {
	if s.o.Account == nil {
		return nil
	}
	return &explained{s: s, st: st, cur: cur, step: step, line: l, number: stepNumber(st, n)}
}

// expired reports whether there is a result of a job that is too old to be used.
func (r *results) expired(j *job.Job) bool {
	rec, ok := r.records.Get(j.Key)
	return ok && rec.Created.Before(r.notBefore)
}
