package analyze

import (
	"context"
	"fmt"
	"runtime"

	"github.com/layerbuild/layerbuild/internal/sorting"
	"golang.org/x/sync/errgroup"
)

// Input is an image to analyze.
type Input struct {
	Image, Digest, Platform, Dockerfile string
	Base                                Base
	// Instructions are the image's history, each with its owner and the layer that it made.
	Instructions []Instruction
	// Layers are the image's layers, the lowest first. Each has an instruction.
	Layers []LayerInput
	// Accept holds patterns of accepted paths, with the syntax of a .dockerignore.
	Accept []string
}

// LayerInput is one layer.
type LayerInput struct {
	Digest, DiffID string
	Compressed     int64 // bytes of the blob; 0: not known
	// Table returns the layer's entries. It is called once, in a goroutine of its own.
	Table func(context.Context) (*Table, error)
}

// Image analyzes an image. At most GOMAXPROCS layers (at least 2) are read at the same time or
// wait to be applied.
func Image(ctx context.Context, in Input) (*Report, error) {
	accept, err := newAcceptor(in.Accept)
	if err != nil {
		return nil, err
	}
	r := &Report{
		Schema: Schema, Image: in.Image, Digest: in.Digest, Platform: in.Platform,
		Dockerfile: in.Dockerfile, Base: in.Base,
		Instructions: in.Instructions, Layers: make([]Layer, len(in.Layers)),
	}
	made := make([]int, len(in.Layers))
	for i, ins := range in.Instructions {
		if ins.Layer >= 0 && ins.Layer < len(r.Layers) {
			l := &r.Layers[ins.Layer]
			l.Instruction, l.Owner = i, ins.Owner
			made[ins.Layer]++
		}
	}
	for i, n := range made {
		if n != 1 {
			return nil, fmt.Errorf("layer %d is made by %d instructions", i, n)
		}
		r.Layers[i].Digest, r.Layers[i].DiffID, r.Layers[i].Compressed = in.Layers[i].Digest,
			in.Layers[i].DiffID, in.Layers[i].Compressed
	}
	b := newBuilder()
	err = tables(ctx, in.Layers, func(i int, t *Table) error { return b.apply(t, &r.Layers[i]) })
	if err != nil {
		return nil, err
	}
	b.finish()
	r.Tree, r.Units, r.Warnings = b.t, b.units, b.warnings
	r.classify()
	accept.mark(r)
	r.sums()
	r.findings()
	r.duplicates()
	r.debris()
	return r, nil
}

// tables reads layers concurrently and passes their tables to use, in order.
func tables(ctx context.Context, layers []LayerInput, use func(int, *Table) error) error {
	g, ctx := errgroup.WithContext(ctx)
	done := make([]chan *Table, len(layers))
	for i := range done {
		done[i] = make(chan *Table, 1)
	}
	// A slot is released when its table has been used, so that the number of tables in memory is
	// limited.
	slots := make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))
	g.Go(func() error {
		for i, l := range layers {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			g.Go(func() error {
				t, err := l.Table(ctx)
				if err != nil {
					return fmt.Errorf("layer %d (%s): %w", i+1, l.Digest, err)
				}
				done[i] <- t
				return nil
			})
		}
		return nil
	})
	g.Go(func() error {
		for i := range layers {
			select {
			case t := <-done[i]:
				if err := use(i, t); err != nil {
					return fmt.Errorf("layer %d (%s): %w", i+1, layers[i].Digest, err)
				}
				<-slots
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	return g.Wait()
}

// sums computes the sums of the units.
func (r *Report) sums() {
	var owners [len(ownerNames)]OwnerSum
	for i := range r.Layers {
		owners[r.Layers[i].Owner].Layers++
	}
	reasons := make([]map[Reason]*ReasonSum, len(r.Layers))
	for i := range r.Units {
		u := &r.Units[i]
		l := &r.Layers[u.Layer]
		for _, s := range []*Sums{&l.Sums, &owners[l.Owner].Sums, &r.Total} {
			s.add(u)
		}
		if !u.Dead() {
			continue
		}
		r.Layers[u.Killer].Killed += u.Bytes
		if reasons[u.Layer] == nil {
			reasons[u.Layer] = map[Reason]*ReasonSum{}
		}
		s := reasons[u.Layer][u.Reason]
		if s == nil {
			s = &ReasonSum{Reason: u.Reason}
			reasons[u.Layer][u.Reason] = s
		}
		s.Bytes += u.Bytes
		s.Units++
	}
	var total [len(reasonNames)]ReasonSum
	for i, m := range reasons {
		l := &r.Layers[i]
		for _, s := range m {
			l.Reasons = append(l.Reasons, *s)
			total[s.Reason].Reason = s.Reason
			total[s.Reason].Bytes += s.Bytes
			total[s.Reason].Units += s.Units
		}
		sortReasons(l.Reasons)
		l.DeadCompressed = l.estimate(l.Dead)
	}
	r.Reasons, r.Owners = []ReasonSum{}, []OwnerSum{}
	for _, s := range total {
		if s.Units > 0 {
			r.Reasons = append(r.Reasons, s)
		}
	}
	sortReasons(r.Reasons)
	for o, s := range owners {
		if s.Layers > 0 {
			s.Owner = Owner(o)
			r.Owners = append(r.Owners, s)
		}
	}
}

func (s *Sums) add(u *Unit) {
	s.Bytes += u.Bytes
	s.Units++
	if u.Dead() {
		s.Dead += u.Bytes
		s.DeadUnits++
		return
	}
	s.Live += u.Bytes
}

func sortReasons(list []ReasonSum) {
	sorting.Func(list, func(a, b ReasonSum) int {
		if a.Bytes != b.Bytes {
			return int(max(-1, min(1, b.Bytes-a.Bytes)))
		}
		return int(a.Reason) - int(b.Reason)
	})
}

// estimate returns the size of n bytes of the layer in its blob, at the compression ratio of the
// whole layer.
func (l *Layer) estimate(n int64) Compressed {
	if l.Tar == 0 || n == 0 {
		return Compressed{Estimate: n != 0}
	}
	// A sparse file can be larger than the tar. Its compressed bytes are at most the whole blob.
	return Compressed{Bytes: int64(min(1, float64(n)/float64(l.Tar)) * float64(l.Compressed)),
		Estimate: true}
}

// Own returns the sums of all owners except the base image: those that the user can change.
func (r *Report) Own() Sums {
	var s Sums
	for _, o := range r.Owners {
		if o.Owner != BaseImage {
			s.Bytes, s.Live, s.Dead = s.Bytes+o.Bytes, s.Live+o.Live, s.Dead+o.Dead
			s.Units, s.DeadUnits = s.Units+o.Units, s.DeadUnits+o.DeadUnits
		}
	}
	return s
}
