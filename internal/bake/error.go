package bake

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Error is a mistake in a file.
type Error struct {
	File string
	// Start and End are the first and last line of what is wrong; 0 if that is the whole file.
	Start, End int
	Err        error
}

// Error returns the position and the text of Err.
func (e *Error) Error() string {
	if e.Start == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Start, e.Err)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// at returns err with a position, unless it has one already.
func at(r hcl.Range, err error) error {
	if err == nil || errors.As(err, new(*Error)) {
		return err
	}
	return &Error{File: r.Filename, Start: r.Start.Line, End: max(r.Start.Line, r.End.Line),
		Err: err}
}

// errorf returns an error with a position.
func errorf(r hcl.Range, format string, args ...any) error {
	return at(r, fmt.Errorf(format, args...))
}

// failed returns the first error of package hcl as an *Error; nil if there is none.
func failed(diags hcl.Diagnostics) error {
	for _, d := range diags {
		if d.Severity != hcl.DiagError {
			continue
		}
		if inner, ok := innerError(d); ok {
			return inner
		}
		err := errors.New(messageOf(d))
		if d.Subject == nil {
			return err
		}
		return at(*d.Subject, err)
	}
	return nil
}

// innerError returns the error of a function that was called, if it has a position of its own.
func innerError(d *hcl.Diagnostic) (error, bool) {
	extra, ok := hcl.DiagnosticExtra[interface{ FunctionCallError() error }](d)
	if !ok {
		return nil, false
	}
	var inner *Error
	if errors.As(extra.FunctionCallError(), &inner) {
		return inner, true
	}
	return nil, false
}

// messageOf returns the text of a diagnostic as one line without a period at its end.
func messageOf(d *hcl.Diagnostic) string {
	detail := strings.Join(strings.Fields(d.Detail), " ")
	detail = strings.TrimSuffix(detail, ".")
	if detail == "" {
		return d.Summary
	}
	return lowerFirst(d.Summary) + ": " + detail
}

// lowerFirst returns s with its first letter in lower case.
func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
