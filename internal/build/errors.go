package build

import (
	"errors"
	"fmt"

	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/parser"
)

// StepError is returned when an instruction fails.
type StepError struct {
	// File is the Dockerfile's name, and Range the position in the file.
	File  string
	Range parser.Range
	// Step is the step's name in the progress.
	Step string
	Err  error
}

// Error returns the text of the error, after the lines of the step if they are known.
func (e *StepError) Error() string {
	if e.Range.Start == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Range.Start, e.Err)
}

// Unwrap returns the error of the step.
func (e *StepError) Unwrap() error { return e.Err }

// At adds the position in a Dockerfile to an error without one. For a layers.Error, it is the
// position of the instruction that made the layer.
func At(file string, lines parser.Range, step string, err error) error {
	var have *StepError
	var parsed *parser.Error
	if err == nil || errors.As(err, &have) || errors.As(err, &parsed) {
		return err
	}
	var layer *layers.Error
	if errors.As(err, &layer) {
		lines, step = layer.Lines, ""
	}
	return &StepError{File: file, Range: lines, Step: step, Err: err}
}
