package ui

import (
	"fmt"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/units"
)

// seconds prints d as every line of a build shows it.
func seconds(d time.Duration) string {
	return fmt.Sprintf("%.1fs", max(0, d).Seconds())
}

// amount prints how far something is.
func amount(current, total int64) string {
	if total <= 0 {
		return units.Size(current)
	}
	return units.Size(current) + " / " + units.Size(total)
}

// warningText is what w says, on one line.
func warningText(w event.Warning) string {
	if w.Rule == "" {
		return clean(w.Message)
	}
	return clean(w.Rule) + ": " + clean(w.Message)
}

// place is where w was found, in parentheses; empty where it was found nowhere.
func place(w event.Warning) string {
	switch {
	case w.File == "":
		return ""
	case w.Line == 0:
		return " (" + clean(w.File) + ")"
	}
	return fmt.Sprintf(" (%s:%d)", clean(w.File), w.Line)
}
