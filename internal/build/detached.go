package build

import (
	"context"
	"errors"
	"io"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/snapshot"
	"golang.org/x/sync/errgroup"
)

// runDetached runs a job on nothing and lays what it makes over active (COPY --link): links that are there are replaced
// and not followed, and directories are as the job makes them. Where snapshots are overlays that is what putting one on
// the other means; where they are whole trees the result is unpacked over the other like a layer.
func (s *solver) runDetached(ctx context.Context, j *job, active *snapshot.Active, out output) (err error) {
	alone, err := s.state.Snapshots.Prepare(ctx, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, alone.Discard()) }()
	if err := j.do(ctx, alone, out); err != nil {
		return err
	}
	r, w := io.Pipe()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := diff.Write(ctx, w, diff.Tree{Dir: alone.Upper(), Full: true, StandIns: s.state.NS.Rootless}, diff.Options{Warn: func(path, problem string) { out.warn(path + ": " + problem) }})
		return errors.Join(err, w.CloseWithError(err))
	})
	g.Go(func() error {
		o := diff.ApplyOptions{Full: true}
		if s.state.NS.SingleID {
			o.OnOwnerError = func(string, int, int, error) {} // the job has said so
		}
		if s.state.NS.Rootless {
			o.OnStandIn = func(string) {} // here, too
		}
		_, err := diff.Apply(ctx, r, active.Upper(), o)
		r.CloseWithError(err)
		return err
	})
	return g.Wait()
}
