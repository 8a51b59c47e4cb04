package export

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/stagedir"
	"golang.org/x/sys/unix"
)

// toDest writes to spec's destination, a file or the standard output. A file is written completely
// or is unchanged. A write to the standard output ends when ctx ends.
func toDest(ctx context.Context, env Env, spec Spec, write func(io.Writer) error) error {
	if spec.Dest == "-" {
		return write(&interruptible{ctx: ctx, w: env.Stdout})
	}
	// Lstat: a pipe that is named /dev/fd/3 may belong to another user, and is open already.
	if fi, err := os.Lstat(spec.Dest); err == nil && fi.Mode()&fs.ModeNamedPipe != 0 {
		f, err := openFifo(ctx, spec.Dest)
		if err != nil {
			return err
		}
		return errors.Join(write(&interruptible{ctx: ctx, w: f}), f.Close())
	}
	return atomicfile.Write(spec.Dest, 0o666, func(w io.Writer) error {
		if f, ok := w.(*os.File); ok && !isRegular(f) {
			w = &interruptible{ctx: ctx, w: f} // such as a pipe of /dev/fd
		}
		return write(w)
	})
}

// openFifo opens a fifo for writing when a process has opened it for reading, or returns an error
// when ctx ends before. Nothing could interrupt an open(2) that waits for the reader.
func openFifo(ctx context.Context, name string) (*os.File, error) {
	const pause = 20 * time.Millisecond
	for {
		f, err := os.OpenFile(name, os.O_WRONLY|unix.O_NONBLOCK, 0)
		if !errors.Is(err, unix.ENXIO) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

func isRegular(f *os.File) bool {
	fi, err := f.Stat()
	return err == nil && fi.Mode().IsRegular()
}

// interruptible is a writer whose Write returns when ctx ends, although w may block: the reader of
// a pipe may have stopped. It must not be used concurrently.
type interruptible struct {
	// ctx is that of the export that writes. An io.Writer gets no context.
	ctx context.Context
	w   io.Writer
	buf []byte // what w is writing
	err error  // the cause of ctx's end, once w was left with buf
}

// Write writes a copy of p: w may still be writing when Write has returned. No caller waits for
// that goroutine, because nothing interrupts write(2) on a full pipe. It ends when the pipe is read
// or closed, or with the program.
func (i *interruptible) Write(p []byte) (int, error) {
	if i.err != nil {
		return 0, i.err
	}
	i.buf = append(i.buf[:0], p...)
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := i.w.Write(i.buf)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-i.ctx.Done():
		i.err = context.Cause(i.ctx)
		return 0, i.err
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
