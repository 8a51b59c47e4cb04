package build

import (
	"context"
	"slices"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/job"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// opener opens the inputs of a solver's jobs.
type opener struct{ s *Solver }

// Files opens an input. It builds a stage, or the result of another solver, first.
func (o opener) Files(ctx context.Context, in parser.Input) (*inputs.Files, error) {
	r, ok, err := o.s.built(ctx, in)
	if err != nil {
		return nil, err
	}
	if !ok {
		return o.s.o.Inputs.Files(ctx, in)
	}
	f, err := o.s.o.Inputs.OfSnapshot(ctx, r.top)
	if err != nil {
		return nil, err
	}
	f.Stage = true
	return f, nil
}

// built builds an input that is a stage or the result of another solver. ok is false for other
// inputs.
func (s *Solver) built(ctx context.Context, in parser.Input) (r rootfs, ok bool, err error) {
	if st, ok := in.(parser.StageInput); ok {
		r, err = s.stage(ctx, st.Stage)
		return r, true, err
	}
	if other, ok := s.linked(in); ok {
		r, err = other.result(ctx)
		return r, true, err
	}
	return rootfs{}, false, nil
}

// nameOf names an input without opening it. It first builds a stage, unless the cache has all
// results that are needed of the stage.
func (s *Solver) nameOf(ctx context.Context, in parser.Input) (job.InputName, error) {
	if st, ok := in.(parser.StageInput); ok {
		f := s.predictor.predict(ctx, st.Stage)
		if f.known && !s.predictor.starts(ctx, st.Stage) {
			return f.name(), nil
		}
	}
	r, ok, err := s.built(ctx, in)
	if err != nil {
		return job.InputName{}, err
	}
	if !ok {
		return fixedName(ctx, s.o.Inputs, in)
	}
	return job.InputName{Key: string(r.key), Result: job.ResultOf(r.top)}, nil
}

// fixedName names an input that is not a stage.
func fixedName(ctx context.Context, from *inputs.Inputs, in parser.Input) (job.InputName, error) {
	switch in := in.(type) {
	case parser.Scratch:
		return job.InputName{Key: job.ScratchKey}, nil
	case parser.ContextInput:
		if img, ok := from.ContextImage(in); ok {
			return fixedName(ctx, from, img)
		}
		return job.InputName{}, nil
	case parser.ImageInput:
		img, err := from.Resolve(ctx, in)
		if err != nil {
			return job.InputName{}, err
		}
		return job.InputName{Key: imageName(img)}, nil
	}
	panic("unreachable")
}

func imageName(img *image.Image) string { return "image " + img.ChainID().String() }

// from returns the file system of an image on which a stage is based.
func (s *Solver) from(ctx context.Context, st *parser.Stage, in parser.ImageInput,
	ref string) (rootfs, error) {
	unpack := s.o.Inputs.Unpack
	if !s.needsBase(ctx, st) {
		unpack = s.o.Inputs.UnpackLater
	}
	got, err := unpack(ctx, in, s.stageLabel(ctx, st, 1)+" FROM "+ref)
	if err != nil {
		return rootfs{}, err
	}
	img := got.Image
	r := rootfs{config: img.Config, key: cache.Key(imageName(img)), top: got.Top}
	for i, d := range img.Manifest.Layers {
		r.layers = append(r.layers, &layers.Layer{Base: img, Index: i, Descriptor: d,
			DiffID: img.Config.RootFS.DiffIDs[i]})
	}
	s.results.shareOutline(r.top, r.layers)
	return r, nil
}

// needsBase reports whether the files of a stage's base image will probably be needed: by a step of
// this stage, of a stage that is based on it or on the same image, or by a COPY --from of the
// image. If it is wrong, they are unpacked when they are needed. Steps that can run on an outline
// do not need them.
func (s *Solver) needsBase(ctx context.Context, st *parser.Stage) bool {
	for _, other := range s.plan.Stages {
		line := other.Lineage()
		if !slices.Contains(line, st) && !s.o.Inputs.Same(line[len(line)-1].Base, st.Base) ||
			s.total(ctx, other) == 0 {
			continue
		}
		n := s.predictor.missed(ctx, other)
		if n > 0 && !s.needed(ctx, other, n).onOutline {
			return true
		}
	}
	return slices.ContainsFunc(s.o.Prefetch, func(use inputs.Use) bool {
		return s.predictor.off && s.o.Inputs.Same(use.Image, st.Base)
	})
}

// baseImage returns the file system of an image or a context on which a stage is based.
func (s *Solver) baseImage(ctx context.Context, st *parser.Stage, in parser.Input) (rootfs, error) {
	switch in := in.(type) {
	case parser.ImageInput:
		return s.from(ctx, st, in, in.Ref)
	case parser.ContextInput:
		if img, ok := s.o.Inputs.ContextImage(in); ok {
			return s.from(ctx, st, img, in.Name)
		}
		f, err := s.o.Inputs.Files(ctx, in)
		if err != nil {
			return rootfs{}, err
		}
		id, content, err := s.contextSnapshot(ctx, f)
		if err != nil {
			return rootfs{}, err
		}
		l := &layers.Layer{Snapshot: id, Text: "FROM " + in.Name, Lines: st.Range}
		s.seal(st, l)
		key, err := job.MakeKey(job.ScratchKey, "from context", nil, content.String(),
			job.EpochKey(s.epoch))
		if err != nil {
			return rootfs{}, err
		}
		created, err := s.firstTime(ctx, st, key, id)
		if err != nil {
			return rootfs{}, err
		}
		r := rootfs{key: key, top: id, layers: []*layers.Layer{l},
			origins: []Origin{{st, l.Text, l.Lines}}}
		r.config.History = []ocispec.History{{Created: &created, CreatedBy: "FROM " + in.Name,
			Comment: parser.Comment}}
		return r, nil
	}
	panic("unreachable")
}

// contextSnapshot makes a snapshot of a context, without ignored files, and returns the digest of
// its content.
func (s *Solver) contextSnapshot(ctx context.Context,
	f *inputs.Files) (snapshot.ID, digest.Digest, error) {
	for attempts := 1; ; attempts++ {
		m, err := f.Tree.Match(ctx, source.Query{Patterns: []string{"/"},
			Literal: true, Epoch: s.epoch})
		if err != nil {
			return "", "", err
		}
		id, _, err := opener{s}.SnapshotOf(ctx, f, m, false)
		if !job.StartsAgain(err, attempts) {
			return id, m.Digest, err
		}
	}
}

// SnapshotOf makes a snapshot of the matched file or directory of a context: see job.Opener.
func (o opener) SnapshotOf(ctx context.Context, f *inputs.Files, m *source.Match,
	whole bool) (id snapshot.ID, place string, err error) {
	place = "/"
	if len(m.Items) == 1 && !m.Items[0].Contents {
		place += m.Items[0].Target
	}
	if whole && len(m.Items) == 1 && m.Items[0].Contents {
		dir := *m
		dir.Items = slices.Clone(m.Items)
		dir.Items[0].Contents = false
		m = &dir
	}
	j, err := o.s.preparer.Context(f, m)
	if err != nil {
		return "", "", err
	}
	id, err = o.s.engine.onNothing(ctx, j)
	return id, place, err
}
