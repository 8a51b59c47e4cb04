package build

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/parser"
)

// line is a step's line in the progress.
type line struct {
	id     event.ID
	inputs []event.ID
	name   string
	step   parser.Step
	sink   event.Sink
	file   string // the Dockerfile's name
}

func (l *line) start() {
	l.sink(event.Start{ID: l.id, Name: l.name, File: l.file,
		Line: l.step.Range.Start, Inputs: l.inputs, Time: time.Now()})
}

// done ends the line, and adds the position in the Dockerfile to the error.
func (l *line) done(cached bool, err error) error {
	if err != nil {
		err = At(l.file, l.step.Range, l.name, err)
	}
	shown := err
	var step *StepError
	if errors.Is(err, context.Canceled) ||
		errors.As(err, &step) && step.Range != l.step.Range { // another step has failed
		shown = context.Canceled
	}
	l.sink(event.Done{ID: l.id, Cached: cached, Err: shown, Time: time.Now()})
	return err
}

// output sends the output and warnings of a step to its line in the progress.
type output struct{ line *line }

// hold returns an output that keeps what is sent to it, and the function that sends it on.
func (o output) hold() (held output, release func()) {
	var mu sync.Mutex
	var events []event.Event
	l := *o.line
	l.sink = func(e event.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	}
	return output{&l}, func() {
		for _, e := range events {
			o.line.sink(e)
		}
	}
}

func (o output) Warn(message string) {
	o.line.sink(event.Warning{ID: o.line.id, Message: message, File: o.line.file,
		Line: o.line.step.Range.Start, Time: time.Now()})
}

func (o output) Stream(n int) io.Writer { return &logger{o.line, n} }

// logger writes a command's output to the progress.
type logger struct {
	line   *line
	stream int
}

func (w *logger) Write(p []byte) (int, error) {
	w.line.sink(event.Log{ID: w.line.id, Stream: w.stream, Data: p, Time: time.Now()})
	return len(p), nil
}
