package ui

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// palette holds the sequences that turn colors on and off; they are empty without colors.
type palette struct{ done, failed, canceled, warning, off string }

var colors = palette{done: "\x1b[36m", failed: "\x1b[31m", canceled: "\x1b[33m",
	warning: "\x1b[33m", off: "\x1b[0m"}

// colorsVariable is the variable that changes the palette, as in BuildKit's programs.
const colorsVariable = "BUILDKIT_COLORS"

// colorNames are the names of the colors with the codes of ECMA-48 from 30 on. With light- before
// it, a name other than default has the code 90 and so on, which terminals have added.
var colorNames = [...]string{"black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"}

// parseColors changes the palette as the value of colorsVariable describes: entries KEY=COLOR,
// separated by colons. A color is a name or three numbers up to 255, separated by commas. It
// returns what is wrong with the other entries, which change nothing.
func parseColors(text string) (p palette, problems string) {
	p = colors
	var wrong []string
	for entry := range strings.SplitSeq(text, ":") {
		if entry == "" {
			continue
		}
		key, color, _ := strings.Cut(entry, "=")
		sequence, ok := colorSequence(strings.ToLower(color))
		switch key = strings.ToLower(key); {
		case !slices.Contains([]string{"run", "cancel", "error", "warning"}, key):
			wrong = append(wrong, fmt.Sprintf("%q has no effect: run, cancel, error or warning is "+
				"expected before =", entry))
		case !ok:
			wrong = append(wrong, fmt.Sprintf("%q has no effect: the name of a color or three "+
				"numbers up to 255 are expected after =", entry))
		case key == "run":
			p.done = sequence
		case key == "cancel":
			p.canceled = sequence
		case key == "error":
			p.failed = sequence
		case key == "warning":
			p.warning = sequence
		}
	}
	if len(wrong) == 0 {
		return p, ""
	}
	return p, "$" + colorsVariable + ": " + strings.Join(wrong, "; ")
}

// colorSequence returns the sequence that turns a color on.
func colorSequence(color string) (string, bool) {
	if color == "default" {
		return "\x1b[39m", true
	}
	base, name := 30, color
	if rest, ok := strings.CutPrefix(color, "light-"); ok {
		base, name = 90, rest
	}
	if i := slices.Index(colorNames[:], name); i >= 0 {
		return fmt.Sprintf("\x1b[%dm", base+i), true
	}
	fields := strings.Split(color, ",")
	if len(fields) != 3 {
		return "", false
	}
	// the nearest color of the cube with six steps for each of red, green and blue that terminals
	// with 256 colors have from 16 on
	n := 0
	for _, field := range fields {
		value, err := strconv.ParseUint(field, 10, 8)
		if err != nil {
			return "", false
		}
		n = n*6 + int(value)/43
	}
	return fmt.Sprintf("\x1b[38;5;%dm", 16+n), true
}
