package source

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

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

// rule is what matcher has to know of a pattern to leave out directories.
type rule struct {
	text      string
	parts     []string
	exception bool
	opaque    bool // which directories it looks into cannot be read off its parts
}

// matched is a directory's results; the zero value is that of the root.
type matched = patternmatcher.MatchInfo

// newMatcher returns nil if there are no patterns.
func newMatcher(patterns []string) (*matcher, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	for _, p := range patterns {
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
		text := p.String()
		m.rules = append(m.rules, rule{
			text:      text,
			parts:     strings.Split(text, "/"),
			exception: p.Exclusion(),
			opaque:    strings.ContainsAny(text, `[\`),
		})
	}
	return m, nil
}

// match tells whether name, a path without leading slash, is selected. dir is the result of the directory it is in.
func (m *matcher) match(name string, dir matched) (bool, matched, error) {
	ok, info, err := m.pm.MatchesUsingParentResults(name, dir)
	if err != nil {
		return false, info, fmt.Errorf("match %q against the patterns: %w", name, err)
	}
	return ok, info, nil
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
