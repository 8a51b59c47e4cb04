package ui

// What other views on a terminal need of ours.

// RuneWidth is the number of columns that r, which is no control character, takes on a terminal.
func RuneWidth(r rune) int { return width(r) }

// Columns is the number of columns that s takes; s has no control characters.
func Columns(s string) int { return columns(s) }

// Cut returns as much of s as fits into n columns; where something is left out it ends in "..".
func Cut(s string, n int) string { return cut(s, n) }

// Visible makes s, a line, fit for a terminal. Nothing that is in it is left out: control characters, characters that
// turn the direction of text and bytes that are not UTF-8 are spelled out.
func Visible(s string) string { return visible(s) }
