package github

import "io"

// Writer passes text to another writer, and makes lines that would be commands harmless: "::" at
// the beginning of a line becomes ":\:", and "##[" becomes "##\[". It does not buffer.
type Writer struct {
	w       io.Writer
	bracket string // what replaces the bracket of "##["
	scan    scanner
}

// NewWriter returns a Writer for text.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w, bracket: `\[`, scan: newScanner()} }

// NewJSONWriter returns a Writer for JSON. The documents remain the same: only in strings there can
// be a "##[", and its bracket becomes an escape sequence.
func NewJSONWriter(w io.Writer) *Writer {
	return &Writer{w: w, bracket: `\u005b`, scan: newScanner()}
}

// Write implements io.Writer. After an error the returned number is 0.
func (w *Writer) Write(p []byte) (int, error) {
	if _, err := w.w.Write(w.scan.escape(p, w.bracket)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Inert returns a text that begins at the beginning of a line, as a Writer writes it. It returns p
// itself if nothing has to be changed.
func Inert(p []byte) []byte {
	s := newScanner()
	return s.escape(p, `\[`)
}

// scanner finds the bytes that complete the beginning of a command.
type scanner struct {
	start  bool // nothing but spaces and colons since the line began
	colon  bool // the line began with a colon
	hashes int
}

func newScanner() scanner { return scanner{start: true} }

// escape returns p with the bytes that complete the beginning of a command escaped.
//
// The runner skips all white space of Unicode at the beginning of a line, and it compares text
// under the rules of a language, which ignore some characters, such as the soft hyphen. The scanner
// therefore skips all bytes that are not ASCII, and control characters: at worst it escapes another
// line.
func (s *scanner) escape(p []byte, bracket string) []byte {
	var out []byte
	done := 0
	for i, c := range p {
		escape := ""
		switch {
		case c == '\n' || c == '\r':
			*s = newScanner()
			continue
		case c < ' ' || c >= 0x7f || c == ' ' && s.start && !s.colon:
			continue
		case c == ':' && s.start && !s.colon:
			s.colon = true
			continue
		case c == ':' && s.start:
			escape = `\:`
		case c == '#':
			s.hashes++
			s.start = false
			continue
		case c == '[' && s.hashes >= 2:
			escape = bracket
		}
		s.start, s.hashes = false, 0
		if escape != "" {
			out = append(append(out, p[done:i]...), escape...)
			done = i + 1
		}
	}
	if out == nil {
		return p
	}
	return append(out, p[done:]...)
}
