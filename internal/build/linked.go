package build

import (
	"context"

	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/parser"
)

// A named context may be the result of another solver, for example in a build of several targets.
// A stage that is based on it has the files, the configuration and the layers of that result, as if
// the result were an image.

// LinkedBase is the part of a result that is the result of another solver.
type LinkedBase struct {
	Layers, History int // the number of layers, and of entries of the history
}

// linked returns the solver whose result an input is, and reports whether there is one.
func (s *Solver) linked(in parser.Input) (*Solver, bool) {
	c, ok := in.(parser.ContextInput)
	if !ok || s.o.Linked == nil {
		return nil, false
	}
	return s.o.Linked(c)
}

// linkedBase returns the file system on which a stage is based that is the result of another
// solver.
func (s *Solver) linkedBase(ctx context.Context, st *parser.Stage, other *Solver) (rootfs, error) {
	r, err := other.result(ctx)
	if err != nil {
		return rootfs{}, err
	}
	list := make([]*layers.Layer, len(r.layers))
	for i, l := range r.layers {
		list[i] = l.Again()
		s.seal(st, list[i])
	}
	r.layers, r.origins = list, nil
	r.linked = &LinkedBase{Layers: len(list), History: len(r.config.History)}
	return r, nil
}
