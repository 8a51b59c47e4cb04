package ui

import (
	"fmt"
	"io"
	"strings"

	"github.com/layerbuild/layerbuild/internal/event"
)

// Failure describes why a build failed. Only Err is required.
type Failure struct {
	Step   string   // the step's name; "": the error does not belong to a step
	Output []string // the last lines of the command's output
	File   string   // the Dockerfile; without File or Source there is no excerpt
	Source []byte   // its content
	Start  int      // the first line that Err concerns, from 1; 0: no excerpt
	End    int      // the last such line; less than Start: the same line
	Err    error
}

// PrintOptions are the options of Print and the other functions that print.
type PrintOptions struct {
	Color  bool
	Colors string // other colors than usual, in the form of BUILDKIT_COLORS
	Width  int    // the width at which long lines of a file are cut; 0: 200
}

func (o PrintOptions) palette() palette {
	if !o.Color {
		return palette{}
	}
	p, _ := parseColors(o.Colors)
	return p
}

const (
	outputRule  = "------\n"
	excerptRule = "--------------------\n"
)

// Print writes f as BuildKit does: the step with its last output, the position in the Dockerfile,
// and the error.
func (f Failure) Print(w io.Writer, o PrintOptions) error {
	var b strings.Builder
	if len(f.Output) > 0 {
		b.WriteString(outputRule)
		fmt.Fprintf(&b, " > %s:\n", clean(f.Step))
		for _, line := range f.Output {
			b.WriteString(clean(line) + "\n")
		}
		b.WriteString(outputRule)
	}
	b.WriteString(excerpt(f.File, f.Source, f.Start, f.End, o.Width))
	p := o.palette()
	b.WriteString(p.failed + "error:" + p.off + " " + cleanLines(f.Err.Error()) + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// cleanLines calls clean for each line of a text.
func cleanLines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, line := range lines {
		lines[i] = clean(line)
	}
	return strings.Join(lines, "\n")
}

// excerpt returns the lines from start to end of a file, marked, with two lines of context for a
// single line, and one for several. It returns "" if the file does not have these lines.
func excerpt(file string, source []byte, start, end, width int) string {
	if file == "" || len(source) == 0 || start < 1 {
		return ""
	}
	if width == 0 {
		width = 200
	}
	lines := strings.Split(strings.TrimSuffix(string(source), "\n"), "\n")
	if start > len(lines) {
		return ""
	}
	end = min(max(start, end), len(lines))
	around := 1
	if start == end {
		around = 2
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d\n%s", clean(file), start, excerptRule)
	for n := max(1, start-around); n <= min(len(lines), end+around); n++ {
		mark := "   "
		if n >= start && n <= end {
			mark = ">>>"
		}
		fmt.Fprintf(&b, " %3d | %s %s\n", n, mark,
			cut(visible(strings.TrimSuffix(lines[n-1], "\r")), width))
	}
	b.WriteString(excerptRule)
	return b.String()
}

// visible returns a line of a file with all of its characters visible, since the error may concern
// any of them.
func visible(line string) string {
	if isClean(line) {
		return line
	}
	var b strings.Builder
	column := 0
	for i, r := range line {
		switch {
		case r == '\t':
			n := 8 - column%8
			b.WriteString(strings.Repeat(" ", n))
			column += n
		case r == '\uFFFD' && !strings.HasPrefix(line[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, line[i])
			column += 4
		case r < ' ' || r >= 0x7f && r < 0xa0 || turns(r) || r == '\uFEFF':
			n, _ := fmt.Fprintf(&b, `\u%04x`, r)
			column += n
		default:
			b.WriteRune(r)
			column += width(r)
		}
	}
	return b.String()
}

// PrintWarnings writes the summary of a build's warnings. It writes nothing if there are none.
func PrintWarnings(w io.Writer, warnings []event.Warning, o PrintOptions) error {
	if len(warnings) == 0 {
		return nil
	}
	var b strings.Builder
	p := o.palette()
	b.WriteString("\n" + p.warning + fmt.Sprintf(" %s found:", count(len(warnings))) + p.off + "\n")
	for _, warning := range warnings {
		b.WriteString(" - " + warningText(warning) + place(warning) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// PrintFindings writes the warnings of a check of a Dockerfile in full, each with its rule, the
// address of its documentation, and an excerpt. source returns the content of a warning's file, or
// nil if it is not known.
func PrintFindings(w io.Writer, warnings []event.Warning, source func(file string) []byte,
	o PrintOptions) error {
	var b strings.Builder
	if len(warnings) == 0 {
		b.WriteString("Check complete, no warnings found.\n")
	} else {
		have := "has"
		if len(warnings) > 1 {
			have = "have"
		}
		fmt.Fprintf(&b, "Check complete, %s %s been found!\n", count(len(warnings)), have)
	}
	p := o.palette()
	for _, warning := range warnings {
		b.WriteString("\n" + p.warning + "WARNING:" + p.off)
		if warning.Rule != "" {
			b.WriteString(" " + clean(warning.Rule))
		}
		if warning.URL != "" {
			b.WriteString(" - " + clean(warning.URL))
		}
		b.WriteString("\n" + cleanLines(warning.Message) + "\n")
		text := ""
		if source != nil && warning.File != "" {
			text = excerpt(warning.File, source(warning.File), warning.Line, warning.End, o.Width)
		}
		if text == "" {
			if text = strings.Trim(place(warning), " ()"); text != "" {
				text += "\n"
			}
		}
		b.WriteString(text)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func count(warnings int) string {
	if warnings == 1 {
		return "1 warning"
	}
	return fmt.Sprintf("%d warnings", warnings)
}
