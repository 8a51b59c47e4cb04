package analyze

import (
	"fmt"
	"strings"
)

// ConfigFile is the name of the file with the gate's rules.
const ConfigFile = ".layerbuild.yaml"

// Config is what a ConfigFile says.
type Config struct {
	FailOver *Threshold // fail-over
	FailOn   []string   // fail-on
	Accept   []string   // accept: paths that are in no gate
	Base     string     // base
}

// ParseConfig reads a ConfigFile. It is a small part of YAML, and everything else is an error with
// its line: comments, "key: value", "key: [a, b]", and "key:" with lines "- item" below it; values
// may be quoted. docs/ANALYZE.md has the keys.
func ParseConfig(name string, data []byte) (Config, error) {
	p := configParser{name: name, seen: map[string]int{}}
	for i, line := range strings.Split(strings.TrimPrefix(string(data), "\ufeff"), "\n") {
		p.line = i + 1
		if err := p.parse(strings.TrimSuffix(line, "\r")); err != nil {
			return Config{}, fmt.Errorf("%s:%d: %w", name, p.line, err)
		}
	}
	// An unfinished rule must not look like a gate.
	if line, ok := p.seen["fail-on"]; ok && len(p.c.FailOn) == 0 && !p.empty {
		return Config{}, fmt.Errorf("%s:%d: fail-on has no items; for none, say fail-on: []", name,
			line)
	}
	return p.c, nil
}

type configParser struct {
	name string
	line int
	c    Config
	seen map[string]int
	list string // the key whose items follow

	empty bool // fail-on is []
}

var configKeys = []string{"accept", "base", "fail-on", "fail-over"}

func (p *configParser) parse(line string) error {
	if strings.Contains(line, "\t") {
		return fmt.Errorf("a tab: YAML is indented with spaces")
	}
	text, err := stripComment(line)
	if err != nil {
		return err
	}
	trimmed := strings.TrimSpace(text)
	if trimmed == "" || trimmed == "---" && p.line == 1 {
		return nil
	}
	if item, ok := strings.CutPrefix(trimmed, "-"); ok && (item == "" || item[0] == ' ') {
		if p.list == "" {
			return fmt.Errorf("an item of no list: a line such as \"accept:\" comes before it")
		}
		return p.set(p.list, item, true)
	}
	p.list = ""
	if text[0] == ' ' {
		return fmt.Errorf("it is indented, and no key here has keys below it")
	}
	key, value, ok := strings.Cut(trimmed, ":")
	if !ok || value != "" && value[0] != ' ' {
		return fmt.Errorf("%q is not \"key: value\"", trimmed)
	}
	key = strings.TrimSpace(key)
	if before := p.seen[key]; before > 0 {
		return fmt.Errorf("%s is there already, in line %d", key, before)
	}
	p.seen[key] = p.line
	switch value = strings.TrimSpace(value); {
	case value == "":
		p.list = key
		if key != "accept" && key != "fail-on" {
			return p.set(key, "", false)
		}
		return nil
	case value[0] == '[':
		return p.flow(key, value)
	}
	return p.set(key, value, false)
}

// flow reads [a, b].
func (p *configParser) flow(key, value string) error {
	inner, ok := strings.CutSuffix(value[1:], "]")
	if !ok {
		return fmt.Errorf("the ] is missing")
	}
	if strings.TrimSpace(inner) == "" {
		p.empty = p.empty || key == "fail-on"
		return p.known(key)
	}
	for item := range strings.SplitSeq(inner, ",") {
		if err := p.set(key, item, true); err != nil {
			return err
		}
	}
	return nil
}

func (p *configParser) known(key string) error {
	for _, k := range configKeys {
		if k == key {
			return nil
		}
	}
	return fmt.Errorf("unknown key %q (known: %s)", key, strings.Join(configKeys, ", "))
}

// set gives a key a value, or a further one.
func (p *configParser) set(key, value string, item bool) error {
	value, err := unquote(strings.TrimSpace(value))
	if err != nil {
		return err
	}
	if err := p.known(key); err != nil {
		return err
	}
	if value == "" {
		return fmt.Errorf("%s has no value", key)
	}
	if item && (key == "base" || key == "fail-over") {
		return fmt.Errorf("%s takes one value and no list", key)
	}
	switch key {
	case "accept":
		p.c.Accept = append(p.c.Accept, value)
		_, err = newAcceptor([]string{value})
	case "base":
		p.c.Base = value
	case "fail-on":
		p.c.FailOn = append(p.c.FailOn, value)
		err = CheckFailOn(value)
	case "fail-over":
		p.c.FailOver, err = ParseThreshold(value)
	}
	return err
}

// stripComment takes away what stands behind a # at the line's begin or after a space.
func stripComment(line string) (string, error) {
	quote := byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			if i == 0 || strings.IndexByte(" [,", line[i-1]) >= 0 {
				quote = c
			}
		case c == '#' && (i == 0 || line[i-1] == ' '):
			return line[:i], nil
		}
	}
	if quote != 0 {
		return "", fmt.Errorf("the closing %c is missing", quote)
	}
	return line, nil
}

func unquote(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if c := s[0]; c == '"' || c == '\'' {
		inner, ok := strings.CutSuffix(s[1:], string(c))
		if !ok || strings.ContainsAny(inner, `\`+string(c)) {
			return "", fmt.Errorf("%s: quotes are taken without escapes only", s)
		}
		return inner, nil
	}
	if strings.IndexByte("&*!|>{}[]@`%", s[0]) >= 0 {
		return "", fmt.Errorf("%s: a value that begins so must be quoted", s)
	}
	return s, nil
}
