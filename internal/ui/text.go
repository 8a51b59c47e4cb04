package ui

import (
	"strings"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
)

// widths has the widths of characters. They do not depend on the locale: a terminal shows
// characters of ambiguous width (in Unicode's terms) in one column, unless its user has changed
// that.
var widths = runewidth.Condition{}

// width returns the number of columns of r on a terminal.
func width(r rune) int {
	if r < 0x300 {
		return 1 // Latin: the common case; r is never a control character
	}
	return widths.RuneWidth(r)
}

// columns returns the number of columns of s, which is clean.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n += width(r)
	}
	return n
}

// cut returns as much of s, which is clean, as fits into n columns. If something is cut off, the
// result ends in "..".
func cut(s string, n int) string {
	if n <= 0 {
		return ""
	}
	if len(s) <= n { // no character has more columns than bytes
		return s
	}
	const more = ".."
	taken, room := 0, 0 // room: where to cut if s does not fit
	for i, r := range s {
		w := width(r)
		if taken+w > n {
			if n <= len(more) {
				return s[:i]
			}
			return s[:room] + more
		}
		taken += w
		if taken <= n-len(more) {
			room = i + utf8.RuneLen(r)
		}
	}
	return s
}

// Clean makes s one line that is safe for a terminal, as the progress is.
func Clean(s string) string { return clean(s) }

// clean makes s one line that is safe for a terminal: control sequences are removed, tabs become
// spaces.
func clean(s string) string {
	if isClean(s) {
		return s
	}
	var out string
	l := lines{emit: func(line []byte) { out += " " + string(line) }, keepReturns: true}
	l.write([]byte(s))
	l.flush()
	return strings.TrimPrefix(out, " ")
}

func isClean(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// lines splits the output of a command, which arrives in pieces of any size, and calls emit for
// each line, in a form that is safe for a terminal. Escape sequences of every kind are removed, and
// so are other control characters and characters that change the direction of text; bytes that are
// not UTF-8 become U+FFFD. Tabs are expanded. A carriage return starts the line again, as on a
// terminal, so that only the last state of a progress bar becomes a line.
type lines struct {
	emit        func(line []byte) // the slice is valid until emit returns
	keepReturns bool              // a carriage return is removed without other effect

	line    []byte
	column  int
	state   scanState
	rewrite bool // after a carriage return: the next character starts the line again
	dirty   bool // there was output since the last emit
	rest    [utf8.UTFMax]byte
	nrest   int
}

// scanState is the scanner's position in an escape sequence (ECMA-48).
type scanState uint8

const (
	scanText         scanState = iota
	scanEscape                 // after ESC
	scanIntermediate           // after ESC and an intermediate byte: one more byte follows
	scanControl                // in CSI: parameters until a final byte
	scanString                 // in OSC, DCS, SOS, PM, APC: until BEL or ST
	scanStringEscape           // ESC inside a string: "\" ends it
)

// maxLine is the length at which a line is cut, to limit the memory for a line without an end.
const maxLine = 16 << 10

func (l *lines) write(p []byte) {
	for l.nrest > 0 && len(p) > 0 { // a character that was split between two pieces
		l.rest[l.nrest] = p[0]
		l.nrest, p = l.nrest+1, p[1:]
		if r := l.rest[:l.nrest]; utf8.FullRune(r) || l.nrest == utf8.UTFMax {
			c, size := utf8.DecodeRune(r)
			rest := append([]byte(nil), r[size:]...)
			l.nrest = 0
			l.rune(c)
			if len(rest) > 0 {
				p = append(rest, p...)
			}
		}
	}
	for len(p) > 0 {
		if l.state == scanText && !l.rewrite {
			if n := plainRun(p); n > 0 {
				l.text(p[:n])
				p = p[n:]
				continue
			}
		}
		if p[0] < utf8.RuneSelf {
			l.rune(rune(p[0]))
			p = p[1:]
			continue
		}
		if !utf8.FullRune(p) {
			l.nrest = copy(l.rest[:], p)
			return
		}
		c, size := utf8.DecodeRune(p)
		l.rune(c)
		p = p[size:]
	}
}

// plainRun returns the number of bytes at the beginning of p that are printable ASCII.
func plainRun(p []byte) int {
	for i, c := range p {
		if c < ' ' || c > '~' {
			return i
		}
	}
	return len(p)
}

func (l *lines) text(p []byte) {
	for len(l.line)+len(p) >= maxLine {
		n := maxLine - len(l.line)
		l.line = append(l.line, p[:n]...)
		p = p[n:]
		l.end()
	}
	if len(p) > 0 {
		l.line = append(l.line, p...)
		l.column += len(p)
		l.dirty = true
	}
}

func (l *lines) rune(c rune) {
	switch l.state {
	case scanText:
		l.plain(c)
	case scanEscape:
		l.escape(c)
	case scanIntermediate:
		if c < 0x20 || c > 0x2f {
			l.state = scanText
		}
	case scanControl:
		l.control(c)
	case scanString:
		switch c {
		case 0x07, 0x9c, 0x18, 0x1a: // BEL, ST; CAN and SUB cancel it
			l.state = scanText
		case 0x1b:
			l.state = scanStringEscape
		case '\n':
			// A terminal would ignore the following text; in a log the lines are more useful.
			l.state = scanText
			l.end()
		}
	case scanStringEscape:
		l.state = scanText
		if c != '\\' {
			l.escape(c)
		}
	}
}

// escape handles the character after ESC.
func (l *lines) escape(c rune) {
	switch {
	case c == '[':
		l.state = scanControl
	case c == ']', c == 'P', c == 'X', c == '^', c == '_':
		l.state = scanString
	case c >= 0x20 && c <= 0x2f:
		l.state = scanIntermediate
	case c == 0x1b:
		l.state = scanEscape
	case c < 0x20: // handle it as if there were no sequence
		l.state = scanText
		l.plain(c)
	default:
		l.state = scanText
	}
}

// control handles a character of a CSI sequence.
func (l *lines) control(c rune) {
	switch {
	case c >= 0x40 && c <= 0x7e, c == 0x18, c == 0x1a:
		l.state = scanText
	case c == 0x1b:
		l.state = scanEscape
	case c == '\n', c == '\r': // not a valid sequence
		l.state = scanText
		l.plain(c)
	case c > 0x7f:
		l.state = scanText
		l.plain(c)
	}
}

// plain handles a character outside of sequences.
func (l *lines) plain(c rune) {
	switch {
	case c == '\n':
		l.end()
	case c == '\r':
		l.rewrite = !l.keepReturns
	case c == '\t':
		l.fresh()
		for n := 8 - l.column%8; n > 0; n-- {
			l.text([]byte{' '})
		}
	case c == '\b':
		l.back()
	case c == 0x1b:
		l.state = scanEscape
	case c == 0x9b: // the eight-bit forms of CSI and of the strings' beginnings
		l.state = scanControl
	case c == 0x90, c == 0x98, c >= 0x9d && c <= 0x9f:
		l.state = scanString
	case c < ' ', c >= 0x7f && c < 0xa0, turns(c):
	default:
		l.fresh()
		l.line = utf8.AppendRune(l.line, c)
		l.column += width(c)
		l.dirty = true
		if len(l.line) >= maxLine {
			l.end()
		}
	}
}

// turns reports whether c changes the direction of text around it, or is a line separator that this
// package does not treat as one.
func turns(c rune) bool {
	switch {
	case c == 0x61c, c == 0x200e, c == 0x200f, c >= 0x2028 && c <= 0x202e,
		c >= 0x2066 && c <= 0x2069:
		return true
	}
	return false
}

// back removes the last character, because programs that draw a bar with backspaces overwrite it.
func (l *lines) back() {
	c, size := utf8.DecodeLastRune(l.line)
	if size > 0 {
		l.line = l.line[:len(l.line)-size]
		l.column -= width(c)
	}
}

func (l *lines) fresh() {
	if l.rewrite {
		l.line, l.column, l.rewrite = l.line[:0], 0, false
	}
}

func (l *lines) end() {
	l.emit(l.line)
	l.line, l.column, l.rewrite, l.dirty = l.line[:0], 0, false, false
}

// partial returns the unfinished line, if it is not empty.
func (l *lines) partial() []byte { return l.line }

// flush ends the unfinished line, if it is not empty.
func (l *lines) flush() {
	if l.nrest > 0 {
		l.nrest = 0
		l.rune(utf8.RuneError)
	}
	if l.dirty {
		l.end()
	}
}
