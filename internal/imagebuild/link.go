package imagebuild

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// linkPrefix is the prefix of a named context that is the result of another build.
const linkPrefix = "target:"

// link returns the build whose result a named context is; nil: it is none.
func (b *builder) link(context string) *builder {
	name, ok := strings.CutPrefix(b.opts.Source.Contexts[context], linkPrefix)
	if !ok {
		return nil
	}
	for _, other := range b.all.builders {
		if other.opts.Name == name && name != "" {
			return other
		}
	}
	return nil
}

// links returns the builds whose results are named contexts.
func (b *builder) links() []*builder {
	var list []*builder
	for _, name := range slices.Sorted(maps.Keys(b.opts.Source.Contexts)) {
		if other := b.link(name); other != nil {
			list = append(list, other)
		}
	}
	return list
}

// checkLinks returns an error for a build that needs its own result, or that of a build that ends
// before it has one.
func (a *batch) checkLinks() error {
	done := map[*builder]bool{}
	var check func(b *builder, via []string) error
	check = func(b *builder, via []string) error {
		if slices.Contains(via, b.opts.Name) {
			return fmt.Errorf("target %s has itself as a context", b.opts.Name)
		}
		if done[b] {
			return nil
		}
		for _, other := range b.links() {
			if b.runs() && !other.runs() {
				return fmt.Errorf("target %s needs the result of target %s, which is not built: "+
					"only its Dockerfile is checked or listed", b.opts.Name, other.opts.Name)
			}
			if err := check(other, append(slices.Clone(via), b.opts.Name)); err != nil {
				return err
			}
		}
		done[b] = true
		return nil
	}
	for _, b := range a.builders {
		if err := check(b, nil); err != nil {
			return err
		}
	}
	return nil
}

// planFor returns the index of the plan for a platform: the only plan, or that of the platform; -1:
// there is none.
func (b *builder) planFor(p ocispec.Platform) int {
	if len(b.plans) == 1 {
		return 0
	}
	name := parser.FormatPlatform(p)
	return slices.IndexFunc(b.plans, func(p plan) bool {
		return parser.FormatPlatform(p.plan.Target.Platform) == name
	})
}

// linkedConfig returns the function for inputs.Options.Linked.
func (b *builder) linkedConfig() func(parser.ContextInput) (dockerspec.DockerOCIImage, bool) {
	if len(b.links()) == 0 {
		return nil
	}
	return func(c parser.ContextInput) (dockerspec.DockerOCIImage, bool) {
		other := b.link(c.Name)
		if other == nil {
			return dockerspec.DockerOCIImage{}, false
		}
		i := other.planFor(c.Platform)
		if i < 0 {
			return dockerspec.DockerOCIImage{}, true
		}
		return other.plans[i].plan.Result(), true
	}
}

// linkedSolver returns the function for build.SolverOptions.Linked.
func (b *builder) linkedSolver() func(parser.ContextInput) (*build.Solver, bool) {
	if len(b.links()) == 0 {
		return nil
	}
	return func(c parser.ContextInput) (*build.Solver, bool) {
		other := b.link(c.Name)
		if other == nil {
			return nil, false
		}
		return other.attempt.solvers[max(0, other.planFor(c.Platform))], true
	}
}

// isLinked reports whether the result of the build is a context of another one.
func (b *builder) isLinked() bool {
	return slices.ContainsFunc(b.all.builders, func(other *builder) bool {
		return slices.Contains(other.links(), b)
	})
}

// named returns a sink that adds the name of the build to the work that it reports. Images are
// reported as those of all builds: equal work has equal IDs. The IDs of steps have the name
// already, and so have Inputs, which are steps and images.
func (o *Options) named(sink event.Sink) event.Sink {
	if o.Name == "" {
		return sink
	}
	prefix := o.Name + " "
	id := func(id event.ID) event.ID {
		s := string(id)
		if s == "" || strings.HasPrefix(s, prefix) || len(strings.Fields(s)) > 2 {
			return id
		}
		return event.ID(prefix + s)
	}
	return func(e event.Event) {
		switch e := e.(type) {
		case event.Start:
			if !strings.HasPrefix(e.Name, "[") {
				e.Name = "[" + o.Name + "] " + e.Name
			}
			e.ID = id(e.ID)
			sink(e)
		case event.Done:
			e.ID = id(e.ID)
			sink(e)
		case event.Log:
			e.ID = id(e.ID)
			sink(e)
		case event.Progress:
			e.ID = id(e.ID)
			sink(e)
		case event.Warning:
			e.ID = id(e.ID)
			sink(e)
		default:
			sink(e)
		}
	}
}
