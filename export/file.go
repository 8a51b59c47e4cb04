package export

import (
	"context"
	"errors"
	"io"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/stagedir"
)

// toDest writes to spec's destination, a file or the standard output. A file is written completely
// or is unchanged. A write to the standard output ends when ctx ends.
func toDest(ctx context.Context, env Env, spec Spec, write func(io.Writer) error) error {
	if spec.Dest == "-" {
		return write(&interruptible{ctx: ctx, w: env.Stdout})
	}
	return atomicfile.Write(spec.Dest, 0o666, write)
}

// interruptible is a writer whose Write returns when ctx ends, although w may block: the reader of
// a pipe may have stopped.
type interruptible struct {
	ctx context.Context
	w   io.Writer
}

func (i *interruptible) Write(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := i.w.Write(p)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-i.ctx.Done():
		return 0, context.Cause(i.ctx)
	}
}

// inStage calls use with a temporary directory for dest, and removes it afterwards.
func inStage(dest string, use func(*stagedir.Dir) error) error {
	stage, err := stagedir.New(dest)
	if err != nil {
		return err
	}
	return errors.Join(use(stage), stage.Close())
}
