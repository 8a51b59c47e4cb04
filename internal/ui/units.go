package ui

import (
	"fmt"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/units"
)

// seconds formats d as in every line of a build.
func seconds(d time.Duration) string {
	return fmt.Sprintf("%.1fs", max(0, d).Seconds())
}

// amount formats the progress of a part.
func amount(current, total int64) string {
	if total <= 0 {
		return units.Size(current)
	}
	return units.Size(current) + " / " + units.Size(total)
}

// warningText returns the text of w on one line.
func warningText(w event.Warning) string {
	if w.Rule == "" {
		return clean(w.Message)
	}
	return clean(w.Rule) + ": " + clean(w.Message)
}

// place returns the position of w in parentheses; "" if it has none.
func place(w event.Warning) string {
	switch {
	case w.File == "":
		return ""
	case w.Line == 0:
		return " (" + clean(w.File) + ")"
	}
	return fmt.Sprintf(" (%s:%d)", clean(w.File), w.Line)
}
