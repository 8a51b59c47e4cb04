package pattern

import (
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// token is a part of a pattern with "**" in it.
type token struct {
	kind tokenKind
	text string // for a literal, the bytes to match; for a class, its text with brackets
}

type tokenKind int

const (
	literal tokenKind = iota
	class             // one character of a class
	one               // "?": one character except a slash
	star              // "*": characters except slashes
	dirs              // "**" or "**/": nothing, or a text that ends with a slash
	all               // "**" at the end, or at the beginning if isSuffix: any text
)

// tokenize splits a pattern into tokens. It returns filepath.ErrBadPattern for any mistake in it.
// filepath.Match returns that error only if it reaches the mistake with the given name.
func tokenize(p string) ([]token, error) {
	var list []token
	text := func(s string) {
		if n := len(list); n > 0 && list[n-1].kind == literal {
			list[n-1].text += s
			return
		}
		list = append(list, token{literal, s})
	}
	for i := 0; i < len(p); {
		switch rest := p[i:]; {
		case rest == "**" || rest == "**/":
			list = append(list, token{kind: all})
			i = len(p)
		case i == 0 && isSuffix(p):
			list = append(list, token{kind: all})
			i += len("**")
		case strings.HasPrefix(rest, "**"):
			list = append(list, token{kind: dirs})
			i += len("**")
			if p[i] == '/' {
				i++
			}
		case rest[0] == '*':
			list = append(list, token{kind: star})
			i++
		case rest[0] == '?':
			list = append(list, token{kind: one})
			i++
		case rest[0] == '[':
			n, err := classLength(rest)
			if err != nil {
				return nil, err
			}
			list = append(list, token{class, rest[:n]})
			i += n
		case rest == `\`:
			return nil, filepath.ErrBadPattern
		case rest[0] == '\\':
			text(rest[1:2])
			i += 2
		default:
			text(rest[:1])
			i++
		}
	}
	return list, nil
}

// isSuffix reports whether a pattern is like "**.go", which patternmatcher matches against the end
// of a name, even within a path component.
func isSuffix(p string) bool {
	rest, ok := strings.CutPrefix(p, "**")
	return ok && !strings.HasPrefix(rest, "/") && !strings.ContainsAny(rest, `*?[\`)
}

// classLength returns the length of the class at the beginning of p: a bracket, perhaps ^, and one
// or more characters or ranges of characters. A bracket or a hyphen among the characters is
// preceded by a backslash.
func classLength(p string) (int, error) {
	i := 1
	if strings.HasPrefix(p[i:], "^") {
		i++
	}
	for begin := i; i == begin || p[i] != ']'; {
		n := characterLength(p[i:])
		if i += n; n > 0 && strings.HasPrefix(p[i:], "-") {
			i++
			n = characterLength(p[i:])
			i += n
		}
		if n == 0 || i == len(p) {
			return 0, filepath.ErrBadPattern
		}
	}
	return i + 1, nil
}

// characterLength returns the length of the character at the beginning of p, which is a part of a
// class; 0 if it is not valid there.
func characterLength(p string) int {
	n := 0
	if strings.HasPrefix(p, "-") || strings.HasPrefix(p, "]") {
		return 0
	}
	if strings.HasPrefix(p, `\`) {
		n, p = 1, p[1:]
	}
	r, size := utf8.DecodeRuneInString(p)
	if r == utf8.RuneError && size <= 1 {
		return 0
	}
	return n + size
}

// work is storage for match.
type work struct{ at, next []bool }

// match reports whether the tokens match name. After each token it has the set of all positions in
// name up to which the tokens so far can match, so that the time is at most the product of the two
// lengths.
func (w *work) match(tokens []token, name string) bool {
	n := len(name) + 1
	w.at, w.next = slices.Grow(w.at[:0], n)[:n], slices.Grow(w.next[:0], n)[:n]
	clear(w.at)
	w.at[0] = true
	for _, t := range tokens {
		clear(w.next)
		if !w.step(t, name) {
			return false
		}
		w.at, w.next = w.next, w.at
	}
	return w.at[len(name)]
}

// step sets next to the positions in name that a token can reach from the positions in at. It
// reports whether there are any.
func (w *work) step(t token, name string) (any bool) {
	for i, here := range w.at {
		if !here {
			continue
		}
		switch t.kind {
		case literal:
			if strings.HasPrefix(name[i:], t.text) {
				w.next[i+len(t.text)], any = true, true
			}
		case one, class:
			if i < len(name) {
				_, size := utf8.DecodeRuneInString(name[i:])
				ok := name[i] != '/'
				if t.kind == class {
					ok, _ = filepath.Match(t.text, name[i:i+size])
				}
				if ok {
					w.next[i+size], any = true, true
				}
			}
		case star:
			for any = true; !w.next[i]; i++ {
				w.next[i] = true
				if i == len(name) || name[i] == '/' {
					break
				}
			}
		case dirs:
			w.next[i] = true
			// the first position reaches all slashes that later positions reach
			for k := i; k < len(name) && !any; k++ {
				if name[k] == '/' {
					w.next[k+1] = true
				}
			}
			any = true
		case all:
			for k := i; k < len(w.next); k++ {
				w.next[k] = true
			}
			return true
		}
	}
	return any
}
