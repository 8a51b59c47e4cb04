package layers

import (
	"context"
	"errors"
	"io"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/snapshot"
	"golang.org/x/sync/errgroup"
)

// Stack applies the files of top, a snapshot without a parent, to active, as a layer is applied:
// symbolic links in active are replaced and not followed, and directories get the modes that they
// have in top. It is used if snapshots are whole trees. If they are overlays, a snapshot is stacked
// on another by its parent. warn is called for files that no layer can hold.
func Stack(ctx context.Context, s *state.State, top, active *snapshot.Active,
	warn func(message string)) error {
	r, w := io.Pipe()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := diff.Write(ctx, w, diff.Tree{Dir: top.Upper(), Full: true,
			StandIns: s.NS.Rootless},
			diff.Options{Warn: func(path, problem string) { warn(path + ": " + problem) }})
		return errors.Join(err, w.CloseWithError(err))
	})
	g.Go(func() error {
		o := diff.ApplyOptions{Full: true}
		// The step that made top has already warned about owners and device nodes.
		if s.NS.SingleID {
			o.OnOwnerError = func(string, int, int, error) {}
		}
		if s.NS.Rootless {
			o.OnStandIn = func(string) {}
		}
		_, err := diff.Apply(ctx, r, active.Upper(), o)
		r.CloseWithError(err)
		return err
	})
	return g.Wait()
}
