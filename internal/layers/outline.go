package layers

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/outline"
	"github.com/layerbuild/layerbuild/snapshot"
)

// EmptyDiffID is the diffID of a layer without entries.
var EmptyDiffID = digest.FromBytes(make([]byte, 1024))

// Outlined has the files that an outline lacks.
type Outlined struct {
	files *outline.Files
	lower []string // the directories of the steps on the outline, topmost first
}

// Outlined returns the files that the outline on lacks: the outline of an image, or of a step on
// one.
func (s *Sealer) Outlined(ctx context.Context, on snapshot.ID) (*Outlined, error) {
	dirs, err := s.o.State.Snapshots.Dirs(ctx, on)
	if err != nil {
		return nil, err
	}
	image, err := s.lowest(ctx, on)
	if err != nil {
		return nil, err
	}
	files, err := s.outlines.Try(ctx, image, func() (*outline.Files, error) {
		list, err := s.o.State.Snapshots.Note(ctx, image)
		if err != nil {
			return nil, err
		}
		return outline.Parse(list)
	})
	if err != nil {
		return nil, err
	}
	return &Outlined{files, dirs[:len(dirs)-1]}, nil
}

// lowest returns the ancestor of a snapshot that has no parent.
func (s *Sealer) lowest(ctx context.Context, id snapshot.ID) (snapshot.ID, error) {
	for {
		info, err := s.o.State.Snapshots.Stat(ctx, id)
		if err != nil || info.Parent == "" {
			return id, err
		}
		id = info.Parent
	}
}

// In reports whether the outline lacks files in the directory dir, or below it. "" is the root.
func (o *Outlined) In(dir string) bool { return o.files.In(dir) }

// CheckUsers returns an error if a name of a user or group may have another meaning in active than
// on the unpacked image.
func (o *Outlined) CheckUsers(active *snapshot.Active) error {
	ok, err := outline.Users(append([]string{active.Upper()}, o.lower...))
	if err == nil && !ok {
		err = errors.New("the users of the image were replaced")
	}
	return err
}

// Check returns an error if the layer of active depends on a file that the outline lacks. alone
// reports whether active has no parent.
func (o *Outlined) Check(active *snapshot.Active, alone bool) error {
	path, err := o.files.Conflict(active.Upper(), o.lower, alone)
	if err == nil && path != "" {
		err = fmt.Errorf("%q may be equal to a file of the image", path)
	}
	return err
}

// SealSnapshot makes the layer of a snapshot and does not record it. warn is called for an entry
// that no layer can hold.
func (s *Sealer) SealSnapshot(ctx context.Context, id snapshot.ID,
	warn func(path, problem string)) (cache.Layer, error) {
	c, err := s.o.State.Snapshots.Changes(ctx, id)
	if err != nil {
		return cache.Layer{}, err
	}
	if err := s.takeSlot(ctx); err != nil {
		return cache.Layer{}, err
	}
	defer s.releaseSlot()
	o := s.options()
	o.Warn = warn
	got, err := diff.Seal(ctx, s.ingester(), tree(c), o)
	return cache.Layer{Descriptor: got.Descriptor, DiffID: got.DiffID, Size: got.Size}, err
}
