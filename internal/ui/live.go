package ui

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"golang.org/x/term"
)

// live renders a build on a terminal. It draws frames over the previous one, at most ten a
// second, and only if something has changed. A frame is one write of only the lines that
// changed, so that nothing flickers. It uses only sequences that every terminal since the VT100
// supports.
type live struct {
	rec   *record
	w     *writer
	size  func() (width, height int)
	logs  int
	paint palette
	// The current content of the terminal: the lines above the cursor. The cursor is at the
	// beginning of the next line.
	drawn      []frameLine
	drawnWidth int
}

// frameLine is one line of a frame.
type frameLine struct {
	text string // with colors
	cols int    // its width in columns
}

const livePause = 100 * time.Millisecond

func newLive(mu *sync.Mutex, rec *record, out io.Writer, o Options) *live {
	l := &live{rec: rec, logs: o.LogLines, size: sizer(out, o)}
	if l.logs <= 0 {
		l.logs = 6
	}
	if !o.NoColor {
		l.paint, _ = parseColors(o.Getenv(colorsVariable))
	}
	l.w = newWriter(mu, out, livePause, func(now time.Time) time.Duration {
		l.draw(now, false)
		for _, w := range rec.order {
			if w.state == running {
				return livePause // for the elapsed time
			}
		}
		return 0
	})
	return l
}

// sizer returns a function that reads the terminal's size. It is called before each frame, which is
// cheaper and safer than handling SIGWINCH.
func sizer(out io.Writer, o Options) func() (int, int) {
	return func() (int, int) {
		width, height := o.Width, o.Height
		if f, ok := out.(*os.File); ok && (width == 0 || height == 0) {
			if w, h, err := term.GetSize(int(f.Fd())); err == nil {
				if width == 0 {
					width = w
				}
				if height == 0 {
					height = h
				}
			}
		}
		if width <= 0 {
			width = 80
		}
		if height <= 0 {
			height = 24
		}
		return width, height
	}
}

func (l *live) handle(event.Event, *work) { l.w.poke() }
func (l *live) line(*work, []byte)        {}

func (l *live) close() error {
	drawn := false // a frame higher than the terminal cannot be overwritten
	l.w.mu.Lock()
	l.w.fill = func(now time.Time) time.Duration {
		if !drawn {
			drawn = true
			l.draw(now, true)
		}
		return 0
	}
	l.w.mu.Unlock()
	return l.w.close()
}

// Control sequences: ECMA-48, and DEC's private modes for the cursor (25) and for wrapping lines
// (7). Wrapping is off while a frame is drawn: if the terminal assumes another width for a
// character, a line is cut instead of wrapped.
const (
	beginFrame = "\x1b[?25l\x1b[?7l"
	endFrame   = "\x1b[?7h\x1b[?25h"
	clearLine  = "\x1b[K"
	clearBelow = "\x1b[J"
)

// draw passes a frame to the writer if it differs from the content of the terminal.
func (l *live) draw(now time.Time, final bool) {
	if len(l.rec.order) == 0 {
		return
	}
	width, height := l.size()
	frame := l.picture(now, width, height, final)
	same := width == l.drawnWidth && !final
	if same && equal(frame, l.drawn) {
		return
	}
	b := append(l.w.buf, beginFrame...)
	if up := l.rows(width); up > 0 {
		b = fmt.Appendf(b, "\r\x1b[%dA", up)
	}
	if !same {
		// Clear before writing: a terminal that wraps lines stores which rows belong together until
		// they are cleared, and would join them when it becomes wider (tmux 3.3).
		b = append(b, clearBelow...)
	}
	for i, line := range frame {
		if !same || i >= len(l.drawn) || line.text != l.drawn[i].text {
			b = append(append(b, line.text...), clearLine...)
		}
		b = append(b, "\r\n"...)
	}
	if len(frame) < len(l.drawn) {
		b = append(b, clearBelow...)
	}
	l.w.buf = append(b, endFrame...)
	l.drawn, l.drawnWidth = frame, width
}

// rows returns the number of rows between the first line of the frame and the cursor. On a
// terminal that has become narrower a line may take several rows: most terminals wrap their
// content again.
func (l *live) rows(width int) int {
	rows := len(l.drawn)
	for _, line := range l.drawn {
		rows += max(0, line.cols-1) / width
	}
	return rows
}

func equal(a, b []frameLine) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].text != b[i].text {
			return false
		}
	}
	return true
}

// picture returns the frame for the current state of the build. A final frame has every step and
// may be higher than the terminal.
func (l *live) picture(now time.Time, width, height int, final bool) []frameLine {
	// leave the last column free: some terminals wrap after it
	p := painter{width: width - 1, palette: l.paint, now: now}
	lines := []frameLine{p.header(l.rec, final)}
	var blocks []block
	if final {
		blocks = l.all()
	} else {
		blocks = l.choose(max(1, height-2)) // without the header and the line of the cursor
	}
	for _, b := range blocks {
		lines = append(lines, p.step(b.w))
		if b.w.reason != "" && b.parts > 0 {
			lines = append(lines, p.reason(b.w))
			b.parts--
		}
		for _, part := range pickParts(b.w, b.parts) {
			lines = append(lines, p.part(part))
		}
		for _, line := range b.w.lastLines(b.logs) {
			lines = append(lines, p.log(b.w, line))
		}
	}
	return lines
}

// block is a piece of work in a frame: its line, and the numbers of lines for its parts and its
// output.
type block struct {
	w           *work
	parts, logs int
}

func (l *live) all() []block {
	blocks := make([]block, len(l.rec.order))
	for i, w := range l.rec.order {
		blocks[i] = block{w: w, parts: w.reasonLines()}
		if w.state == failed {
			blocks[i].logs = tailLines
		}
	}
	return blocks
}

// reasonLines is the number of lines for the reason why w runs.
func (w *work) reasonLines() int {
	if w.reason == "" {
		return 0
	}
	return 1
}

// maxParts is the largest number of parts of one piece of work in a frame.
const maxParts = 8

// choose selects the blocks that fit into a number of lines. Steps that run or have failed come
// first; then some of the steps that have ended, the latest first. The remaining lines are
// shared by the output and the parts of running steps.
func (l *live) choose(room int) []block {
	var busy, ended []*work
	for _, w := range l.rec.order {
		if w.state == running || w.state == failed {
			busy = append(busy, w)
		} else {
			ended = append(ended, w)
		}
	}
	if len(busy) > room {
		busy = busy[len(busy)-room:]
	}
	room -= len(busy)
	wants := make(map[*work]*block, len(busy))
	var want int
	for _, w := range busy {
		b := &block{w: w, parts: min(maxParts, len(w.parts)) + w.reasonLines(),
			logs: min(l.logs, w.lineCount())}
		wants[w] = b
		want += b.parts + b.logs
	}
	keep := min(len(ended), max(room-want, min(room, 3)))
	room -= keep
	shrink(busy, wants, want, room)
	keepFrom := len(ended) - keep
	shown := make([]block, 0, len(busy)+keep)
	e := 0
	for _, w := range l.rec.order {
		if e < len(ended) && ended[e] == w {
			if e++; e > keepFrom {
				shown = append(shown, block{w: w})
			}
		} else if b := wants[w]; b != nil {
			shown = append(shown, *b)
		}
	}
	return shown
}

// shrink takes lines from the largest requests until all fit into room.
func shrink(busy []*work, wants map[*work]*block, want, room int) {
	for ; want > room; want-- {
		var most *block
		for _, w := range busy {
			if b := wants[w]; most == nil || b.parts+b.logs > most.parts+most.logs {
				most = b
			}
		}
		if most.parts > most.logs {
			most.parts--
		} else {
			most.logs--
		}
	}
}

// pickParts returns n parts of w, in their order: first those that are not done, then the latest
// others.
func pickParts(w *work, n int) []*part {
	if len(w.parts) <= n {
		return w.parts
	}
	active := 0
	for _, p := range w.parts {
		if !p.done {
			active++
		}
	}
	skipActive, skipDone := max(0, active-n), len(w.parts)-active-max(0, n-active)
	picked := make([]*part, 0, n)
	for _, p := range w.parts {
		switch {
		case p.done && skipDone > 0:
			skipDone--
		case !p.done && skipActive > 0 && len(picked)+skipActive >= n:
			skipActive--
		case len(picked) < n:
			picked = append(picked, p)
		}
	}
	return picked
}

// lineCount returns the number of lines of w's output that can be shown.
func (w *work) lineCount() int {
	n := 0
	if w.tail != nil {
		n = w.tail.count()
	}
	if w.openLine() != "" {
		n++
	}
	return n
}

// openLine returns the last line, if it has not ended yet.
func (w *work) openLine() string {
	for _, s := range w.streams {
		if s != nil && len(s.line) > 0 {
			return string(s.line)
		}
	}
	return ""
}

// lastLines returns the last n lines of w's output, including one that has not ended.
func (w *work) lastLines(n int) []string {
	if n == 0 {
		return nil
	}
	if open := w.openLine(); open != "" {
		return append(w.tail.last(n-1), open)
	}
	return w.tail.last(n)
}

// painter formats lines of a frame.
type painter struct {
	palette
	width int
	now   time.Time
}

func (p painter) header(r *record, final bool) frameLine {
	color, word := "", ""
	if final {
		color, word = p.done, " FINISHED"
		if r.failed != nil {
			color = p.failed
		}
	}
	return p.line(fmt.Sprintf("[+] Building %s (%d/%d)%s", seconds(p.now.Sub(r.begun)), r.ended,
		r.total(), word), "", color)
}

func (p painter) step(w *work) frameLine {
	color, word := "", ""
	switch w.state {
	case succeeded:
		color = p.done
	case cached:
		color, word = p.done, "CACHED "
	case failed:
		color, word = p.failed, "ERROR "
	case canceled:
		color, word = p.canceled, "CANCELED "
	case repaired:
		color, word = p.canceled, "REPAIRING "
	case running:
	default:
		panic("unreachable")
	}
	return p.line(" => "+word+w.name, seconds(w.elapsed(p.now)), color)
}

func (p painter) log(w *work, line string) frameLine {
	color := ""
	if w.state == failed {
		color = p.failed
	}
	return p.line(" => => # "+line, "", color)
}

// reason returns the line for the reason why w runs.
func (p painter) reason(w *work) frameLine {
	return p.line(" => => "+w.runsBecause(), "", "")
}

// barWidth is the width of a progress bar inside its brackets, in columns.
const barWidth = 20

func (p painter) part(part *part) frameLine {
	right := amount(part.current, part.total)
	if part.total > 0 && p.width >= 64 {
		full := int(barWidth * min(max(0, part.current), part.total) / part.total)
		bar := strings.Repeat("=", full)
		if full < barWidth {
			bar += ">"
		}
		right += fmt.Sprintf(" [%-*.*s]", barWidth, barWidth, bar)
	}
	end := p.now
	if part.done {
		end = part.last
	}
	right += fmt.Sprintf(" %6s", seconds(end.Sub(part.begun)))
	return p.line(" => => "+shorten(clean(part.name)), right, "")
}

// line returns a line of left and right. It cuts left if there is not enough room. Both must be
// clean.
func (p painter) line(left, right, color string) frameLine {
	room := p.width
	if right != "" {
		room -= len(right) + 1
	}
	if room < 8 && right != "" {
		room, right = p.width, ""
	}
	left = cut(left, room)
	cols := columns(left)
	text := left
	if right != "" {
		text += strings.Repeat(" ", p.width-cols-len(right)) + right
		cols = p.width
	}
	if color != "" {
		text = color + text + p.off
	}
	return frameLine{text: text, cols: cols}
}

// shorten keeps twelve digits of each digest in s, as for image IDs.
func shorten(s string) string {
	const name, full, short = "sha256:", 64, 12
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, name)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		b.WriteString(name)
		n := 0
		for n < len(after) && strings.IndexByte("0123456789abcdef", after[n]) >= 0 {
			n++
		}
		if n == full {
			b.WriteString(after[:short])
			after = after[full:]
		}
		s = after
	}
}
