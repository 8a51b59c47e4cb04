package bake

import (
	"errors"
	"fmt"
	"strings"
)

// interpolator replaces the variables in the values of compose files: $NAME, ${NAME}, and with a
// value for a missing variable.
type interpolator struct {
	lookup func(string) (string, bool)
}

// expand replaces the variables in s. $$ stands for one dollar sign.
func (in *interpolator) expand(s string) (string, error) {
	text, _, err := in.until(s, false, 0)
	return text, err
}

var errUnclosed = errors.New("${ without }")

// until expands s, or, if braced is set, s before the first closing brace. It returns the rest.
func (in *interpolator) until(s string, braced bool, depth int) (text, rest string, err error) {
	if depth > maxNodeDepth {
		return "", "", errors.New("variables are nested too deeply")
	}
	var b strings.Builder
	for {
		i := strings.IndexAny(s, "$}")
		if i < 0 {
			if braced {
				return "", "", errUnclosed
			}
			b.WriteString(s)
			return b.String(), "", nil
		}
		b.WriteString(s[:i])
		c := s[i]
		s = s[i+1:]
		switch {
		case c == '}' && braced:
			return b.String(), s, nil
		case c == '}':
			b.WriteByte('}')
		case strings.HasPrefix(s, "$"):
			b.WriteByte('$')
			s = s[1:]
		default:
			var value string
			if value, s, err = in.variable(s, depth); err != nil {
				return "", "", err
			}
			b.WriteString(value)
		}
		if b.Len() > maxValue {
			return "", "", fmt.Errorf("the value has more than %d KiB", maxValue>>10)
		}
	}
}

// variable returns the value of the variable at the beginning of s, which follows a dollar sign,
// and the rest of s.
func (in *interpolator) variable(s string, depth int) (value, rest string, err error) {
	braced := strings.HasPrefix(s, "{")
	after := strings.TrimPrefix(s, "{")
	n := nameLength(after)
	name, rest := after[:n], after[n:]
	if n == 0 {
		if braced {
			return "", "", fmt.Errorf("invalid variable: ${%.20s; write $$ for a dollar sign",
				after)
		}
		return "$", s, nil
	}
	value, set := in.lookup(name)
	if !braced {
		return value, rest, nil
	}
	if rest, ok := strings.CutPrefix(rest, "}"); ok {
		return value, rest, nil
	}
	filled := set
	if after, ok := strings.CutPrefix(rest, ":"); ok {
		filled, rest = value != "", after
	}
	if rest == "" {
		return "", "", errUnclosed
	}
	operator := rest[0]
	word, rest, err := in.until(rest[1:], true, depth+1)
	if err != nil {
		return "", "", err
	}
	switch operator {
	case '-':
		if !filled {
			value = word
		}
	case '+':
		if value = word; !filled {
			value = ""
		}
	case '?':
		if !filled {
			return "", "", fmt.Errorf("the variable %s is not set: %s", name, word)
		}
	default:
		return "", "", fmt.Errorf("invalid variable: ${%s%c…}", name, operator)
	}
	return value, rest, nil
}

// nameLength returns the length of the name of a variable at the beginning of s.
func nameLength(s string) int {
	for i, r := range s {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return i
		}
	}
	return len(s)
}

// parseDotEnv returns the variables of a file .env. lookup returns variables that its values refer
// to.
func parseDotEnv(data []byte, lookup func(string) (string, bool)) (map[string]string, error) {
	vars := map[string]string{}
	in := &interpolator{func(name string) (string, bool) {
		if v, ok := lookup(name); ok {
			return v, true
		}
		v, ok := vars[name]
		return v, ok
	}}
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	for line := 1; text != ""; line++ {
		var first string
		first, text, _ = strings.Cut(text, "\n")
		first = strings.TrimSpace(first)
		if first == "" || first[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(first, "export "), "=")
		name = strings.TrimSpace(name)
		if n := nameLength(strings.ReplaceAll(name, ".", "_")); n == 0 || n != len(name) {
			return nil, fmt.Errorf("line %d: NAME=VALUE is expected", line)
		}
		if !ok {
			if v, set := lookup(name); set {
				vars[name] = v
			}
			continue
		}
		value = strings.TrimSpace(value)
		for quoted(value) && !closed(value) && text != "" { // the value has several lines
			var more string
			more, text, _ = strings.Cut(text, "\n")
			value += "\n" + more
			line++
		}
		v, err := unquote(value, in)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		vars[name] = v
	}
	return vars, nil
}

// quoted reports whether a value of a file .env begins with a quote.
func quoted(s string) bool { return s != "" && (s[0] == '"' || s[0] == '\'') }

// closed reports whether a quoted value ends with its quote.
func closed(s string) bool { return endOfQuote(s) > 0 }

// endOfQuote returns the index of the quote that ends a quoted value; -1: there is none.
func endOfQuote(s string) int {
	for i := 1; i < len(s); i++ {
		if s[i] == '\\' && s[0] == '"' {
			i++
		} else if s[i] == s[0] {
			return i
		}
	}
	return -1
}

// unquote returns a value of a file .env: literally in single quotes, and otherwise with variables
// replaced. A comment follows a space and #.
func unquote(s string, in *interpolator) (string, error) {
	if !quoted(s) {
		if i := strings.Index(s, " #"); i >= 0 {
			s = strings.TrimSpace(s[:i])
		}
		return in.expand(s)
	}
	end := endOfQuote(s)
	if end < 0 {
		return "", errors.New("a quote is not closed")
	}
	if s[0] == '\'' {
		return s[1:end], nil
	}
	escapes := strings.NewReplacer(`\n`, "\n", `\r`, "\r", `\t`, "\t", `\"`, `"`, `\\`, `\`,
		`\$`, "$$")
	return in.expand(escapes.Replace(s[1:end]))
}
