package parser

import (
	"fmt"
	"strings"
)

// Error is a mistake in a Dockerfile, with its position.
type Error struct {
	// File is the name passed to Parse.
	File string
	// Range is the position of the instruction. It is zero if the mistake is not in a particular
	// instruction, such as an unknown target.
	Range Range
	// Err is the mistake. The text of a mistake in the syntax begins like BuildKit's, with the
	// line, because programs that read the output of builds look for that text.
	Err error
}

// Error returns the text of the error, after the lines of the Dockerfile if they are known.
func (e *Error) Error() string {
	if e.Range.Start == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	text := strings.TrimPrefix(e.Err.Error(),
		fmt.Sprintf("dockerfile parse error on line %d: ", e.Range.Start))
	return fmt.Sprintf("%s:%d: %s", e.File, e.Range.Start, text)
}

// Unwrap returns the error without its position.
func (e *Error) Unwrap() error { return e.Err }

// LintError is returned when rules have findings and the file or the options make findings an
// error.
type LintError struct {
	// Rules are the names of the rules, sorted, each once.
	Rules []string
}

// Error lists the rules that were violated.
func (e *LintError) Error() string {
	s := "lint violation found for rules: "
	for i, r := range e.Rules {
		if i > 0 {
			s += ", "
		}
		s += r
	}
	return s
}
