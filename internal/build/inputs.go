package build

import (
	"cmp"
	"context"
	"slices"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// files is a file tree that a COPY, an ADD or a mount takes files from.
type files struct {
	tree *source.Tree
	// snapshot is the snapshot that holds the files of a stage or an image; nil for a context.
	snapshot *snapshot.ID
	// stage is set for the files of a stage.
	stage bool
}

// results returns the snapshot of a stage's files, which identifies this result of the stage, and
// nothing for other inputs.
func (f *files) results() []snapshot.ID {
	if !f.stage {
		return nil
	}
	return []snapshot.ID{resultOf(*f.snapshot)}
}

// resultOf returns the name of a stage's result: its snapshot, or "scratch" for the empty file
// system, since "" means unknown.
func resultOf(top snapshot.ID) snapshot.ID { return cmp.Or(top, "scratch") }

// files opens an input. It builds a stage first.
func (s *solver) files(ctx context.Context, in parser.Input) (*files, error) {
	switch in := in.(type) {
	case parser.StageInput:
		r, err := s.stage(ctx, in.Stage)
		if err != nil {
			return nil, err
		}
		f, err := s.b.snapshotFiles(ctx, r)
		if err != nil {
			return nil, err
		}
		f.stage = true
		return f, nil
	case parser.ImageInput:
		r, err := s.b.unpack(ctx, in, "")
		if err != nil {
			return nil, err
		}
		return s.b.snapshotFiles(ctx, r)
	case parser.ContextInput:
		return s.contextFiles(ctx, in)
	case parser.Scratch:
		return s.b.snapshotFiles(ctx, rootfs{key: "scratch"})
	}
	panic("unreachable")
}

// nameOf names an input without opening it. It builds a stage first, unless the cache has all
// results that are needed of the stage.
func (s *solver) nameOf(ctx context.Context, in parser.Input) (inputName, error) {
	st, ok := in.(parser.StageInput)
	if !ok {
		return s.fixedName(ctx, in)
	}
	if f := s.predict(ctx, st.Stage); f.known && !s.needs(ctx, st.Stage) {
		return f.name(), nil
	}
	r, err := s.stage(ctx, st.Stage)
	if err != nil {
		return inputName{}, err
	}
	return inputName{key: string(r.key), result: resultOf(r.top)}, nil
}

// fixedName is nameOf for inputs that are not stages.
func (s *solver) fixedName(ctx context.Context, in parser.Input) (inputName, error) {
	switch in := in.(type) {
	case parser.Scratch:
		return inputName{key: "scratch"}, nil
	case parser.ContextInput:
		if img, ok := s.in.ContextImage(in); ok {
			return s.fixedName(ctx, img)
		}
		return inputName{}, nil
	case parser.ImageInput:
		img, err := s.in.Resolve(ctx, in)
		if err != nil {
			return inputName{}, err
		}
		return inputName{key: imageName(img)}, nil
	}
	panic("unreachable")
}

func imageName(img *image.Image) string { return "image " + img.ChainID().String() }

// snapshotFiles opens a snapshot for reading.
func (b *builder) snapshotFiles(ctx context.Context, r rootfs) (*files, error) {
	tree, err := b.in.Tree(ctx, r.top)
	if err != nil {
		return nil, err
	}
	return &files{tree: tree, snapshot: &r.top}, nil
}

// contextFiles opens a build context.
func (s *solver) contextFiles(ctx context.Context, in parser.ContextInput) (*files, error) {
	if in.Name == "" {
		return &files{tree: s.b.context.Tree()}, nil
	}
	if img, ok := s.in.ContextImage(in); ok {
		r, err := s.b.unpack(ctx, img, "")
		if err != nil {
			return nil, err
		}
		return s.b.snapshotFiles(ctx, r)
	}
	c, err := s.in.Named(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	return &files{tree: c.Tree()}, nil
}

// contextConfig returns the configuration of a context that a stage is based on: that of an image,
// or an empty one.
func (s *solver) contextConfig(ctx context.Context, in parser.ContextInput) (imageConfig, error) {
	img, ok := s.in.ContextImage(in)
	if !ok {
		return imageConfig{}, nil
	}
	got, err := s.in.Resolve(ctx, img)
	if err != nil {
		return imageConfig{}, err
	}
	return got.Config, nil
}

// unpack makes the snapshots of an image's layers, once a build. name is the line of the progress;
// with "" it is made from the image's name.
func (b *builder) unpack(ctx context.Context, in parser.ImageInput, name string) (rootfs, error) {
	got, err := b.in.Unpack(ctx, in, name)
	if err != nil {
		return rootfs{}, err
	}
	img := got.Image
	r := rootfs{config: img.Config, key: cache.Key(imageName(img)), top: got.Top}
	for i, d := range img.Manifest.Layers {
		r.layers = append(r.layers, &layers.Layer{Base: img, Index: i, Descriptor: d, DiffID: img.Config.RootFS.DiffIDs[i]})
	}
	return r, nil
}

// baseImage returns the file system of an image or a context that a stage is based on.
func (s *solver) baseImage(ctx context.Context, st *parser.Stage, in parser.Input) (rootfs, error) {
	switch in := in.(type) {
	case parser.ImageInput:
		return s.b.unpack(ctx, in, s.stageLabel(st, 1)+" FROM "+in.Ref)
	case parser.ContextInput:
		if img, ok := s.in.ContextImage(in); ok {
			return s.b.unpack(ctx, img, s.stageLabel(st, 1)+" FROM "+in.Name)
		}
		f, err := s.contextFiles(ctx, in)
		if err != nil {
			return rootfs{}, err
		}
		id, content, err := s.contextSnapshot(ctx, f)
		if err != nil {
			return rootfs{}, err
		}
		l := &layers.Layer{Snapshot: id, Text: "FROM " + in.Name, Lines: st.Range}
		if s.sealed[st] {
			s.e.sealer.Seal(l)
		}
		key, err := makeKey("scratch", "from context", nil, content.String(), epochKey(s.b.epoch))
		if err != nil {
			return rootfs{}, err
		}
		created, err := s.firstTime(st, key, id)
		if err != nil {
			return rootfs{}, err
		}
		r := rootfs{key: key, top: id, layers: []*layers.Layer{l}, origins: []origin{{st, l.Text, l.Lines}}}
		r.config.History = []ocispec.History{{Created: &created, CreatedBy: "FROM " + in.Name, Comment: parser.Comment}}
		return r, nil
	}
	panic("unreachable")
}

// contextSnapshot makes a snapshot of a context, without ignored files, and returns the digest of
// its content.
func (s *solver) contextSnapshot(ctx context.Context, f *files) (snapshot.ID, digest.Digest, error) {
	for looks := 1; ; looks++ {
		m, err := f.tree.Match(ctx, source.Query{Patterns: []string{"/"}, Literal: true, Epoch: s.b.epoch})
		if err != nil {
			return "", "", err
		}
		id, _, err := s.snapshotOf(ctx, f, m, false)
		if !again(err, looks) {
			return id, m.Digest, err
		}
	}
}

// snapshotOf makes a snapshot of the file or directory of a context that was matched, so that it
// can be mounted. place is its path in the snapshot; a directory is the snapshot's root. With whole
// the root gets the mode and the attributes of the directory, and the digest of the match must
// cover them.
func (s *solver) snapshotOf(ctx context.Context, f *files, m *source.Match, whole bool) (id snapshot.ID, place string, err error) {
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
	c := &copier{e: s.e, from: f, match: m, copy: &parser.Copy{Dest: "/"}}
	key, err := makeKey("scratch", "context", nil, string(m.Digest), epochKey(s.b.epoch))
	if err != nil {
		return "", "", err
	}
	j := &job{key: key, do: c.do}
	if res, _, ok := s.e.lookup(rootfs{}, j); ok {
		return res.snapshot, place, nil
	}
	res, err := s.e.runs.Do(ctx, string(key), func() (stepResult, error) { return s.e.make(ctx, rootfs{}, j, silent(), need{}) })
	if again(err, 0) {
		s.e.runs.Forget(string(key))
	}
	return res.snapshot, place, err
}
