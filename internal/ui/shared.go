package ui

// Functions for other packages that draw on a terminal.

// RuneWidth returns the number of columns of r, which is not a control character, on a terminal.
func RuneWidth(r rune) int { return width(r) }

// Columns returns the number of columns of s, which has no control characters.
func Columns(s string) int { return columns(s) }

// Cut returns as much of s as fits into n columns. If something is cut off, the result ends in
// "..".
func Cut(s string, n int) string { return cut(s, n) }

// Visible returns s, a line, in a form that is safe for a terminal. Nothing is removed: control
// characters, characters that change the direction of text and bytes that are not UTF-8 are
// shown as escapes.
func Visible(s string) string { return visible(s) }
