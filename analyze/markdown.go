package analyze

import (
	"fmt"
	"io"
	"strings"

	"github.com/layerbuild/layerbuild/internal/markdown"
	"github.com/layerbuild/layerbuild/internal/units"
)

// WriteMarkdown writes a summary for a pull request.
func (r *Report) WriteMarkdown(w io.Writer) error {
	p := &printer{w: w}
	own := r.Own()
	title := "Image analysis"
	if g := r.Gate; g != nil {
		title = map[bool]string{true: "✅ Image analysis: passed",
			false: "❌ Image analysis: failed"}[g.Passed]
	}
	p.printf("### %s\n\n", title)
	p.printf("%s · %s in %d layers · **%s dead**; own instructions: %s dead of %s · base: %s\n\n",
		code(r.Image), units.Size(r.Total.Bytes), len(r.Layers),
		units.Size(r.Total.Dead), units.Size(own.Dead), units.Size(own.Bytes),
		escape(r.Base.text()))
	if r.Gate != nil && !r.Gate.Passed {
		for _, f := range r.Gate.Failures {
			p.printf("- %s\n", escape(Printable(f)))
		}
		p.printf("\n")
	}
	p.printf("| Line | Instruction | Size | Live | Dead | Why |\n|---:|---|---:|---:|---:|---|\n")
	for i := range r.Instructions {
		ins := &r.Instructions[i]
		if ins.Layer < 0 || ins.Owner == BaseImage {
			continue
		}
		l := &r.Layers[ins.Layer]
		var why []string
		for _, s := range l.Reasons {
			why = append(why, s.Reason.Text()+r.killers(ins.Layer, s.Reason))
		}
		p.printf("| %s | %s | %s | %s | %s | %s |\n", r.lineOf(ins), code(shorten(ins.Text, 80)),
			units.Size(l.Bytes), units.Size(l.Live), deadSize(l.Dead),
			escape(strings.Join(why, "; ")))
	}
	p.printf("\n")
	r.markdownFindings(p)
	r.markdownDebris(p)
	return p.err
}

const markdownRows = 10

func (r *Report) markdownFindings(p *printer) {
	n := 0
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Owner == BaseImage {
			continue
		}
		if n++; n == 1 {
			p.printf("| Dead bytes | Path | Created by | Made dead by | Remedy |\n" +
				"|---:|---|---|---|---|\n")
		}
		if n > markdownRows {
			p.printf("| … | | | | |\n")
			break
		}
		p.printf("| %s | %s | %s | %s | %s |\n", units.Size(f.Bytes), code(f.Path),
			escape(r.named(f.Creator, 60)), escape(r.named(f.Killer, 60)),
			escape(Printable(f.Remedy)))
	}
	if n > 0 {
		p.printf("\n")
	}
}

func (r *Report) markdownDebris(p *printer) {
	n := 0
	for i := range r.Debris {
		d := &r.Debris[i]
		if d.Owner == BaseImage || d.Accepted {
			continue
		}
		if n++; n == 1 {
			p.printf("| Debris | Path | What | Remedy |\n|---:|---|---|---|\n")
		}
		if n > markdownRows {
			p.printf("| … | | | |\n")
			break
		}
		what := d.Kind.Text()
		if d.Dead {
			what = fmt.Sprintf("**leak**: %s, hidden but still in a layer", what)
		}
		p.printf("| %s | %s | %s | %s |\n", units.Size(d.Bytes), code(d.Path), what,
			escape(Printable(d.Remedy)))
	}
	if n > 0 {
		p.printf("\n")
	}
}

// code formats text of an image as code inside a table.
func code(s string) string { return markdown.Code(Printable(s)) }

// escape escapes text so that Markdown shows it unchanged.
func escape(s string) string { return markdown.Escape(s) }
