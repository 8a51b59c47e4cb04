package build

import (
	"cmp"
	"context"
	"slices"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// stageResult returns the snapshot of a stage's files, which identifies this result of the stage.
// It returns nil for other inputs.
func stageResult(f *inputs.Files) []snapshot.ID {
	if !f.Stage {
		return nil
	}
	return []snapshot.ID{resultOf(*f.Snapshot)}
}

// scratchResult names the result of a stage without files in job.inputs, where "" means unknown.
const scratchResult snapshot.ID = "scratch"

// resultOf returns the name of a stage's result: its snapshot or, for the empty file system,
// scratchResult.
func resultOf(top snapshot.ID) snapshot.ID { return cmp.Or(top, scratchResult) }

// files opens an input. It builds a stage first.
func (s *Solver) files(ctx context.Context, in parser.Input) (*inputs.Files, error) {
	st, ok := in.(parser.StageInput)
	if !ok {
		return s.o.Inputs.Files(ctx, in)
	}
	r, err := s.stage(ctx, st.Stage)
	if err != nil {
		return nil, err
	}
	f, err := s.o.Inputs.OfSnapshot(ctx, r.top)
	if err != nil {
		return nil, err
	}
	f.Stage = true
	return f, nil
}

// nameOf names an input without opening it. It first builds a stage, unless the cache has all
// results that are needed of the stage.
func (s *Solver) nameOf(ctx context.Context, in parser.Input) (inputName, error) {
	st, ok := in.(parser.StageInput)
	if !ok {
		return fixedName(ctx, s.o.Inputs, in)
	}
	if f := s.predictor.predict(ctx, st.Stage); f.known && !s.predictor.starts(ctx, st.Stage) {
		return f.name(), nil
	}
	r, err := s.stage(ctx, st.Stage)
	if err != nil {
		return inputName{}, err
	}
	return inputName{key: string(r.key), result: resultOf(r.top)}, nil
}

// fixedName names an input that is not a stage.
func fixedName(ctx context.Context, from *inputs.Inputs, in parser.Input) (inputName, error) {
	switch in := in.(type) {
	case parser.Scratch:
		return inputName{key: scratchKey}, nil
	case parser.ContextInput:
		if img, ok := from.ContextImage(in); ok {
			return fixedName(ctx, from, img)
		}
		return inputName{}, nil
	case parser.ImageInput:
		img, err := from.Resolve(ctx, in)
		if err != nil {
			return inputName{}, err
		}
		return inputName{key: imageName(img)}, nil
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
	return r, nil
}

// needsBase reports whether a step of a stage, or of a stage that is based on it, will probably
// run, and so needs the files of the base image. If it is wrong, they are unpacked when they are
// needed. Steps that can run on an outline do not need them.
func (s *Solver) needsBase(ctx context.Context, st *parser.Stage) bool {
	for _, other := range s.plan.Stages {
		if slices.Contains(other.Lineage(), st) && s.total(ctx, other) > 0 &&
			!s.needed(ctx, other, 2).onOutline && !s.predictor.hits(ctx, other) {
			return true
		}
	}
	return false
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
		key, err := makeKey(scratchKey, "from context", nil, content.String(),
			epochKey(s.epoch))
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
		id, _, err := s.snapshotOf(ctx, f, m, false)
		if !startsAgain(err, attempts) {
			return id, m.Digest, err
		}
	}
}

// snapshotOf makes a snapshot of the matched file or directory of a context, so that it can be
// mounted. place is its path in the snapshot; a directory is the snapshot's root. If whole is set,
// the root gets the mode and the attributes of the directory, and the digest of the match must
// cover them.
func (s *Solver) snapshotOf(ctx context.Context, f *inputs.Files, m *source.Match,
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
	j, err := s.preparer.context(f, m)
	if err != nil {
		return "", "", err
	}
	id, err = s.engine.onNothing(ctx, j)
	return id, place, err
}

// context prepares the copy of files of a context to an empty file system.
func (p *preparer) context(f *inputs.Files, m *source.Match) (*job, error) {
	key, err := makeKey(scratchKey, "context", nil, string(m.Digest), epochKey(p.epoch))
	if err != nil {
		return nil, err
	}
	return &job{key: key, action: &copyAction{w: p.worker, from: f, match: m,
		copy: &parser.Copy{Dest: "/"}}}, nil
}
