package build

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// files is where a COPY, an ADD or a mount takes files from.
type files struct {
	tree *source.Tree
	// snapshot is set where the files are those of a snapshot, of a stage or an image; nil for a context.
	snapshot *snapshot.ID
	// stage reports that they are the files of a stage.
	stage bool
}

// results returns the snapshot of a stage's files, which identifies this result of the stage; none for other inputs.
func (f *files) results() []snapshot.ID {
	if !f.stage {
		return nil
	}
	return []snapshot.ID{resultOf(*f.snapshot)}
}

// resultOf names the result of a stage by its snapshot. The empty file system has a name, too: "" means unknown.
func resultOf(top snapshot.ID) snapshot.ID { return cmp.Or(top, "scratch") }

type imageKey struct {
	ref      string
	platform string
}

// files opens what an input names.
func (s *solver) files(ctx context.Context, in parser.Input) (*files, error) {
	switch in := in.(type) {
	case parser.StageInput:
		r, err := s.stage(ctx, in.Stage)
		if err != nil {
			return nil, err
		}
		f, err := s.snapshotFiles(ctx, r)
		if err != nil {
			return nil, err
		}
		f.stage = true
		return f, nil
	case parser.ImageInput:
		r, err := s.unpack(ctx, in, "")
		if err != nil {
			return nil, err
		}
		return s.snapshotFiles(ctx, r)
	case parser.ContextInput:
		return s.contextFiles(ctx, in)
	case parser.Scratch:
		return s.snapshotFiles(ctx, rootfs{key: "scratch"})
	}
	panic("unreachable")
}

// nameOf names an input without opening it. It builds a stage first, unless the cache has everything that is needed of
// it.
func (s *solver) nameOf(ctx context.Context, in parser.Input) (inputName, error) {
	st, ok := in.(parser.StageInput)
	if !ok {
		return s.fixedName(ctx, in)
	}
	if f := s.foresee(ctx, st.Stage); f.known && !s.needs(ctx, st.Stage) {
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
		if img, ok := s.contextImage(in); ok {
			return s.fixedName(ctx, img)
		}
		return inputName{}, nil
	case parser.ImageInput:
		img, err := s.resolve(ctx, in)
		if err != nil {
			return inputName{}, err
		}
		return inputName{key: imageName(img)}, nil
	}
	panic("unreachable")
}

func imageName(img *image.Image) string { return "image " + img.ChainID().String() }

// snapshotFiles opens a snapshot for reading, without attaching a mount to anything.
func (b *builder) snapshotFiles(ctx context.Context, r rootfs) (*files, error) {
	if err := b.lazy.Materialize(ctx, r.top); err != nil {
		return nil, err
	}
	tree, err := b.trees.Do(context.Background(), r.top, func() (*source.Tree, error) {
		mounts, err := b.state.Snapshots.View(context.Background(), r.top)
		if err != nil {
			return nil, err
		}
		dir, err := mount.Open(mounts)
		if err != nil {
			return nil, err
		}
		b.closeLater(dir)
		tree, err := source.NewTree(dir, source.TreeOptions{Immutable: true})
		if err == nil {
			b.closeLater(tree)
		}
		return tree, err
	})
	if err != nil {
		return nil, err
	}
	return &files{tree: tree, snapshot: &r.top}, nil
}

// contextFiles opens a build context.
func (s *solver) contextFiles(ctx context.Context, in parser.ContextInput) (*files, error) {
	if in.Name == "" {
		return &files{tree: s.context.Tree()}, nil
	}
	if img, ok := s.contextImage(in); ok {
		r, err := s.unpack(ctx, img, "")
		if err != nil {
			return nil, err
		}
		return s.snapshotFiles(ctx, r)
	}
	c, err := s.namedContext(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	return &files{tree: c.Tree()}, nil
}

// contextImage tells a named context that is an image from one that has files.
func (b *builder) contextImage(in parser.ContextInput) (parser.ImageInput, bool) {
	value := b.opts.Source.Contexts[in.Name]
	if ref, ok := strings.CutPrefix(value, "docker-image://"); ok {
		return parser.ImageInput{Ref: ref, Platform: in.Platform}, true
	}
	if strings.HasPrefix(value, "oci-layout://") {
		return parser.ImageInput{Ref: value, Platform: in.Platform}, true
	}
	return parser.ImageInput{}, false
}

// namedContext opens a named context, once and only when it is used.
func (b *builder) namedContext(ctx context.Context, name string) (*source.Context, error) {
	return b.named.Do(ctx, name, func() (*source.Context, error) {
		so, err := b.sourceOptions()
		if err != nil {
			return nil, err
		}
		c, err := source.Open(ctx, b.opts.Source.Contexts[name], so)
		if err != nil {
			return nil, fmt.Errorf("--build-context %s: %w", name, err)
		}
		b.closeLater(c)
		return c, nil
	})
}

// contextConfig is the configuration of a context that a stage is based on: an image's, or none.
func (s *solver) contextConfig(ctx context.Context, in parser.ContextInput) (imageConfig, error) {
	img, ok := s.contextImage(in)
	if !ok {
		return imageConfig{}, nil
	}
	got, err := s.resolve(ctx, img)
	if err != nil {
		return imageConfig{}, err
	}
	return got.Config, nil
}

// resolve finds an image, once.
func (b *builder) resolve(ctx context.Context, in parser.ImageInput) (*image.Image, error) {
	return b.resolved.Do(ctx, imageKey{in.Ref, parser.FormatPlatform(in.Platform)}, func() (*image.Image, error) {
		return b.images.Resolve(ctx, in.Ref, image.ResolveOptions{Platform: in.Platform, Pull: b.opts.Pull})
	})
}

// unpack makes snapshots of an image's layers, once. name is its line in the progress; "" gives it one of its own.
func (b *builder) unpack(ctx context.Context, in parser.ImageInput, name string) (rootfs, error) {
	key := imageKey{in.Ref, parser.FormatPlatform(in.Platform)}
	return b.unpacked.Do(ctx, key, func() (rootfs, error) {
		id := event.ID("image " + key.ref + " " + key.platform)
		if name == "" {
			name = "[image] " + in.Ref
		}
		b.sink(event.Start{ID: id, Name: name, Time: time.Now()})
		r, cached, err := b.unpackImage(ctx, in, id)
		b.sink(event.Done{ID: id, Cached: cached, Err: err, Time: time.Now()})
		return r, err
	})
}

func (b *builder) unpackImage(ctx context.Context, in parser.ImageInput, id event.ID) (rootfs, bool, error) {
	img, err := b.resolve(ctx, in)
	if err != nil {
		return rootfs{}, false, err
	}
	top, cached, err := b.images.Unpack(ctx, img, image.UnpackOptions{ID: id, Sink: b.sink})
	if err != nil {
		return rootfs{}, false, err
	}
	r := rootfs{config: img.Config, key: cache.Key(imageName(img)), top: top}
	for i, d := range img.Manifest.Layers {
		r.layers = append(r.layers, &layers.Layer{Base: img, Index: i, Descriptor: d, DiffID: img.Config.RootFS.DiffIDs[i]})
	}
	return r, cached, nil
}

// baseImage gives what a stage starts from that is no other stage: an image, or a context.
func (s *solver) baseImage(ctx context.Context, st *parser.Stage, in parser.Input) (rootfs, error) {
	switch in := in.(type) {
	case parser.ImageInput:
		return s.unpack(ctx, in, s.stageLabel(st, 1)+" FROM "+in.Ref)
	case parser.ContextInput:
		if img, ok := s.contextImage(in); ok {
			return s.unpack(ctx, img, s.stageLabel(st, 1)+" FROM "+in.Name)
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
			s.sealer.Seal(l)
		}
		key, err := makeKey("scratch", "from context", nil, content.String(), epochKey(s.epoch))
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

// contextSnapshot makes a snapshot of a context, without ignored files, and returns the digest of its content.
func (s *solver) contextSnapshot(ctx context.Context, f *files) (snapshot.ID, digest.Digest, error) {
	for looks := 1; ; looks++ {
		m, err := f.tree.Match(ctx, source.Query{Patterns: []string{"/"}, Literal: true, Epoch: s.epoch})
		if err != nil {
			return "", "", err
		}
		id, _, err := s.snapshotOf(ctx, f, m, false)
		if !again(err, looks) {
			return id, m.Digest, err
		}
	}
}

// snapshotOf makes a snapshot of the file or directory of a context that was matched, so that it can be mounted. place is
// where it is in the snapshot: a directory is the snapshot's root. With whole the root gets the mode and the attributes of
// the directory, which are then to be in the match's digest.
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
	c := &copier{solver: s, from: f, match: m, copy: &parser.Copy{Dest: "/"}}
	key, err := makeKey("scratch", "context", nil, string(m.Digest), epochKey(s.epoch))
	if err != nil {
		return "", "", err
	}
	j := &job{key: key, do: c.do}
	if res, _, ok := s.lookup(rootfs{}, j); ok {
		return res.snapshot, place, nil
	}
	res, err := s.runs.Do(ctx, string(key), func() (stepResult, error) { return s.make(ctx, nil, rootfs{}, j, s.silent()) })
	if again(err, 0) {
		s.runs.Forget(string(key))
	}
	return res.snapshot, place, err
}

// httpOptions are how this build downloads.
func (b *builder) httpOptions() source.HTTPOptions {
	return source.HTTPOptions{TempDir: b.tempdir.Path, Store: remoteMetadata{b.state.Cache}, Authorization: b.secrets.HTTPAuthorization}
}

// gitOptions are how this build fetches repositories.
func (b *builder) gitOptions(keepGitDir bool) source.GitOptions {
	agent, _ := b.secrets.Agent("default")
	return source.GitOptions{TempDir: b.tempdir.Path, KeepGitDir: keepGitDir, CommitTime: true, Authorization: b.secrets.GitAuthorization, SSHAuthSock: agent}
}

// remoteMetadata keeps what servers said about addresses in the cache.
type remoteMetadata struct{ cache *cache.Cache }

func (m remoteMetadata) Load(name string) []byte {
	r, ok := m.cache.Remote("source " + name)
	if !ok {
		return nil
	}
	m.cache.TouchRemote("source " + name)
	return []byte(r.Value)
}

func (m remoteMetadata) Store(name string, value []byte) error {
	return m.cache.PutRemote("source "+name, cache.Finding{Value: string(value)})
}
