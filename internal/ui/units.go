package ui

import (
	"fmt"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
)

// seconds prints d as every line of a build shows it.
func seconds(d time.Duration) string {
	return fmt.Sprintf("%.1fs", max(0, d).Seconds())
}

// bytesText prints n with decimal units.
func bytesText(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%dB", max(0, n))
	}
	f := float64(n)
	for _, unit := range [...]string{"kB", "MB", "GB"} {
		if f /= 1000; f < 999.995 {
			return fmt.Sprintf("%.2f%s", f, unit)
		}
	}
	return fmt.Sprintf("%.2fTB", f/1000)
}

// amount prints how far something is.
func amount(current, total int64) string {
	if total <= 0 {
		return bytesText(current)
	}
	return bytesText(current) + " / " + bytesText(total)
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
