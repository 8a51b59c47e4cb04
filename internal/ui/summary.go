package ui

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/markdown"
)

// Summary holds the parts of a build's summary that the UI has not received as events.
type Summary struct {
	Title string // the name of the image, or of the Dockerfile; may be empty
	Err   error  // the error that ended the build
}

// summaryRows limits the lines of each table and list of a summary.
const summaryRows = 200

// WriteSummary writes a summary of the build so far as Markdown: its steps and other work with
// their times, which results came from the cache, the warnings, and the error that ended it.
func (u *UI) WriteSummary(w io.Writer, s Summary) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var b strings.Builder
	r := &u.record
	r.summaryHeading(&b, s)
	if s.Err != nil {
		b.WriteString("> [!CAUTION]\n")
		for line := range strings.Lines(cleanLines(s.Err.Error())) {
			b.WriteString("> " + markdown.Escape(strings.TrimSuffix(line, "\n")) + "\n")
		}
		b.WriteString("\n")
	}
	if len(r.order) > 0 {
		b.WriteString("| # | Step | Cache | Time |\n|---:|---|---|---:|\n")
	}
	for i, work := range r.order {
		if i == summaryRows {
			fmt.Fprintf(&b, "| | and %d more | | |\n", len(r.order)-i)
			break
		}
		result, took := work.summary()
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", work.number,
			markdown.Code(cut(work.name, maxName)), result, took)
	}
	b.WriteString("\n")
	r.summaryWarnings(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// summaryHeading writes the title, and how many steps came from the cache.
func (r *record) summaryHeading(b *strings.Builder, s Summary) {
	var steps, hits int
	var end time.Time
	for _, work := range r.order {
		if work.end.After(end) {
			end = work.end
		}
		if work.line == 0 {
			continue
		}
		steps++
		if work.state == cached {
			hits++
		}
	}
	mark := "✅"
	if s.Err != nil {
		mark = "❌"
	}
	b.WriteString("### " + mark + " layerbuild")
	if s.Title != "" {
		b.WriteString(": " + markdown.Code(clean(s.Title)))
	}
	b.WriteString("\n\n")
	if took := end.Sub(r.begun); took > 0 {
		b.WriteString(seconds(took) + " · ")
	}
	fmt.Fprintf(b, "%d of %d steps from the cache", hits, steps)
	if r.result != nil && r.result.Digest != "" {
		b.WriteString(" · " + markdown.Code(clean(r.result.Digest)))
	}
	b.WriteString("\n\n")
}

// summary returns the cells of a summary for the result and the time of a piece of work.
func (w *work) summary() (result, took string) {
	took = seconds(w.elapsed(w.end))
	switch w.state {
	case cached:
		return "hit", took
	case succeeded:
		switch {
		case w.reason != "":
			return "miss: " + markdown.Escape(cut(w.reason, maxName)), took
		case w.line > 0:
			return "miss", took
		}
		return "", took
	case failed:
		return "❌ failed", took
	case canceled:
		return "canceled", took
	}
	return "not finished", ""
}

func (r *record) summaryWarnings(b *strings.Builder) {
	list := r.sortedWarnings()
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "**%s**\n\n", count(len(list)))
	for i, warning := range list {
		if i == summaryRows {
			fmt.Fprintf(b, "- and %d more\n", len(list)-i)
			break
		}
		b.WriteString("- " + markdown.Escape(warningText(warning)+place(warning)) + "\n")
	}
	b.WriteString("\n")
}
