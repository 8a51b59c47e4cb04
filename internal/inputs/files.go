package inputs

import (
	"context"
	"fmt"
	"time"

	digest "github.com/opencontainers/go-digest"

	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
)

// Files is a file tree that a COPY, an ADD or a mount takes files from.
type Files struct {
	Tree *source.Tree
	// Snapshot is the snapshot that holds the files of a stage or an image; nil for a context.
	Snapshot *snapshot.ID
	// Stage is set for the files of a stage.
	Stage bool
}

// HasOwners reports whether the owners of an input's files are kept in the image: they are if the
// input is a stage, an image or the result of another build.
func (in *Inputs) HasOwners(input parser.Input) bool {
	c, ok := input.(parser.ContextInput)
	if !ok {
		return true
	}
	_, image := in.ContextImage(c)
	_, linked := in.linked(c)
	return image || linked
}

// IsLinked reports whether an input is the result of another build.
func (in *Inputs) IsLinked(input parser.Input) bool {
	_, ok := in.linked(input)
	return ok
}

// OfSnapshot opens a snapshot for reading.
func (in *Inputs) OfSnapshot(ctx context.Context, id snapshot.ID) (*Files, error) {
	tree, err := in.Tree(ctx, id)
	if err != nil {
		return nil, err
	}
	return &Files{Tree: tree, Snapshot: &id}, nil
}

// Files opens an input that is neither a stage nor the result of another build. The context of the
// build must have been opened by Main.
func (in *Inputs) Files(ctx context.Context, input parser.Input) (*Files, error) {
	switch input := input.(type) {
	case parser.ImageInput:
		got, err := in.Unpack(ctx, input, "")
		if err != nil {
			return nil, err
		}
		return in.OfSnapshot(ctx, got.Top)
	case parser.ContextInput:
		if input.Name == "" {
			return &Files{Tree: in.open.main.Tree()}, nil
		}
		if img, ok := in.ContextImage(input); ok {
			return in.Files(ctx, img)
		}
		c, err := in.Named(ctx, input.Name)
		if err != nil {
			return nil, err
		}
		return &Files{Tree: c.Tree()}, nil
	case parser.Scratch:
		return in.OfSnapshot(ctx, "")
	}
	panic("unreachable")
}

// Remote opens a source of an ADD that is a URL, without fetching it if its key is known. The
// caller closes it.
func (in *Inputs) Remote(ctx context.Context, add *parser.Copy, src string) (source.Remote, error) {
	r, err := in.openRemote(ctx, add, src)
	if err != nil {
		return nil, err
	}
	in.open.mu.Lock()
	defer in.open.mu.Unlock()
	if in.open.remote == nil {
		in.open.remote = map[remoteKey]source.Material{}
	}
	in.open.remote[remoteKey{src, add.Checksum, add.KeepGitDir}] = r.Material()
	return r, nil
}

func (in *Inputs) openRemote(ctx context.Context, add *parser.Copy,
	src string) (source.Remote, error) {
	if kind, _ := parser.SourceKind(src); kind == parser.Git {
		o := in.Git(add.KeepGitDir)
		o.Checksum = add.Checksum
		return source.Git(ctx, src, o)
	}
	o := in.HTTP()
	o.Checksum = digest.Digest(add.Checksum)
	return source.HTTP(ctx, src, o)
}

// ModTime returns the time of a source that SOURCE_DATE_EPOCH names. It returns false if the source
// has none, such as an image. The context of the build must have been opened by Main.
func (in *Inputs) ModTime(ctx context.Context, src parser.EpochSource) (time.Time, bool, error) {
	switch src := src.(type) {
	case *parser.Copy:
		_, remote := src.SplitSources()
		r, err := in.Remote(ctx, src, remote[0])
		if err != nil {
			return time.Time{}, false, err
		}
		in.closeLater(r)
		return r.ModTime(ctx)
	case parser.ContextInput:
		if src.Name == "" {
			return in.open.main.ModTime(ctx)
		}
		_, image := in.ContextImage(src)
		if _, linked := in.linked(src); image || linked {
			return time.Time{}, false, nil
		}
		c, err := in.Named(ctx, src.Name)
		if err != nil {
			return time.Time{}, false, err
		}
		return c.ModTime(ctx)
	}
	panic(fmt.Sprintf("unexpected source %T", src))
}
