package browse

import (
	"regexp"
	"strings"

	"github.com/layerbuild/layerbuild/analyze"
)

// model is the state of the browser. It is changed by keys, and the screen is drawn from it.
type model struct {
	r      *analyze.Report
	quit   bool
	help   bool
	onTree bool // the tree has the focus, not the list of layers
	attrs  bool // modes and owners are shown

	layer    int // the selected one; len(r.Layers) is the final file system
	layerTop int // the first that is visible
	mode     mode

	view  *analyze.View // made when it is needed; nil after the layer has changed
	rows  rows
	stale bool // rows must be made again

	ask    ask
	answer string
	search search
	filter filter
	height int // of the panes, in the last drawing
	note   string
}

// mode selects the files of a layer that the tree shows.
type mode uint8

const (
	fullTree mode = iota // all files that exist after the layer, with its changes marked
	// the same, but the changes of all layers above the base are marked
	aggregated
	ownEntries // only the files in the layer
)

// ask is the question in the bottom line.
type ask uint8

const (
	askNothing ask = iota
	askSearch
	askFilter
)

func newModel(r *analyze.Report) *model {
	m := &model{r: r, attrs: true, height: 20, stale: true}
	m.rows.open = map[int32]bool{}
	return m
}

// final reports whether the final file system is selected.
func (m *model) final() bool { return m.layer == len(m.r.Layers) }

// current makes view and rows if they are missing or out of date.
func (m *model) current() {
	if m.view == nil && m.r.Tree != nil && len(m.r.Layers) > 0 {
		t, units := m.r.Tree, m.r.Units
		switch {
		case m.final(): // its content, not the changes by the last layer
			m.view = t.Since(len(m.r.Layers), len(m.r.Layers)-1, units)
		case m.mode == ownEntries:
			m.view = t.Layer(m.layer, units)
		case m.mode == aggregated:
			m.view = t.Since(m.since(), m.layer, units)
		default:
			m.view = t.After(m.layer, units)
		}
		m.stale = true
	}
	if m.stale && m.view != nil {
		m.rows.fill(m.view, &m.filter)
		m.search.done = false
		m.stale = false
	}
}

// since returns the first of the layers whose changes are marked together: the first one above the
// base or, without a base, the one above the lowest layer.
func (m *model) since() int {
	return min(m.layer, max(1, m.r.Base.Layers))
}

// press handles a key.
func (m *model) press(k key) {
	m.note = ""
	switch {
	case k == "ctrl+c":
		m.quit = true
	case m.help:
		m.help = false
		m.quit = k == "q"
	case m.ask != askNothing:
		m.typed(k)
	case m.common(k):
	case m.onTree:
		m.treeKey(k)
	default:
		m.layerKey(k)
	}
}

// common handles the keys with the same meaning in both panes.
func (m *model) common(k key) bool {
	switch k {
	case "q":
		m.quit = true
	case "?":
		m.help = true
	case "tab":
		m.onTree = !m.onTree
	case "/":
		m.ask, m.answer = askSearch, ""
	case "ctrl+f":
		m.ask, m.answer, m.onTree = askFilter, m.filter.text, true
	case "n", "N":
		m.onTree = true
		m.next(k == "n")
	case "esc":
		m.search = search{}
		if m.filter.text != "" {
			m.filter.text, m.filter.path, m.stale = "", nil, true
		}
	case "s", "ctrl+o":
		m.current()
		m.rows.byName = !m.rows.byName
		m.stale = true
	case "ctrl+b":
		m.attrs = !m.attrs
	case "ctrl+d":
		m.filter.onlyDead = !m.filter.onlyDead
		m.stale = true
	case "ctrl+r":
		m.toggle(analyze.Removed)
	case "ctrl+u":
		m.toggle(analyze.Unchanged)
	default:
		return false
	}
	return true
}

func (m *model) toggle(c analyze.Change) {
	m.filter.hide[c] = !m.filter.hide[c]
	m.stale = true
}

// layerKey handles a key for the layers.
func (m *model) layerKey(k key) {
	to := m.layer
	switch k {
	case "up", "k":
		to--
	case "down", "j":
		to++
	case "pgup", "u":
		to -= m.height - 1
	case "pgdn", "d":
		to += m.height - 1
	case "home", "g":
		to = 0
	case "end", "G":
		to = len(m.r.Layers)
	case "ctrl+l":
		m.show(fullTree)
	case "ctrl+a":
		m.show(aggregated)
	case "ctrl+e":
		m.show(ownEntries)
	case "ctrl+m", "right", "l":
		m.onTree = true
	}
	if to = min(max(to, 0), len(m.r.Layers)); to != m.layer {
		m.layer, m.view = to, nil
	}
}

func (m *model) show(to mode) {
	if m.mode != to {
		m.mode, m.view = to, nil
	}
}

// treeKey handles a key for the tree.
func (m *model) treeKey(k key) {
	m.current()
	r := &m.rows
	switch k {
	case "up", "k":
		r.move(-1)
	case "down", "j":
		r.move(1)
	case "pgup", "u":
		r.move(-(m.height - 1))
	case "pgdn", "d":
		r.move(m.height - 1)
	case "home", "g":
		r.move(-len(r.list))
	case "end", "G":
		r.move(len(r.list))
	case "space":
		r.toggle()
	case "right", "l":
		r.enter()
	case "left", "h":
		r.leave()
	case "ctrl+space":
		r.toggleAll()
		m.stale = true
	case "ctrl+a":
		m.toggle(analyze.Added)
	case "ctrl+m", "m":
		m.toggle(analyze.Changed)
	case "ctrl+l":
		m.show(fullTree)
	case "ctrl+e":
		m.show(ownEntries)
	}
}

// typed handles a key for the bottom line.
func (m *model) typed(k key) {
	switch k {
	case "esc":
		m.ask = askNothing
		return
	case "ctrl+m":
		m.answered()
		return
	case "backspace", "delete":
		if r := []rune(m.answer); len(r) > 0 {
			m.answer = string(r[:len(r)-1])
		}
	case "ctrl+u", "ctrl+w":
		m.answer = ""
	case "space":
		m.answer += " "
	default:
		if r := []rune(string(k)); len(r) == 1 && len(m.answer) < 200 {
			m.answer += string(k)
		}
	}
}

func (m *model) answered() {
	was := m.ask
	m.ask = askNothing
	if was == askFilter {
		m.filter.set(m.answer)
		m.stale = true
		return
	}
	m.search = search{text: m.answer}
	m.onTree = true
	m.next(true)
}

// filter selects the visible rows.
type filter struct {
	hide     [4]bool // by analyze.Change
	onlyDead bool
	text     string
	path     *regexp.Regexp
}

// set sets a regular expression, or a literal text if it is not a valid one.
func (f *filter) set(text string) {
	f.text, f.path = text, nil
	if text == "" {
		return
	}
	re, err := regexp.Compile(text)
	if err != nil {
		re = regexp.MustCompile(regexp.QuoteMeta(text))
	}
	f.path = re
}

// search is a search. Its results are computed when they are first needed.
type search struct {
	text  string
	done  bool
	found []int32 // nodes, in the order of the rows with all directories open
}

// next goes to the next result, or to the previous one.
func (m *model) next(forward bool) {
	if m.search.text == "" {
		return
	}
	m.current()
	if m.view == nil {
		return
	}
	if !m.search.done {
		m.search.found = m.rows.find(matcher(m.search.text))
		m.search.done = true
	}
	found := m.search.found
	if len(found) == 0 {
		m.note = "not found: " + m.search.text
		return
	}
	at := m.rows.rank(found, m.rows.selected(), forward)
	m.rows.reveal(found[at])
}

// matcher matches names that contain text, or paths if text has a slash. Case matters only if
// text has capitals.
func matcher(text string) func(name string, path func() string) bool {
	fold := strings.ToLower(text) == text
	return func(name string, path func() string) bool {
		if strings.Contains(text, "/") {
			name = path()
		}
		if fold {
			name = strings.ToLower(name)
		}
		return strings.Contains(name, text)
	}
}
