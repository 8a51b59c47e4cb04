package source

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// ReadIgnore reads an ignore file: the patterns in it, without comments and blank lines, cleaned. name is what the file
// is called in errors.
func ReadIgnore(name string, r io.Reader) ([]string, error) {
	lines, err := ignorefile.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if _, err := newMatcher(lines); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return lines, nil
}

// matcher tells which paths a list of patterns selects, later patterns over earlier ones, "!" taking back what was
// selected. What is selected for a directory holds for everything in it, until a later pattern says otherwise. That is
// why a directory's results (a matched) are needed for what is in it.
type matcher struct {
	pm    *patternmatcher.PatternMatcher
	rules []rule
}

// rule is what matcher has to know of a pattern to leave out directories, and to answer for most names without trying
// the pattern on them.
type rule struct {
	text      string
	parts     []string
	exception bool
	opaque    bool // nothing but the pattern itself knows what it matches
	exact     bool // text is a name
	// What it matches begins, ends and has something in it that is not up to its wildcards.
	prefix, suffix, inner string
}

// special are the characters for which parts of a pattern are not simply names and wildcards: those of classes and
// escapes, and those which patternmatcher hands on to its regular expressions or reads as something else.
const special = `[]\{}|^` + "\x00\ufeff\ufffd"

func newRule(text string, exception bool) rule {
	r := rule{text: text, parts: strings.Split(text, "/"), exception: exception, opaque: strings.ContainsAny(text, special) || !utf8.ValidString(text)}
	rest := text
	for first := true; ; first = false {
		i := strings.IndexAny(rest, "*?")
		if i < 0 {
			r.exact, r.suffix = first, rest
			return r
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
			rest = strings.TrimPrefix(rest, "/") // "**/" is no directory, too
		}
	}
}

// mayMatch never says no where the pattern matches name; it may say yes where it does not.
func (r *rule) mayMatch(name string) bool {
	switch {
	case r.opaque:
		return true
	case r.exact:
		return name == r.text
	}
	return strings.HasPrefix(name, r.prefix) && strings.HasSuffix(name, r.suffix) && strings.Contains(name, r.inner)
}

// matched is a directory's results; the zero value is that of the root, and of all where no pattern matches the
// directory or one that it is in.
type matched struct {
	info patternmatcher.MatchInfo
	some bool // info has something in it
}

// newMatcher returns nil if there are no patterns.
func newMatcher(patterns []string) (*matcher, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	for _, p := range patterns {
		if strings.Contains(p, "\x00") {
			return nil, fmt.Errorf("pattern %q: no name has a zero byte in it (is the file UTF-16?)", p)
		}
		// One by one, so that the error names the one that is wrong.
		if _, err := patternmatcher.New([]string{p}); err != nil {
			if strings.TrimSpace(p) == "!" {
				return nil, err
			}
			return nil, fmt.Errorf("pattern %q: %w", p, err)
		}
	}
	pm, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, err
	}
	m := &matcher{pm: pm}
	for _, p := range pm.Patterns() {
		m.rules = append(m.rules, newRule(p.String(), p.Exclusion()))
	}
	return m, nil
}

// match tells whether name, a path without leading slash, is selected. dir is the result of the directory it is in.
func (m *matcher) match(name string, dir matched) (bool, matched, error) {
	if !dir.some && !m.mayMatch(name) {
		return false, matched{}, nil
	}
	ok, info, err := m.pm.MatchesUsingParentResults(name, dir.info)
	if err != nil {
		return false, matched{}, fmt.Errorf("match %q against the patterns: %w", name, err)
	}
	return ok, matched{info, true}, nil
}

func (m *matcher) mayMatch(name string) bool {
	for i := range m.rules {
		if m.rules[i].mayMatch(name) {
			return true
		}
	}
	return false
}

// path does match for all directories on the way to name, and then for name.
func (m *matcher) path(name string) (ok bool, info matched, err error) {
	for i := range len(name) + 1 {
		if i < len(name) && name[i] != '/' {
			continue
		}
		if ok, info, err = m.match(name[:i], info); err != nil {
			return false, info, err
		}
	}
	return ok, info, nil
}

// takesBackBelow tells whether anything below dir, which is selected, can be taken back by an exception.
func (m *matcher) takesBackBelow(dir string) bool { return m.reachesBelow(dir, true) }

// selectsBelow tells whether anything below dir can be selected.
func (m *matcher) selectsBelow(dir string) bool { return m.reachesBelow(dir, false) }

func (m *matcher) reachesBelow(dir string, exception bool) bool {
	for i := range m.rules {
		if m.rules[i].exception == exception && m.rules[i].reachesBelow(dir) {
			return true
		}
	}
	return false
}

// reachesBelow never says no where the pattern matches a path below dir; it may say yes where it does not.
func (r *rule) reachesBelow(dir string) bool {
	if r.opaque {
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

// culprit returns the pattern that decides that name is selected.
func (m *matcher) culprit(name string) string {
	texts := make([]string, len(m.rules))
	decides := ""
	for i, r := range m.rules {
		texts[i] = r.text
		if r.exception {
			texts[i] = "!" + r.text
		}
		upTo, err := newMatcher(texts[:i+1])
		if err != nil {
			return ""
		}
		if ok, _, err := upTo.path(name); err != nil || !ok {
			decides = ""
		} else if decides == "" {
			decides = texts[i]
		}
	}
	return decides
}
