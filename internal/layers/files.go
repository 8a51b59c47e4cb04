package layers

import (
	"context"
	"errors"
	"io"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/snapshot"
)

// WriteFiles writes all files of a snapshot as a tar stream, and makes the snapshot first if it is
// lazy. Times after epoch become epoch; nil: times are kept.
func WriteFiles(ctx context.Context, w io.Writer, st *state.State, lazy *Lazy, id snapshot.ID,
	epoch *int64) (err error) {
	if err := lazy.Materialize(ctx, id); err != nil {
		return err
	}
	mounts, err := st.Snapshots.View(ctx, id)
	if err != nil {
		return err
	}
	dir, err := mount.Open(mounts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	tree := diff.Tree{Dir: dirfd.FDPath(int(dir.Fd())), Full: true,
		StandIns: st.NS.Rootless}
	_, err = diff.Write(ctx, w, tree, diff.Options{Epoch: epoch})
	return err
}
