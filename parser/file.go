package parser

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	bkparser "github.com/moby/buildkit/frontend/dockerfile/parser"
)

// File is a Dockerfile, parsed but not expanded. It is immutable: several plans can be made from
// it, also concurrently.
type File struct {
	name     string
	src      []byte
	ast      *bkparser.Node
	escape   rune
	warnings []bkparser.Warning
	// blocks are the instructions of each stage without its FROM. Stage.Steps parses them again
	// before it expands them, because the expansion changes an instruction.
	blocks  [][]*bkparser.Node
	targets []Target
}

// Target is a stage that can be built.
type Target struct {
	// Name is the stage's name, empty for a stage without one.
	Name string
	// Description is the comment above FROM that starts with the name.
	Description string
	// Base is the operand of FROM, as written.
	Base string
	// Platform is the --platform of FROM, as written.
	Platform string
	// Default is true for the last stage.
	Default bool
	Range   Range
}

// Parse parses a Dockerfile. name is the file's name for messages. The error is an *Error. If it
// concerns an instruction, the File is returned as well: its Plan fails with the same error, and
// has the warnings that were found before the mistake.
func Parse(name string, src []byte) (*File, error) {
	f := &File{name: name, src: src}
	if len(src) == 0 {
		return nil, f.fail(Range{}, errors.New("the Dockerfile cannot be empty"))
	}
	if bytes.Count(src, []byte("\n")) > maxLines {
		return nil, f.fail(Range{Start: maxLines + 1, End: maxLines + 1},
			fmt.Errorf("more than %d lines", maxLines))
	}
	res, err := bkparser.Parse(bytes.NewReader(src))
	if err != nil {
		return nil, f.fail(f.escapeDirective(err), err)
	}
	repairFlags(res.AST)
	f.ast, f.escape, f.warnings = res.AST, res.EscapeToken, res.Warnings
	if n := f.ast.Children; len(n) > maxInstructions {
		return nil, f.fail(rangeOf(n[maxInstructions].Location()),
			fmt.Errorf("more than %d instructions", maxInstructions))
	}
	stages, _, err := f.instructions(silent)
	if err != nil {
		return f, err
	}
	for _, n := range f.ast.Children {
		switch {
		case strings.EqualFold(n.Value, "from"):
			f.blocks = append(f.blocks, nil)
		case len(f.blocks) > 0:
			last := len(f.blocks) - 1
			f.blocks[last] = append(f.blocks[last], n)
		}
	}
	for i, s := range stages {
		f.targets = append(f.targets, Target{
			Name:        s.Name,
			Description: s.DocComment,
			Base:        s.BaseName,
			Platform:    s.Platform,
			Default:     i == len(stages)-1,
			Range:       rangeOf(s.Location),
		})
	}
	return f, nil
}

// escapeDirective returns the line of the escape directive if the error concerns it, since such an
// error has no position.
func (f *File) escapeDirective(err error) Range {
	if !strings.HasPrefix(err.Error(), "invalid escape token") {
		return Range{}
	}
	_, _, loc, _ := bkparser.ParseDirective("escape", f.src)
	return rangeOf(loc)
}

// instructions parses the FROMs and the instructions after them. The error is an *Error.
func (f *File) instructions(l *linter.Linter) ([]instructions.Stage,
	[]instructions.ArgCommand, error) {
	stages, meta, err := instructions.Parse(f.ast, l)
	if err == nil && len(stages) == 0 {
		err = errors.New("dockerfile contains no stages to build")
	}
	return stages, meta, f.fail(Range{}, err)
}

// silent is a linter that reports nothing and is never changed. The instruction parser also
// accepts nil, but then panics on a check directive above an instruction.
var silent = linter.New(&linter.Config{})

// parseCommand parses one instruction other than FROM.
func parseCommand(n *bkparser.Node) (instructions.Command, error) {
	v, err := instructions.ParseInstructionWithLinter(n, silent)
	if err != nil {
		return nil, err
	}
	c, ok := v.(instructions.Command)
	if !ok {
		return nil, fmt.Errorf("%s is not allowed here", strings.ToUpper(n.Value))
	}
	return c, nil
}

// Name returns the name passed to Parse.
func (f *File) Name() string { return f.name }

// Source returns the text passed to Parse.
func (f *File) Source() []byte { return f.src }

// Targets returns the stages.
func (f *File) Targets() []Target { return append([]Target(nil), f.targets...) }

// fail returns an *Error. Its Range is the error's own position if it has one, and otherwise r.
func (f *File) fail(r Range, err error) error {
	if err == nil {
		return nil
	}
	var done *Error
	if errors.As(err, &done) {
		return err
	}
	var loc *bkparser.LocationError
	if errors.As(err, &loc) && r.Start == 0 && len(loc.Locations) > 0 {
		r = rangeOf(loc.Locations[0])
	}
	return &Error{File: f.name, Range: r, Err: err}
}

func rangeOf(loc []bkparser.Range) Range {
	var r Range
	for i, l := range loc {
		if i == 0 || l.Start.Line < r.Start {
			r.Start = l.Start.Line
		}
		r.End = max(r.End, l.End.Line)
	}
	return r
}
