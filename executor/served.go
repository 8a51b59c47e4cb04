package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"

	"github.com/layerbuild/layerbuild/internal/mount"
)

// usesProgram reports whether a program serves some of the step's files, as FUSE programs do.
func usesProgram(s *Spec) bool {
	found := false
	eachProgram(s, func(*mount.Mount) { found = true })
	return found
}

// eachProgram calls f with each mount of the step that a program serves.
func eachProgram(s *Spec, f func(*mount.Mount)) {
	each := func(mounts []mount.Mount) {
		for i := range mounts {
			if mounts[i].Type == mount.FuseOverlay {
				f(&mounts[i])
			}
		}
	}
	each(s.Root)
	if p, ok := s.Action.(*Process); ok {
		for _, m := range p.Mounts {
			if t, ok := m.Source.(Tree); ok {
				each(t.Mounts)
			}
		}
	}
}

// attach returns a copy of s whose served mounts are attached by descriptor. number returns the
// descriptor of s.trees[i] in the process that attaches the mounts.
func (s *Spec) attach(number func(i int) int) *Spec {
	if len(s.trees) == 0 {
		return s
	}
	t := *s
	t.Root = slices.Clone(s.Root)
	if p, ok := s.Action.(*Process); ok {
		q := *p
		q.Mounts = slices.Clone(p.Mounts)
		for i := range q.Mounts {
			if tree, ok := q.Mounts[i].Source.(Tree); ok {
				tree.Mounts = slices.Clone(tree.Mounts)
				q.Mounts[i].Source = tree
			}
		}
		t.Action = &q
	}
	i := 0
	eachProgram(&t, func(m *mount.Mount) {
		*m = mount.Mount{Type: mount.Detached, Source: strconv.Itoa(number(i)), Target: m.Target}
		i++
	})
	return &t
}

// runServed runs a step with files that other programs serve. The programs run outside the step's
// namespaces. If one of them ends before the step, its files are lost, and the step is killed.
func runServed(ctx context.Context, s *Spec, stdout, stderr io.Writer) (Result, error) {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	served := *s
	var servers []*mount.Server
	var watch sync.WaitGroup
	var err error
	eachProgram(s, func(m *mount.Mount) {
		if err != nil {
			return
		}
		var server *mount.Server
		if server, err = mount.Serve(*m); err != nil {
			err = fmt.Errorf("mount the step's file systems: %w", err)
			return
		}
		servers, served.trees = append(servers, server), append(served.trees, server.Tree())
		watch.Go(func() {
			<-server.Done()
			cancel()
		})
	})
	var r Result
	if err == nil {
		r, err = run(within, &served, stdout, stderr)
	}
	var ended []error
	for _, server := range servers {
		if cerr := server.Close(); cerr != nil {
			ended = append(ended, fmt.Errorf("the step's files were lost: %w", cerr))
		}
	}
	watch.Wait() // Close has waited for the ends of the programs
	switch {
	case ctx.Err() != nil:
		return Result{}, ctx.Err()
	case len(ended) > 0:
		return Result{}, errors.Join(ended...)
	}
	return r, err
}
