package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/subprocess"
)

// loader exports to a container engine on this machine, with an archive in Docker's format.
type loader struct {
	spec Spec
	name string // name of the engine
	load func(ctx context.Context, r io.Reader, j *job) error
}

func newLoader(env Env, spec Spec) (*loader, error) {
	if env.Load != nil {
		return &loader{spec: spec, name: "the local engine",
				load: func(ctx context.Context, r io.Reader,
					_ *job) error {
					return env.Load(ctx, r)
				}},
			nil
	}
	argv := []string{"docker", "load"}
	if spec.Context != "" {
		argv = []string{"docker", "--context", spec.Context, "load"}
	}
	if _, err := exec.LookPath(argv[0]); err != nil {
		if spec.Context != "" {
			return nil, errors.New("context requires docker, which is not installed")
		}
		if argv = []string{"podman", "load"}; !installed(argv[0]) {
			return nil, errors.New("neither docker nor podman is installed; give dest=FILE")
		}
	}
	return &loader{spec: spec, name: argv[0],
		load: func(ctx context.Context, r io.Reader, j *job) error {
			cmd := subprocess.Command(ctx, argv[0], argv[1:]...)
			cmd.Stdin = r
			stderr := &logger{job: j, stream: 2}
			cmd.Stdout = &logger{job: j, stream: 1}
			cmd.Stderr = stderr
			if err := subprocess.Run(ctx, cmd); err != nil {
				if ctx.Err() != nil {
					return err
				}
				if stderr.last != "" {
					err = fmt.Errorf("%w: %s", err, stderr.last)
				}
				return fmt.Errorf("%s load: %w", argv[0], err)
			}
			return nil
		}}, nil
}

func installed(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

// logger passes the output of a command to the job's sink.
type logger struct {
	job    *job
	stream int
	last   string // the last line, for an error
}

func (l *logger) Write(p []byte) (int, error) {
	lines := strings.Split(strings.TrimSpace(string(p)), "\n")
	if line := strings.TrimSpace(lines[len(lines)-1]); line != "" {
		l.last = line
	}
	l.job.sink(event.Log{ID: l.job.id, Stream: l.stream, Data: p, Time: time.Now()})
	return len(p), nil
}

func (l *loader) Export(ctx context.Context, img *Image, sink event.Sink) error {
	m, err := member(img, l.spec)
	if err != nil {
		return err
	}
	return l.members(ctx, []Member{m}, sink)
}

// members passes an archive with images to the engine.
func (l *loader) members(ctx context.Context, members []Member, sink event.Sink) error {
	return report(l.spec, "load into "+l.name, sink, func(j *job) (string, error) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		pr, pw := io.Pipe()
		var writeErr error
		var writer sync.WaitGroup
		writer.Go(func() {
			writeErr = writeArchive(ctx, pw, members, l.spec, j)
			if writeErr != nil && !errors.Is(writeErr, errReaderGone) {
				cancel(writeErr) // the engine must not read a truncated image as a complete one
			}
			pw.CloseWithError(writeErr)
		})
		// A client of HTTP closes a body that it does not send: without Close the writer gets
		// errReaderGone, and not the error of a closed pipe, which would hide that of the engine.
		loadErr := l.load(ctx, struct{ io.Reader }{pr}, j)
		pr.CloseWithError(errReaderGone)
		writer.Wait()
		if writeErr != nil && !errors.Is(writeErr, errReaderGone) {
			return "", fmt.Errorf("load into %s: %w", l.name, writeErr)
		}
		if loadErr != nil {
			return "", loadErr
		}
		return members[0].Root.Digest.String(), nil
	})
}

// errReaderGone ends a writer whose reader has stopped. It is not reported: the reader has an error
// of its own, or did not need the rest.
var errReaderGone = errors.New("the engine has stopped reading")
