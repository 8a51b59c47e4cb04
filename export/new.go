package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"golang.org/x/term"
)

// New returns an Exporter for each spec, after Check. It changes nothing.
func New(env Env, specs ...Spec) ([]Exporter, error) {
	if err := Check(env.Stdout, specs...); err != nil {
		return nil, err
	}
	var exporters []Exporter
	for _, spec := range specs {
		e, err := newOne(env, spec)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", spec, err)
		}
		exporters = append(exporters, e)
	}
	return exporters, nil
}

// Check checks destinations before anything is built. It returns an error for two outputs to one
// place, an archive to a terminal, a file instead of a directory, and a missing directory. stdout
// is the destination "-"; nil: stdout is used for something else.
func Check(stdout io.Writer, specs ...Spec) error {
	taken := map[string]bool{}
	for _, spec := range specs {
		place := spec.Dest
		if place != "" && place != "-" {
			abs, err := filepath.Abs(place)
			if err != nil {
				return fmt.Errorf("output %s: %w", spec, err)
			}
			place = abs
			if real, err := filepath.EvalSymlinks(abs); err == nil {
				place = real
			}
		}
		if place != "" && taken[place] {
			return fmt.Errorf("output %s: another output goes to the same place", spec)
		}
		taken[place] = true
		if err := checkDest(stdout, spec); err != nil {
			return fmt.Errorf("output %s: %w", spec, err)
		}
	}
	return nil
}

func newOne(env Env, spec Spec) (Exporter, error) {
	switch spec.Type {
	case TypeImage:
		if spec.Push && env.Pusher == nil {
			return nil, errors.New("pushing to a registry is not available")
		}
		return &image{env: env, spec: spec}, nil
	case TypeOCI, TypeDocker:
		switch {
		case spec.Dir:
			return &layout{spec: spec}, nil
		case spec.Dest == "":
			return newLoader(env, spec)
		}
		return &archive{env: env, spec: spec}, nil
	case TypeLocal:
		return &local{env: env, spec: spec}, nil
	case TypeTar:
		return &flat{env: env, spec: spec}, nil
	case TypeCacheOnly:
		return nothing{spec}, nil
	}
	panic("unreachable: " + spec.Type)
}

func checkDest(stdout io.Writer, spec Spec) error {
	switch {
	case spec.Dest == "":
		return nil
	case spec.Dest == "-":
		if stdout == nil {
			return errors.New("standard output is not available for it")
		}
		if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return errors.New("refusing to write an archive to a terminal; redirect standard " +
				"output, or give dest=FILE")
		}
		return nil
	}
	fi, err := os.Stat(spec.Dest)
	switch {
	case err == nil && spec.Dir && !fi.IsDir():
		return errors.New("dest is a file; a directory is expected")
	case err == nil && !spec.Dir && fi.IsDir():
		hint := ""
		if spec.Type == TypeOCI || spec.Type == TypeDocker {
			hint = " (tar=false writes a directory)"
		}
		return errors.New("dest is a directory; a file is expected" + hint)
	case err == nil || spec.Dir && errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, os.ErrNotExist):
		if _, err := os.Stat(filepath.Dir(spec.Dest)); err != nil {
			return fmt.Errorf("there is no directory %s", filepath.Dir(spec.Dest))
		}
		return nil
	}
	return fmt.Errorf("dest: %w", err)
}

// nothing is the exporter of TypeCacheOnly.
type nothing struct{ spec Spec }

// Export implements Exporter.
func (n nothing) Export(_ context.Context, _ *Image, sink event.Sink) error {
	return report(n.spec, "exporting nothing", sink, func(*job) (string, error) {
		return "the results are in the cache", nil
	})
}

// job is a running export, with the sink for its progress.
type job struct {
	id   event.ID
	sink event.Sink
	part event.Progress
	told time.Time
}

// report runs do as one job, with its start and end.
func report(spec Spec, name string, sink event.Sink,
	do func(j *job) (note string, err error)) error {
	j := &job{id: event.ID("export " + spec.String()), sink: sink}
	sink(event.Start{ID: j.id, Name: name, Time: time.Now()})
	note, err := do(j)
	if j.part.Part != "" && !j.part.Done && err == nil {
		j.part.Done = true
		j.part.Time = time.Now()
		sink(j.part)
	}
	sink(event.Done{ID: j.id, Note: note, Err: err, Time: time.Now()})
	return err
}

// begin begins a part of the job with total bytes; 0: not known.
func (j *job) begin(part string, total int64) {
	j.part = event.Progress{ID: j.id, Part: part, Total: total, Time: time.Now()}
	j.told = j.part.Time
	j.sink(j.part)
}

// tellEvery is the interval between reports of progress. It is the interval at which a terminal is
// redrawn.
const tellEvery = 100 * time.Millisecond

func (j *job) advance(n int) {
	j.part.Current += int64(n)
	if now := time.Now(); now.Sub(j.told) >= tellEvery {
		j.told, j.part.Time = now, now
		j.sink(j.part)
	}
}

// counting reports the bytes that pass through it as progress, and returns an error when ctx has
// ended.
type counting struct {
	ctx  context.Context // of the export: readers and writers get none
	move func([]byte) (int, error)
	job  *job
}

func (c counting) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.move(p)
	c.job.advance(n)
	return n, err
}

func (c counting) Read(p []byte) (int, error) { return c.Write(p) }
