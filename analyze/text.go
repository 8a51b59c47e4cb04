package analyze

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/layerbuild/layerbuild/internal/units"
)

// TextOptions are the options of WriteText.
type TextOptions struct {
	Width int  // columns; 0: 80 for sentences, which are wrapped, and 100 for what is cut
	Color bool // color the dead parts
	Top   int  // findings shown; 0: 10, and 20 of a comparison

	wrap int // the column at which sentences are wrapped
}

// orDefaults returns the options with defaults for those that are not set.
func (o TextOptions) orDefaults(top int) TextOptions {
	return TextOptions{Width: cmp.Or(o.Width, 100), Color: o.Color, Top: cmp.Or(o.Top, top),
		wrap: cmp.Or(o.Width, sentenceWidth)}
}

// sentenceWidth is the column at which sentences are wrapped if there is no terminal.
const sentenceWidth = 80

// WriteJSON writes the report as JSON. docs/ANALYZE.md describes the format.
func (r *Report) WriteJSON(w io.Writer) error {
	return EncodeJSON(w, r)
}

// EncodeJSON writes v as indented JSON. It escapes the characters that Printable replaces,
// because terminals interpret some of them (U+009B begins a control sequence) and show others in
// a misleading order. The decoded value is unchanged.
func EncodeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	out := make([]byte, 0, b.Len())
	for text := b.Bytes(); len(text) > 0; {
		r, n := utf8.DecodeRune(text)
		if r >= 0x80 && !plainRune(r) {
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = append(out, text[:n]...)
		}
		text = text[n:]
	}
	_, err := w.Write(out)
	return err
}

// Printable returns a path or an instruction of an image in a form that is safe for a terminal:
// control characters, invalid UTF-8 and direction marks are shown as escapes.
func Printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !plainRune(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case plainRune(r):
			b.WriteRune(r)
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// plainRune reports whether a terminal shows a character and does not interpret it.
func plainRune(r rune) bool {
	return r != utf8.RuneError && !unicode.IsControl(r) &&
		!unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}

// printer writes lines and keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

// Wrap writes text after first, in lines of at most width columns (0: 80) where words allow it, as
// WriteText writes sentences.
func Wrap(w io.Writer, first, text string, width int) error {
	p := &printer{w: w}
	p.wrapped(first, text, cmp.Or(width, sentenceWidth))
	return p.err
}

// wrapped writes text after first, in lines of at most width columns where words allow it. The
// further lines are indented to the end of first.
func (p *printer) wrapped(first, text string, width int) {
	indent := utf8.RuneCountInString(first)
	line, column := first, indent
	for _, word := range phrases(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column > indent && column+1+n > width:
			p.printf("%s\n", strings.TrimRight(line, " "))
			line, column = strings.Repeat(" ", indent), indent
		case column > indent:
			line += " "
			column++
		}
		line += word
		column += n
	}
	p.printf("%s\n", line)
}

// phrases splits a text at the spaces where a line may end: never within a command, which is in
// quotes as ‘a b’, nor before a flag, nor before the number of a line.
func phrases(text string) []string {
	var list []string
	start, quoted := 0, false
	for i, r := range text {
		rest := text[i+utf8.RuneLen(r):]
		switch {
		case r == '‘' && (i == 0 || strings.HasSuffix(text[:i], " ") ||
			strings.HasSuffix(text[:i], "(")):
			quoted = true
		case r == '’':
			next, _ := utf8.DecodeRuneInString(rest)
			quoted = quoted && (unicode.IsLetter(next) || unicode.IsDigit(next)) // as in it’s
		case r == ' ' && !quoted && !strings.HasPrefix(rest, "--") &&
			!strings.HasSuffix(text[:i], " line"):
			list = append(list, text[start:i])
			start = i + 1
		}
	}
	return append(list, text[start:])
}

// WriteText writes the report for a terminal.
func (r *Report) WriteText(w io.Writer, o TextOptions) error {
	o = o.orDefaults(10)
	p := &printer{w: w}
	p.printf("%s", Printable(r.Image))
	for _, s := range []string{r.Platform, r.Digest} {
		if s != "" {
			p.printf("  %s", s)
		}
	}
	p.printf("\nbase: %s\n\n", r.Base.text())
	r.textInstructions(p, o)
	r.textTotals(p)
	r.textFindings(p, o)
	r.textDebris(p, o)
	r.textDuplicates(p, o)
	for _, w := range r.Warnings {
		p.wrapped("warning: ", Printable(w), o.wrap)
	}
	if g := r.Gate; g != nil {
		for _, f := range g.Failures {
			p.wrapped("gate: ", Printable(f), o.wrap)
		}
		if g.Passed {
			p.printf("gate: passed\n")
		}
	}
	return p.err
}

func (b Base) text() string {
	name := Printable(b.Name)
	if name == "" {
		name = "none"
		if b.Layers > 0 {
			name = "an unknown image"
		}
	}
	layers := fmt.Sprintf(", %d layers", b.Layers)
	if b.Layers == 1 {
		layers = ", 1 layer"
	}
	if b.Layers == 0 {
		layers = ""
	}
	how := map[BaseSource]string{
		BaseRecord: "recorded by the build", BaseAnnotation: "from the image's annotations",
		BaseGiven: "from --base", BaseGuess: "a guess: " + Printable(b.Note),
	}[b.Source]
	if how != "" {
		how = " (" + how + ")"
	}
	return name + layers + how
}

const barWidth = 16

// bar draws live and dead bytes on a scale from 0 to most.
func bar(live, dead, most int64, width int) (string, string) {
	if most <= 0 {
		return "", ""
	}
	cells := func(n int64) int {
		c := int(float64(n)/float64(most)*float64(width) + 0.5)
		if c == 0 && n > 0 {
			c = 1
		}
		return c
	}
	l, d := cells(live), cells(dead)
	if l+d > width {
		if l > d {
			l = width - d
		} else {
			d = width - l
		}
	}
	return strings.Repeat("█", l), strings.Repeat("░", d)
}

func (r *Report) textInstructions(p *printer, o TextOptions) {
	var most int64
	for _, l := range r.Layers {
		most = max(most, l.Bytes)
	}
	p.printf("%-7s %8s %8s %8s  %-*s  %s\n", "LINE", "SIZE", "LIVE", "DEAD",
		barWidth, "", "INSTRUCTION")
	for i := range r.Instructions {
		ins := &r.Instructions[i]
		if ins.Layer < 0 {
			continue
		}
		l := &r.Layers[ins.Layer]
		live, dead := bar(l.Live, l.Dead, most, barWidth)
		pad := strings.Repeat(" ", barWidth-len([]rune(live+dead)))
		if o.Color && dead != "" {
			dead = "\x1b[31m" + dead + "\x1b[0m"
		}
		p.printf("%-7s %8s %8s %8s  %s%s%s  %s\n", r.lineOf(ins), units.Size(l.Bytes),
			units.Size(l.Live), deadSize(l.Dead), live, dead, pad,
			shorten(Printable(ins.Text), max(20, o.Width-55)))
		for _, s := range l.Reasons {
			p.printf("%-7s %8s %8s %8s  %s\n", "", "", "", units.Size(s.Bytes),
				s.Reason.Text()+r.killers(ins.Layer, s.Reason))
		}
	}
	p.printf("\n")
}

func deadSize(n int64) string {
	if n == 0 {
		return "-"
	}
	return units.Size(n)
}

// lineOf returns the text of the first column: a line of the Dockerfile, or the owner of the
// instruction.
func (r *Report) lineOf(ins *Instruction) string {
	switch {
	case ins.Owner == BaseImage:
		return "base"
	case ins.Line == 0:
		return "-"
	case ins.Owner == EarlierStage:
		return fmt.Sprintf("%d stage", ins.Line)
	case ins.EndLine > ins.Line:
		return fmt.Sprintf("%d-%d", ins.Line, ins.EndLine)
	}
	return fmt.Sprint(ins.Line)
}

// killers names the instructions that made bytes of a layer invisible for a reason.
func (r *Report) killers(layer int, reason Reason) string {
	var list []string
	seen := map[int]bool{}
	for _, f := range r.Findings {
		if f.Creator == layer && f.Reason == reason && !seen[f.Killer] {
			seen[f.Killer] = true
			if ins := r.Made(f.Killer); ins.Line > 0 {
				list = append(list, ins.At())
			}
		}
	}
	if len(list) == 0 {
		return ""
	}
	if len(list) > 3 {
		list = append(list[:3], "…")
	}
	return ", by " + strings.Join(list, ", ")
}

func (r *Report) textTotals(p *printer) {
	p.printf("%s in %d layers: %s live, %s dead", units.Size(r.Total.Bytes), len(r.Layers),
		units.Size(r.Total.Live), units.Size(r.Total.Dead))
	if len(r.Owners) > 1 || len(r.Owners) == 1 && r.Owners[0].Owner == BaseImage {
		var parts []string
		for _, s := range r.Owners {
			parts = append(parts, fmt.Sprintf("%s %s", s.Owner.Text(), units.Size(s.Dead)))
		}
		p.printf(" (%s)", strings.Join(parts, ", "))
	}
	p.printf("\n")
	var compressed int64
	for _, l := range r.Layers {
		if l.Owner != BaseImage {
			compressed += l.DeadCompressed.Bytes
		}
	}
	if own := r.Own().Dead; own > 0 && compressed > 0 {
		p.printf("about %s of the compressed image can be removed (an estimate; prune-image "+
			"--dry-run prints the exact size)\n", units.Size(compressed))
	}
	p.printf("\n")
}

// arrow begins a remedy.
const arrow = "          → "

func (r *Report) textFindings(p *printer, o TextOptions) {
	if len(r.Findings) == 0 {
		p.printf("nothing is dead\n\n")
		return
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		if i == o.Top {
			var rest int64
			for _, f := range r.Findings[i:] {
				rest += f.Bytes
			}
			p.printf("and %d more, %s in total\n\n", len(r.Findings)-i, units.Size(rest))
			return
		}
		files := ""
		if f.Units > 1 {
			files = fmt.Sprintf(", %d files", f.Units)
		}
		accepted := ""
		if f.Accepted {
			accepted = ", accepted"
		}
		p.printf("%8s  %s\n", units.Size(f.Bytes), Printable(f.Path))
		p.printf("          %s%s%s\n", f.Reason.Text(), files, accepted)
		p.printf("          created by %s\n", r.named(f.Creator, o.wrap-21))
		if f.Killer != f.Creator {
			p.printf("          made dead by %s\n", r.named(f.Killer, o.wrap-23))
		}
		p.wrapped(arrow, Printable(f.Remedy), o.wrap)
	}
	p.printf("\n")
}

// named returns a layer's instruction with its line number.
func (r *Report) named(layer, width int) string {
	ins := r.Made(layer)
	text := shorten(Printable(ins.Text), max(20, width-12))
	switch {
	case ins.Owner == BaseImage:
		return "the base: " + text
	case ins.Line > 0:
		return ins.At() + ": " + text
	}
	return text
}

func (r *Report) textDebris(p *printer, o TextOptions) {
	if len(r.Debris) == 0 {
		return
	}
	p.printf("debris: visible files that are rarely needed\n")
	for i := range r.Debris {
		d := &r.Debris[i]
		if i == o.Top {
			p.printf("          and %d more\n", len(r.Debris)-i)
			break
		}
		what := d.Kind.Text()
		switch {
		case d.Kind == Secret && d.Dead:
			what = "LEAK: looks like a secret, hidden but still in a layer"
		case d.Files > 1:
			what += fmt.Sprintf(", %d files", d.Files)
		}
		if d.Accepted {
			what += ", accepted"
		}
		p.wrapped(fmt.Sprintf("%8s  ", units.Size(d.Bytes)), fmt.Sprintf("%s  (%s; %s)",
			Printable(d.Path), what, r.named(d.Layer, 50)), o.wrap)
		p.wrapped(arrow, Printable(d.Remedy), o.wrap)
	}
	p.printf("\n")
}

const shownDuplicates = 5

func (r *Report) textDuplicates(p *printer, o TextOptions) {
	if r.DuplicateBytes == 0 {
		return
	}
	p.printf("duplicates: %s beyond first copies\n", units.Size(r.DuplicateBytes))
	for _, d := range r.Duplicates[:min(len(r.Duplicates), shownDuplicates)] {
		paths := make([]string, 0, 3)
		for _, path := range d.Paths[:min(len(d.Paths), 3)] {
			paths = append(paths, Printable(path))
		}
		if d.Copies > len(paths) {
			paths = append(paths, "…")
		}
		p.wrapped(fmt.Sprintf("%8s  ", units.Size(d.Extra)), fmt.Sprintf("%d × %s: %s", d.Copies,
			units.Size(d.Size), strings.Join(paths, ", ")), o.wrap)
		if d.Remedy != "" {
			p.wrapped(arrow, Printable(d.Remedy), o.wrap)
		}
	}
	p.printf("\n")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
