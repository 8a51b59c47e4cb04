package pattern

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Matcher reports which names a list of patterns selects. It is not safe for concurrent use.
type Matcher struct {
	rules []rule
	work  work
}

// Matched records which patterns of a list match a directory or one of its parents. It is needed to
// match names in the directory. The zero value is for the root.
type Matched struct{ rules []bool }

// New returns a Matcher for the patterns, or nil if there are none.
func New(patterns []string) (*Matcher, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	m := &Matcher{}
	for _, p := range patterns {
		if strings.Contains(p, "\x00") {
			return nil, fmt.Errorf(
				"pattern %q: no name has a zero byte in it (is the file UTF-16?)", p)
		}
		text := strings.TrimSpace(p)
		if text == "" {
			continue
		}
		text = filepath.Clean(text)
		exception := text[0] == '!'
		if exception {
			if text = text[1:]; text == "" {
				return nil, errors.New(`illegal exclusion pattern: "!"`)
			}
		}
		r, err := newRule(text, exception)
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", p, err)
		}
		m.rules = append(m.rules, r)
	}
	return m, nil
}

// Check returns filepath.ErrBadPattern for a mistake in a pattern.
func Check(text string) error {
	_, err := tokenize(text)
	return err
}

// Patterns returns the cleaned patterns, and whether any of them is an exception.
func (m *Matcher) Patterns() (texts []string, exceptions bool) {
	for i := range m.rules {
		texts = append(texts, m.rules[i].text)
		exceptions = exceptions || m.rules[i].exception
	}
	return texts, exceptions
}

// Match reports whether name, a path without leading slash, is selected. dir is the result for the
// directory that contains it. own is the result for name itself, which is needed to match names in
// it.
func (m *Matcher) Match(name string, dir Matched) (selected bool, own Matched) {
	own = dir
	for i := range m.rules {
		match := len(dir.rules) > 0 && dir.rules[i]
		// As in patternmatcher, a rule only has an effect if it changes the result: after a/b, the
		// exception !a is not an exception for a/b, since no rule had selected a.
		if !match && m.rules[i].exception == selected && m.rules[i].match(name, &m.work) {
			match = true
			if len(own.rules) == 0 || len(dir.rules) > 0 && &own.rules[0] == &dir.rules[0] {
				own.rules = make([]bool, len(m.rules))
				copy(own.rules, dir.rules)
			}
			own.rules[i] = true
		}
		if match {
			selected = !m.rules[i].exception
		}
	}
	return selected, own
}

// Path calls Match for all parent directories of name, and then for name.
func (m *Matcher) Path(name string) (selected bool, own Matched) {
	for i := range len(name) + 1 {
		if i == len(name) || name[i] == '/' {
			selected, own = m.Match(name[:i], own)
		}
	}
	return selected, own
}

// TakesBackBelow reports whether an exception can match a path below dir, which is selected.
func (m *Matcher) TakesBackBelow(dir string) bool { return m.reachesBelow(dir, true) }

// SelectsBelow reports whether a path below dir can be selected.
func (m *Matcher) SelectsBelow(dir string) bool { return m.reachesBelow(dir, false) }

func (m *Matcher) reachesBelow(dir string, exception bool) bool {
	for i := range m.rules {
		if m.rules[i].exception == exception && m.rules[i].reachesBelow(dir) {
			return true
		}
	}
	return false
}

// Decides returns the pattern that determines the result for name, or "" if none matches it.
func (m *Matcher) Decides(name string) string {
	_, own := m.Path(name)
	for i := len(own.rules) - 1; i >= 0; i-- {
		if r := &m.rules[i]; own.rules[i] {
			if r.exception {
				return "!" + r.text
			}
			return r.text
		}
	}
	return ""
}

// rule is one pattern.
type rule struct {
	text      string
	exception bool
	parts     []string
	tokens    []token // nil if filepath.Match matches text
	opaque    bool    // text has classes or escapes: the following fields are not set
	exact     bool    // text is a name
	// Literal texts that every matching name has at the beginning, at the end and within.
	prefix, suffix, inner string
}

func newRule(text string, exception bool) (rule, error) {
	r := rule{text: text, exception: exception, parts: strings.Split(text, "/"),
		opaque: strings.ContainsAny(text, `[\`)}
	tokens, err := tokenize(text)
	if err != nil {
		return rule{}, err
	}
	if slices.ContainsFunc(tokens, func(t token) bool { return t.kind == dirs || t.kind == all }) {
		r.tokens = tokens
	}
	if !r.opaque {
		r.literals()
	}
	return r, nil
}

// literals finds the literal parts of a pattern without classes and escapes.
func (r *rule) literals() {
	rest := r.text
	for first := true; ; first = false {
		i := strings.IndexAny(rest, "*?")
		if i < 0 {
			r.exact, r.suffix = first, rest
			return
		}
		literal := rest[:i]
		if first {
			r.prefix = literal
		} else if len(literal) > len(r.inner) {
			r.inner = literal
		}
		stars := rest[i:]
		rest = strings.TrimLeft(stars, "*?")
		if strings.Contains(stars[:len(stars)-len(rest)], "**") {
			rest = strings.TrimPrefix(rest, "/") // "**/" also matches an empty text
		}
	}
}

// mayMatch is a fast test: if it reports false, the pattern does not match name.
func (r *rule) mayMatch(name string) bool {
	switch {
	case r.opaque:
		return true
	case r.exact:
		return name == r.text
	}
	return strings.HasPrefix(name, r.prefix) && strings.HasSuffix(name, r.suffix) &&
		strings.Contains(name, r.inner)
}

// match reports whether the pattern matches name itself.
func (r *rule) match(name string, w *work) bool {
	if !r.mayMatch(name) {
		return false
	}
	if r.exact && !r.opaque {
		return true
	}
	if r.tokens == nil {
		ok, _ := filepath.Match(r.text, name)
		return ok
	}
	return w.match(r.tokens, name)
}

// reachesBelow is a fast test: if it reports false, the pattern matches no path below dir.
func (r *rule) reachesBelow(dir string) bool {
	if r.opaque { // a class can match a slash
		return true
	}
	for _, part := range r.parts {
		if strings.Contains(part, "**") || dir == "" {
			return true
		}
		name, rest, _ := strings.Cut(dir, "/")
		if ok, _ := filepath.Match(part, name); !ok {
			return false
		}
		dir = rest
	}
	return false // the pattern ends at dir or above it
}
