package browse

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/internal/units"
)

// style is the appearance of a text by its purpose: the parameter of SGR (ECMA-48).
type style string

const (
	plain    style = ""
	reverse  style = "7"
	strong   style = "1"
	under    style = "4"
	dim      style = "2"
	added    style = "32"
	changed  style = "33"
	removed  style = "31"
	deadText style = "1;35"
)

// withoutColor returns the style without its color.
func (s style) withoutColor() style {
	switch s {
	case added, changed, removed:
		return plain
	case deadText:
		return strong
	}
	return s
}

// line is one line of the screen that is being drawn. Text is cut at its width.
type line struct {
	b     []byte
	room  int // remaining columns
	color bool
}

// put adds text, without characters that are unsafe for a terminal.
func (l *line) put(s style, text string) {
	text = ui.Cut(text, l.room)
	if text == "" {
		return
	}
	if !l.color {
		s = s.withoutColor()
	}
	if s == plain {
		l.b = append(l.b, text...)
	} else {
		l.b = append(append(append(append(append(l.b, "\x1b["...), s...), 'm'), text...),
			"\x1b[0m"...)
	}
	l.room -= ui.Columns(text)
}

// putDead adds a column of dead bytes to a row with a style.
func (l *line) putDead(row style, dead string) {
	if dead != "" {
		row = deadText
	}
	l.put(row, fmt.Sprintf(" %9s", dead))
}

// fill adds spaces up to the line's end.
func (l *line) fill(s style) { l.put(s, strings.Repeat(" ", l.room)) }

// pane is a part of the screen: lines of the same width.
type pane struct {
	width int
	color bool
	lines []string
}

func (p *pane) add(make func(l *line)) {
	l := line{room: p.width, color: p.color}
	make(&l)
	p.lines = append(p.lines, string(l.b))
}

// The smallest widths of the two panes side by side, and the largest width of the layers.
const (
	minSplit  = 84
	maxLayers = 60
	details   = 5
)

// picture returns the lines of the whole screen.
func (m *model) picture(width, height int, color bool) []string {
	all := pane{width: width, color: color}
	if m.help {
		m.helpText(&all)
	} else if height < 5 || width < 20 {
		all.add(func(l *line) { l.put(plain, "too small") })
	} else {
		m.current()
		below := 1
		if height >= 16 {
			below += details + 1
		}
		m.height = height - 2 - below
		m.title(&all)
		m.panes(&all)
		if below > 1 {
			all.add(func(l *line) { l.put(dim, strings.Repeat("─", width)) })
			d := pane{width: width, color: color}
			m.details(&d)
			all.lines = append(all.lines, d.lines...)
		}
		for len(all.lines) < height-1 {
			all.lines = append(all.lines, "")
		}
		m.bottom(&all)
	}
	for len(all.lines) < height {
		all.lines = append(all.lines, "")
	}
	return all.lines[:height]
}

func (m *model) title(p *pane) {
	t := m.r.Total
	sums := fmt.Sprintf(" %s in %d layers, dead %s (%s) ", units.Size(t.Bytes), len(m.r.Layers),
		units.Size(t.Dead), units.Share(t.Dead, t.Bytes))
	p.add(func(l *line) {
		l.put(reverse, " "+ui.Cut(ui.Visible(m.r.Image), max(8, l.room-len(sums)-2)))
		if n := l.room - len(sums); n > 0 {
			l.put(reverse, strings.Repeat(" ", n))
		}
		l.put(reverse, sums)
		l.fill(reverse)
	})
}

// panes adds layers and tree side by side, or only the active pane if there is not enough room
// for both.
func (m *model) panes(all *pane) {
	if all.width < minSplit {
		p := pane{width: all.width, color: all.color}
		if m.onTree {
			m.tree(&p)
		} else {
			m.layers(&p)
		}
		all.lines = append(all.lines, p.lines...)
		return
	}
	left := pane{width: min(all.width*2/5, maxLayers), color: all.color}
	right := pane{width: all.width - left.width - 1, color: all.color}
	m.layers(&left)
	m.tree(&right)
	for i := range left.lines {
		// Set the column instead of padding the text: terminals differ in the width of some
		// characters.
		all.lines = append(all.lines, left.lines[i]+fmt.Sprintf("\x1b[%dG│",
			left.width+1)+right.lines[i])
	}
}

func header(p *pane, text string, focus bool) {
	p.add(func(l *line) {
		if focus {
			l.put(strong, "● "+text)
		} else {
			l.put(dim, "  "+text)
		}
	})
}

// selection returns the style of a selected row.
func selection(focus bool) style {
	if focus {
		return reverse
	}
	return under
}

func (m *model) layers(p *pane) {
	header(p, "   Size      Dead  From  Instruction", !m.onTree)
	n := len(m.r.Layers) + 1
	m.layerTop = scroll(m.layerTop, m.layer, n, m.height)
	for i := m.layerTop; i < m.layerTop+m.height; i++ {
		p.add(func(l *line) {
			if i >= n {
				return
			}
			size, dead, from, text := m.layerText(i)
			columns := fmt.Sprintf("%9s", size)
			rest := fmt.Sprintf(" %5s  %s", from, text)
			if i == m.layer {
				s := selection(!m.onTree)
				l.put(s, columns+fmt.Sprintf(" %9s", dead)+rest)
				l.fill(s)
				return
			}
			l.put(plain, columns)
			l.putDead(plain, dead)
			l.put(plain, rest)
		})
	}
}

// layerText returns the texts in a layer's row.
func (m *model) layerText(i int) (size, dead, from, text string) {
	if i == len(m.r.Layers) {
		return units.Size(m.r.Total.Live), "", "", "the final file system"
	}
	layer := &m.r.Layers[i]
	if layer.Dead > 0 {
		dead = units.Size(layer.Dead)
	}
	in := m.instruction(i)
	switch {
	case layer.Owner == analyze.BaseImage:
		from = "base"
	case in.Line > 0:
		from = "L" + strconv.Itoa(in.Line)
	case layer.Owner == analyze.EarlierStage:
		from = "stage"
	}
	return units.Size(layer.Bytes), dead, from, ui.Visible(in.Text)
}

// instruction returns the instruction that made a layer.
func (m *model) instruction(layer int) analyze.Instruction {
	if i := m.r.Layers[layer].Instruction; i >= 0 && i < len(m.r.Instructions) {
		return m.r.Instructions[i]
	}
	return analyze.Instruction{Text: "layer " + strconv.Itoa(layer+1)}
}

// step names the instruction of a layer within a sentence.
func (m *model) step(layer int32) string {
	if layer < 0 || int(layer) >= len(m.r.Layers) {
		return "nobody"
	}
	in := m.instruction(int(layer))
	name := "layer " + strconv.Itoa(int(layer)+1)
	if in.Line > 0 {
		name += ", line " + strconv.Itoa(in.Line)
	}
	return name + ": " + ui.Visible(in.Text)
}

// The marks of changes; colors show the same.
var marks = [...]struct {
	sign  string
	style style
}{analyze.Unchanged: {" ", plain}, analyze.Added: {"+", added}, analyze.Changed: {"~", changed},
	analyze.Removed: {"-", removed}}

func (m *model) tree(p *pane) {
	text := "     Size      Dead  " + m.treeTitle()
	attrs := m.attrs && p.width >= 60
	if attrs {
		text = " Mode          Owner" + text
	}
	header(p, text, m.onTree)
	r := &m.rows
	if m.view == nil {
		r.list = nil
	}
	r.top = scroll(r.top, r.at, len(r.list), m.height)
	for i := r.top; i < r.top+m.height; i++ {
		p.add(func(l *line) {
			switch {
			case i < len(r.list):
				m.row(l, i, attrs)
			case len(r.list) == 0 && i == r.top:
				l.put(dim, "  nothing here; "+m.whyEmpty())
			}
		})
	}
}

func (m *model) whyEmpty() string {
	if s := m.filterText(); s != "" {
		return s
	}
	return "the layer is empty"
}

func (m *model) treeTitle() string {
	switch {
	case m.final():
		return "The final file system"
	case m.mode == ownEntries:
		return "In layer " + strconv.Itoa(m.layer+1)
	case m.mode == aggregated:
		return fmt.Sprintf("Changes of layers %d to %d", m.since()+1, m.layer+1)
	}
	return "After layer " + strconv.Itoa(m.layer+1)
}

// row adds one line of the tree.
func (m *model) row(l *line, i int, attrs bool) {
	row := m.rows.list[i]
	n := m.view.Tree.Node(row.node)
	file := m.view.File(n)
	change := m.view.Change(n)
	mark := marks[change]
	before := mark.sign + " "
	if attrs {
		before += fmt.Sprintf("%-10s %9s", modeText(file), ownerText(file))
	}
	size, dead := "", ""
	switch b := m.view.Bytes(n); {
	case b > 0:
		size = units.Size(b)
	case file != nil && file.Unit >= 0 && m.r.Units[file.Unit].Bytes > 0:
		size = "(link)" // its content is counted under another name
	case file != nil && file.Type == analyze.Regular:
		size = units.Size(0)
	}
	if b := m.view.Dead(n); b > 0 {
		dead = units.Size(b)
	}
	before += fmt.Sprintf(" %9s", size)
	name := strings.Repeat("  ", min(int(row.depth), max(0, l.room/4-8)))
	switch {
	case m.rows.pass[row.node] != parent:
		name += "  "
	case m.rows.isOpen(row.node):
		name += "▾ "
	default:
		name += "▸ "
	}
	name += ui.Visible(n.Name)
	if file != nil && file.Type == analyze.Dir || file == nil && m.rows.pass[row.node] == parent {
		name += "/"
	}
	if file != nil && file.Type == analyze.Symlink {
		name += " -> " + ui.Visible(file.Link)
	}
	if i == m.rows.at {
		s := selection(m.onTree)
		l.put(s, before+fmt.Sprintf(" %9s  ", dead)+name)
		l.fill(s)
		return
	}
	l.put(mark.style, before)
	l.putDead(mark.style, dead)
	l.put(mark.style, "  "+name)
}

// scroll returns the first visible row such that the selected one is visible.
func scroll(top, at, n, height int) int {
	top = min(top, at, max(0, n-height))
	return max(top, at-height+1, 0)
}

// modeText returns a mode in the format of ls.
func modeText(f *analyze.File) string {
	if f == nil || f.Type == analyze.Gone {
		return ""
	}
	b := []byte("-rwxrwxrwx")
	switch f.Type {
	case analyze.Dir:
		b[0] = 'd'
	case analyze.Symlink:
		b[0] = 'l'
	case analyze.Device:
		b[0] = 'b'
	case analyze.Fifo:
		b[0] = 'p'
	}
	for i := range 9 {
		if f.Mode&(1<<(8-i)) == 0 {
			b[i+1] = '-'
		}
	}
	for i, c := range []byte("sst") { // setuid, setgid, sticky
		if at := 3 + 3*i; f.Mode&(04000>>i) != 0 {
			if b[at] == '-' {
				c -= 'a' - 'A'
			}
			b[at] = c
		}
	}
	return string(b)
}

func ownerText(f *analyze.File) string {
	if f == nil || f.Type == analyze.Gone {
		return ""
	}
	return fmt.Sprintf("%d:%d", f.UID, f.GID)
}

// details adds information about the selected row.
func (m *model) details(p *pane) {
	texts := m.layerDetails()
	if m.onTree {
		texts = m.nodeDetails()
	}
	s := strong
	for i, text := range texts {
		// The later texts keep at least one line each.
		for _, part := range wrap(text, p.width-2, details-len(p.lines)-(len(texts)-i-1)) {
			p.add(func(l *line) { l.put(s, " "+part) })
		}
		s = plain
	}
}

// wrap splits a text into lines, at spaces if possible; the last one of n has the whole rest.
func wrap(text string, width, n int) []string {
	var lines []string
	for len(lines) < n-1 && ui.Columns(text) > width {
		end, cols := 0, 0
		for i, r := range text {
			if cols += ui.RuneWidth(r); cols > width {
				break
			}
			if r == ' ' {
				end = i
			}
		}
		if end == 0 {
			break
		}
		lines = append(lines, text[:end])
		text = "  " + text[end+1:]
	}
	return append(lines, text)
}

func (m *model) layerDetails() []string {
	if m.final() {
		t := m.r.Total
		return []string{"All live files of the image",
			fmt.Sprintf("%s live in %d contents; %s dead in %d are not shown", units.Size(t.Live),
				t.Units-t.DeadUnits, units.Size(t.Dead), t.DeadUnits)}
	}
	layer := &m.r.Layers[m.layer]
	out := []string{m.step(int32(m.layer))}
	s := fmt.Sprintf("%s: live %s, dead %s; makes %s dead", units.Size(layer.Bytes),
		units.Size(layer.Live), units.Size(layer.Dead), units.Size(layer.Killed))
	if layer.Compressed > 0 {
		s += "; compressed " + units.Size(layer.Compressed)
	}
	out = append(out, s)
	var why []string
	for _, reason := range layer.Reasons {
		why = append(why, reason.Reason.Text()+" "+units.Size(reason.Bytes))
	}
	if len(why) > 0 {
		out = append(out, "dead: "+strings.Join(why, "; "))
	}
	s = fmt.Sprintf("%d entries, %d whiteouts", layer.Entries, layer.Whiteouts)
	if layer.IdleWhiteouts > 0 {
		s += fmt.Sprintf(" (%d hide nothing)", layer.IdleWhiteouts)
	}
	if layer.Digest != "" {
		s += "; " + ui.Visible(layer.Digest)
	}
	return append(out, s)
}

func (m *model) nodeDetails() []string {
	id := m.rows.selected()
	if m.view == nil || id < 0 {
		return nil
	}
	t := m.view.Tree
	n := t.Node(id)
	file := m.view.File(n)
	out := []string{ui.Visible(t.Path(n))}
	if m.view.Change(n) == analyze.Removed {
		return append(out, m.whatWas(n)...)
	}
	s := units.Size(m.view.Bytes(n))
	if c := m.view.Count(n); file == nil || file.Type != analyze.Regular {
		s += fmt.Sprintf(" in %d contents", c)
		if d := m.view.Dead(n); d > 0 {
			s += ", dead " + units.Size(d)
		}
	}
	if file != nil && file.Type != analyze.Gone {
		s = fmt.Sprintf("%s %s  %s  %s  %s", file.Type, modeText(file), ownerText(file), s,
			file.ModTime().UTC().Format("2006-01-02 15:04:05"))
		if file.Hardlink {
			s += "  hard link"
		}
	}
	out = append(out, s)
	if file != nil && file.Unit >= 0 {
		if u := &m.r.Units[file.Unit]; u.Dead() {
			return append(out, m.fate(u, t.Path(n))...)
		}
		return append(out, "created by "+m.step(file.Layer))
	}
	if f := m.largest(t.Path(n)); f != nil && m.view.Dead(n) > 0 {
		return append(out, fmt.Sprintf("most of it: %s %s, %s; by %s", ui.Visible(f.Path),
			units.Size(f.Bytes), f.Reason.Text(), m.step(int32(f.Killer))),
			"remedy: "+ui.Visible(f.Remedy))
	}
	return out
}

// whatWas describes the file that a layer removed from the node.
func (m *model) whatWas(n *analyze.Node) []string {
	var was *analyze.File
	for f := range m.view.Tree.Files(n) {
		if int(f.Layer) >= m.view.First {
			break
		}
		was = f
	}
	if was == nil || was.Unit < 0 {
		return []string{"removed"}
	}
	u := &m.r.Units[was.Unit]
	if !u.Dead() {
		return []string{fmt.Sprintf("removed; its content, %s, has another name",
			units.Size(u.Bytes))}
	}
	return append([]string{fmt.Sprintf("removed, but its %s are still in %s", units.Size(u.Bytes),
		m.step(u.Layer))}, m.remedy(u, m.view.Tree.Path(n))...)
}

// fate describes why a unit is dead.
func (m *model) fate(u *analyze.Unit, path string) []string {
	return append([]string{fmt.Sprintf("dead: %s by %s", u.Reason.Text(), m.step(u.Killer))},
		m.remedy(u, path)...)
}

func (m *model) remedy(u *analyze.Unit, path string) []string {
	own := m.r.Tree.Path(m.r.Tree.Node(u.Node))
	for i := range m.r.Findings {
		f := &m.r.Findings[i]
		if f.Creator == int(u.Layer) && f.Killer == int(u.Killer) && f.Reason == u.Reason &&
			(covers(f.Path, path) || covers(f.Path, own)) && f.Remedy != "" {
			return []string{"remedy: " + ui.Visible(f.Remedy)}
		}
	}
	return nil
}

// largest returns the largest finding at or below a directory among those in this view.
func (m *model) largest(dir string) *analyze.Finding {
	for i := range m.r.Findings {
		f := &m.r.Findings[i]
		if f.Creator <= m.layer && f.Killer > m.layer &&
			covers(strings.TrimSuffix(dir, "/")+"/", f.Path) {
			return f
		}
	}
	return nil
}

// covers reports whether a finding concerns path: a directory's path ends in a slash.
func covers(finding, path string) bool {
	return finding == path || strings.HasSuffix(finding, "/") &&
		(strings.HasPrefix(path, finding) || path+"/" == finding)
}

// filterText describes the filters.
func (m *model) filterText() string {
	var parts []string
	var hide []string
	for c := analyze.Unchanged; c <= analyze.Removed; c++ {
		if m.filter.hide[c] {
			hide = append(hide, c.String())
		}
	}
	if len(hide) > 0 {
		parts = append(parts, "without "+strings.Join(hide, ", "))
	}
	if m.filter.onlyDead {
		parts = append(parts, "only dead")
	}
	if m.filter.text != "" {
		parts = append(parts, "only "+ui.Visible(m.filter.text))
	}
	return strings.Join(parts, "; ")
}

func (m *model) bottom(p *pane) {
	p.add(func(l *line) {
		switch m.ask {
		case askSearch:
			l.put(strong, " search: "+ui.Visible(m.answer))
			l.put(reverse, " ")
			return
		case askFilter:
			l.put(strong, " only paths with (regular expression): "+ui.Visible(m.answer))
			l.put(reverse, " ")
			return
		}
		status := m.status()
		hints := " tab pane · space open · / search · ^a^r^m^u^d filter · s sort · ? help · q quit"
		l.put(dim, ui.Cut(hints, max(0, l.room-ui.Columns(status)-2)))
		if n := l.room - ui.Columns(status) - 1; n > 0 {
			l.put(plain, strings.Repeat(" ", n))
		}
		l.put(strong, status)
	})
}

// status describes the settings that differ from the initial ones.
func (m *model) status() string {
	var parts []string
	if m.note != "" {
		parts = append(parts, ui.Visible(m.note))
	} else if m.search.text != "" && m.search.done && m.view != nil && len(m.search.found) > 0 {
		at, _ := slices.BinarySearchFunc(m.search.found, m.rows.selected(), m.rows.compare)
		parts = append(parts, fmt.Sprintf("/%s %d of %d", ui.Visible(m.search.text),
			min(at+1, len(m.search.found)), len(m.search.found)))
	}
	if s := m.filterText(); s != "" {
		parts = append(parts, s)
	}
	if m.rows.byName {
		parts = append(parts, "by name")
	}
	return strings.Join(parts, "; ")
}

const helpText = `tab              the other pane: layers, tree
up down, k j     one row                    pgup pgdn, u d   one page
home end, g G    first, last
q, ctrl+c        quit                       ?                this help

Layers
ctrl+l           the whole tree after the layer, with its changes
ctrl+a           the same, with the changes of all layers above the base
ctrl+e           only what is in the layer
enter, right     into the tree

Tree
space            open or close a directory
ctrl+space       open or close all
right left, l h  into and out of a directory
/  n  N          search; next match, previous match
s, ctrl+o        by size, by name
ctrl+b           modes and owners

Filters: press to hide, and again to show
ctrl+a           added (+)                  ctrl+r           removed (-)
ctrl+m, m        changed (~)                ctrl+u           unchanged
ctrl+d           all but dead bytes         ctrl+f           all but paths with ...
esc              end search and path filter

Press any key to return.`

func (m *model) helpText(p *pane) {
	for text := range strings.SplitSeq(helpText, "\n") {
		p.add(func(l *line) { l.put(plain, " "+text) })
	}
}
