package inputs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/layerbuild/layerbuild/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Use is an image that a step takes files from.
type Use struct {
	Image parser.ImageInput
	Lines parser.Range // of the step

	input parser.Input // Image, or the named context that refers to it
}

// Same reports whether a and b are the same image. Either may be a named context that refers to
// one; other inputs are not the same.
func (in *Inputs) Same(a, b parser.Input) bool {
	one, ok := in.imageOf(a)
	other, ok1 := in.imageOf(b)
	return ok && ok1 && keyOf(one) == keyOf(other)
}

// Error is returned for an image that a step takes files from and that is not found.
type Error struct {
	Lines parser.Range // of the step
	Err   error
}

// Error returns the text of Err.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// CheckPlan checks a plan without running anything, so that mistakes in any instruction are found
// before the first command runs. It resolves all images, and returns those that steps take files
// from. stages is the number of stages in the Dockerfile. Of several errors it returns the first
// one of the file; that of a step's image is an *Error.
func (in *Inputs) CheckPlan(ctx context.Context, plan *parser.Plan, stages int) ([]Use, error) {
	type base struct {
		config dockerspec.DockerOCIImage
		err    error
	}
	// Resolve all base images at once. Check then finds them resolved.
	bases := make(map[*parser.Stage]base, len(plan.Stages))
	var mu sync.Mutex
	var g errgroup.Group
	for _, st := range plan.Stages {
		g.Go(func() error {
			config, err := in.BaseConfig(ctx, st)
			mu.Lock()
			defer mu.Unlock()
			bases[st] = base{config, similar(plan, stages, st.Base, err)}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var uses []Use
	err := plan.Check(
		func(st *parser.Stage) (dockerspec.DockerOCIImage, error) {
			return bases[st].config, bases[st].err
		},
		func(_ *parser.Stage, step parser.Step) { uses = append(uses, in.usesOf(step)...) },
	)
	if missing := in.resolveAll(ctx, plan, stages, above(uses, err)); missing != nil {
		err = missing
	}
	if err == nil {
		err = plan.Violations()
	}
	return uses, err
}

// BaseConfig returns the configuration that a stage starts from. It is empty if that is another
// stage, whose configuration is not known before its steps are planned, or a context without one.
func (in *Inputs) BaseConfig(ctx context.Context,
	st *parser.Stage) (dockerspec.DockerOCIImage, error) {
	if config, ok := in.linked(st.Base); ok {
		return config, nil
	}
	ref, ok := in.imageOf(st.Base)
	if !ok {
		return dockerspec.DockerOCIImage{}, nil
	}
	img, err := in.Resolve(ctx, ref)
	if err != nil {
		return dockerspec.DockerOCIImage{}, err
	}
	return img.Config, nil
}

// above returns the images that steps before a mistake take files from: all of them if err is nil.
func above(uses []Use, err error) []Use {
	if err == nil {
		return uses
	}
	mistake, ok := errors.AsType[*parser.Error](err)
	return slices.DeleteFunc(slices.Clone(uses), func(u Use) bool {
		return !ok || u.Lines.Start >= mistake.Range.Start
	})
}

// imageOf returns the image of an input, which names it or a context that refers to it. It reports
// whether there is one.
func (in *Inputs) imageOf(input parser.Input) (parser.ImageInput, bool) {
	switch input := input.(type) {
	case parser.ImageInput:
		return input, true
	case parser.ContextInput:
		return in.ContextImage(input)
	}
	return parser.ImageInput{}, false
}

// similar adds a hint to the error of an image that was not found: a stage with a similar name, or
// a stage's number.
func similar(plan *parser.Plan, stages int, in parser.Input, err error) error {
	img, ok := in.(parser.ImageInput)
	if !ok || err == nil {
		return err
	}
	if n, numErr := strconv.Atoi(img.Ref); numErr == nil && n < stages {
		return fmt.Errorf("%w (FROM takes the name of a stage, not its number)", err)
	}
	if name := plan.Similar(img.Ref); name != "" {
		return fmt.Errorf("%w (did you mean %s?)", err, name)
	}
	return err
}

// usesOf returns the images that a step takes files from.
func (in *Inputs) usesOf(step parser.Step) []Use {
	var list []Use
	for _, input := range From(step.Action) {
		if img, ok := in.imageOf(input); ok {
			list = append(list, Use{img, step.Range, input})
		}
	}
	return list
}

// From returns the inputs that an action takes files from.
func From(a parser.Action) []parser.Input {
	switch a := a.(type) {
	case *parser.Copy:
		return []parser.Input{a.From}
	case *parser.Run:
		var list []parser.Input
		for _, m := range a.Mounts {
			list = append(list, m.From)
		}
		return list
	}
	return nil
}

// resolveAll resolves images in parallel. Of several errors it returns the first one of the file.
func (in *Inputs) resolveAll(ctx context.Context, plan *parser.Plan, stages int, uses []Use) error {
	errs := make([]error, len(uses))
	var g errgroup.Group
	for i, use := range uses {
		g.Go(func() error {
			img, err := in.Resolve(ctx, use.Image)
			if err != nil {
				errs[i] = &Error{use.Lines, similar(plan, stages, use.input, err)}
				return nil
			}
			if name, ok := use.input.(parser.ImageInput); ok {
				plan.Resolved(name, use.Lines, img.Platform)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
