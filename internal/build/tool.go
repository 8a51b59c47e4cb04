package build

import (
	"context"
	"slices"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
)

// Tool is a program of an image that reads the results of a plan, and is not part of the plan: a
// scanner.
type Tool struct {
	Image parser.ImageInput
	// Actions are performed one after the other, on the files of the image. Mounts of a RUN may be
	// stages of the plan.
	Actions []parser.Action
	// ID and Name are those of the last action in the progress. The other actions have no line.
	ID   event.ID
	Name string
}

// RunTool runs a tool, like steps of a stage of its own: its results are cached. It returns the
// snapshot of the files after the last action.
func (s *Solver) RunTool(ctx context.Context, t Tool) (snapshot.ID, error) {
	got, err := s.o.Inputs.Unpack(ctx, t.Image, "")
	if err != nil {
		return "", err
	}
	st := &parser.Stage{Index: -1, Platform: t.Image.Platform} // no stage of the plan
	cur := rootfs{config: got.Image.Config, key: cache.Key(imageName(got.Image)), top: got.Top}
	for i, a := range t.Actions {
		l := &line{id: t.ID, name: t.Name, sink: event.Discard, file: s.o.File,
			step: parser.Step{Text: t.Name, Action: a}}
		if i == len(t.Actions)-1 {
			l.sink = s.sink
		}
		res, err := s.action(ctx, st, cur, l.step, l, request{}, nil)
		if err != nil {
			return "", err
		}
		cur.key, cur.top = res.key, res.snapshot
	}
	return cur.top, nil
}

// StageFiles returns the snapshot of the files of a stage. It builds the stage unless it has been
// built.
func (s *Solver) StageFiles(ctx context.Context, st *parser.Stage) (snapshot.ID, error) {
	r, err := s.stage(ctx, st)
	return r.top, err
}

// ContextFiles makes a snapshot of the files of the main context, without ignored files.
func (s *Solver) ContextFiles(ctx context.Context) (snapshot.ID, error) {
	f, err := s.o.Inputs.Files(ctx, parser.ContextInput{})
	if err != nil {
		return "", err
	}
	id, _, err := s.contextSnapshot(ctx, f)
	return id, err
}

// LayerOrigins returns, for each layer of a target, the instruction that made it; nil for a layer
// of a base image.
func (t *Target) LayerOrigins() []*Origin {
	out := make([]*Origin, len(t.Layers))
	next := 0
	for i, l := range t.Layers {
		if l.Base != nil && l.Text == "" {
			continue
		}
		at := slices.IndexFunc(t.Origins[next:], func(o Origin) bool {
			return o.Text == l.Text && o.Lines == l.Lines
		})
		if at >= 0 {
			next += at + 1
			out[i] = &t.Origins[next-1]
		}
	}
	return out
}
