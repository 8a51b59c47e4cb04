package vttest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

// Terminal accepts the sequences that a view may send, and fails the test on any other. When it is
// resized, it wraps its lines again, as most terminals do.
type Terminal struct {
	NoWrap bool // lines are cut at the right edge; a line that is too long fails the test
	Hidden bool // the cursor is hidden
	// the topmost row that was written or cleared, counted from the first line ever
	Highest int
	Raw     strings.Builder // all bytes that were written

	// FullScreen allows the sequences that only a view of the whole screen may send: the alternate
	// screen and positions.
	FullScreen bool
	Alternate  bool // the alternate screen is shown

	t             testing.TB
	runeWidth     func(rune) int
	mu            sync.Mutex
	width, height int
	history       []string // lines that were scrolled out at the top
	rows          [][]cell
	x, y          int
	writes        int
	normal        [][]cell // the normal screen while the alternate one is shown
	normalX       int
	normalY       int
}

// cell is one column: a character, an attribute; the second column of a wide character has width 0
// and no text.
type cell struct {
	text  string
	attr  string
	tail  bool
	blank bool
}

// New returns an empty terminal. runeWidth returns the number of columns of a character.
func New(t testing.TB, width, height int, runeWidth func(rune) int) *Terminal {
	v := &Terminal{t: t, width: width, height: height, runeWidth: runeWidth, Highest: 1 << 30}
	v.rows = make([][]cell, height)
	return v
}

// Size returns the terminal's width and height.
func (v *Terminal) Size() (int, int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.width, v.height
}

// Write interprets p.
func (v *Terminal) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.writes++
	v.Raw.Write(p)
	attr := ""
	s := string(p)
	for s != "" {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			v.t.Errorf("byte %#x was written to the terminal", s[0])
		case r == '\r':
			v.x = 0
		case r == '\n':
			v.down()
		case r == 0x1b:
			size = v.sequence(s, &attr)
		case r < ' ' || r >= 0x7f && r < 0xa0:
			v.t.Errorf("control character %#x was written to the terminal", r)
		default:
			v.put(r, attr)
		}
		s = s[size:]
	}
	return len(p), nil
}

func (v *Terminal) sequence(s string, attr *string) int {
	end := strings.IndexFunc(s, func(r rune) bool {
		return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
	})
	if end < 0 {
		v.t.Errorf("unfinished sequence %q", s)
		return len(s)
	}
	seq := s[:end+1]
	switch {
	case seq == "\x1b[K":
		v.touch()
		if v.x < len(v.rows[v.y]) {
			v.rows[v.y] = v.rows[v.y][:v.x]
		}
	case seq == "\x1b[J":
		v.touch()
		v.rows[v.y] = v.rows[v.y][:min(v.x, len(v.rows[v.y]))]
		for y := v.y + 1; y < v.height; y++ {
			v.rows[y] = nil
		}
	case seq == "\x1b[?25l":
		v.Hidden = true
	case seq == "\x1b[?25h":
		v.Hidden = false
	case seq == "\x1b[?7l":
		v.NoWrap = true
	case seq == "\x1b[?7h":
		v.NoWrap = false
	case strings.HasSuffix(seq, "m"):
		if *attr = seq; seq == "\x1b[0m" {
			*attr = ""
		}
	case strings.HasSuffix(seq, "A"):
		var n int
		if _, err := fmt.Sscanf(seq, "\x1b[%dA", &n); err != nil || n < 1 {
			v.t.Errorf("sequence %q", seq)
		}
		v.y = max(0, v.y-n)
	case !v.FullScreen || !v.position(seq):
		v.t.Errorf("sequence %q was written to the terminal", seq)
	}
	return len(seq)
}

// position executes seq if it is a sequence that only a view of the whole screen may send, and
// reports whether it is one.
func (v *Terminal) position(seq string) bool {
	var y, x int
	switch {
	case seq == "\x1b[?1049h":
		if !v.Alternate {
			v.normal, v.normalX, v.normalY = v.rows, v.x, v.y
			v.rows, v.x, v.y, v.Alternate = make([][]cell, v.height), 0, 0, true
		}
	case seq == "\x1b[?1049l":
		if v.Alternate {
			v.rows, v.x, v.y, v.Alternate = v.normal, v.normalX, v.normalY, false
		}
	case seq == "\x1b[2J":
		v.rows = make([][]cell, v.height)
	case strings.HasSuffix(seq, "H"):
		if n, err := fmt.Sscanf(seq, "\x1b[%d;%dH", &y, &x); n != 2 || err != nil || y < 1 ||
			y > v.height || x < 1 || x > v.width {
			return false
		}
		v.y, v.x = y-1, x-1
	case strings.HasSuffix(seq, "G"):
		if n, err := fmt.Sscanf(seq, "\x1b[%dG", &x); n != 1 || err != nil || x < 1 || x > v.width {
			return false
		}
		v.x = x - 1
	default:
		return false
	}
	return true
}

func (v *Terminal) touch() { v.Highest = min(v.Highest, len(v.history)+v.y) }

func (v *Terminal) put(r rune, attr string) {
	w := v.runeWidth(r)
	v.touch()
	if w == 0 {
		if v.x > 0 && v.x <= len(v.rows[v.y]) {
			v.rows[v.y][v.x-1].text += string(r)
		}
		return
	}
	if v.x+w > v.width {
		if v.NoWrap {
			v.t.Errorf("line %d is too long for %d columns", v.y, v.width)
			v.x = v.width - w
		} else {
			v.x = 0
			v.down()
		}
	}
	for len(v.rows[v.y]) < v.x+w {
		v.rows[v.y] = append(v.rows[v.y], cell{text: " ", blank: true})
	}
	v.rows[v.y][v.x] = cell{text: string(r), attr: attr}
	if w == 2 {
		v.rows[v.y][v.x+1] = cell{tail: true}
	}
	v.x += w
}

func (v *Terminal) down() {
	if v.y++; v.y == v.height {
		v.history = append(v.history, line(v.rows[0], false))
		v.rows = append(v.rows[1:], nil)
		v.y--
	}
}

// Resize wraps the lines that are too long, and keeps the cursor's line on the screen.
func (v *Terminal) Resize(width, height int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var rows [][]cell
	cursor := 0
	for y, row := range v.rows {
		if y == v.y {
			cursor = len(rows)
		}
		if y > v.y && len(row) == 0 {
			continue
		}
		for len(row) > width {
			rows, row = append(rows, slices.Clone(row[:width])), slices.Clone(row[width:])
		}
		rows = append(rows, row)
	}
	for cursor >= height {
		v.history = append(v.history, line(rows[0], false))
		rows = rows[1:]
		cursor--
	}
	for len(rows) < height {
		rows = append(rows, nil)
	}
	v.rows, v.y, v.width, v.height = rows[:height], cursor, width, height
}

// line returns a row as text. With attrs set, attributes are written in angle brackets.
func line(row []cell, attrs bool) string {
	var b strings.Builder
	attr := ""
	for _, c := range row {
		if c.tail {
			continue
		}
		if attrs && c.attr != attr {
			attr = c.attr
			b.WriteString("<" + strings.TrimPrefix(attr, "\x1b") + ">")
		}
		b.WriteString(c.text)
	}
	return strings.TrimRight(b.String(), " ")
}

// Screen returns the text on the screen, without empty lines at the end.
func (v *Terminal) Screen() string { return v.Shot(false) }

// Shot is like Screen. With attrs set, attributes are written in angle brackets.
func (v *Terminal) Shot(attrs bool) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var lines []string
	for _, row := range v.rows {
		lines = append(lines, line(row, attrs))
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
}

// Run is a piece of a line whose characters have one attribute.
type Run struct {
	Text string
	Attr string // the sequence that began it; "" for none
}

// Runs returns the lines on the screen, without empty ones at the end.
func (v *Terminal) Runs() [][]Run {
	v.mu.Lock()
	defer v.mu.Unlock()
	var lines [][]Run
	end := 0
	for _, row := range v.rows {
		var runs []Run
		for _, c := range row {
			if c.tail {
				continue
			}
			if n := len(runs); n > 0 && runs[n-1].Attr == c.attr {
				runs[n-1].Text += c.text
				continue
			}
			runs = append(runs, Run{c.text, c.attr})
		}
		if lines = append(lines, runs); line(row, false) != "" {
			end = len(lines)
		}
	}
	return lines[:end]
}

// All returns the scrollback and the screen.
func (v *Terminal) All() string {
	s := v.Screen()
	v.mu.Lock()
	defer v.mu.Unlock()
	return strings.Join(append(append([]string{}, v.history...), ""), "\n") + s
}

// Sent returns the numbers of writes and of bytes so far.
func (v *Terminal) Sent() (writes, bytes int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.writes, v.Raw.Len()
}
