package analyze

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// ConfigFile is the name of the file with the gate's rules.
const ConfigFile = ".layerbuild.yaml"

// Config holds the rules of a ConfigFile.
type Config struct {
	FailOver *Threshold // fail-over
	FailOn   []string   // fail-on
	Accept   []string   // accept: paths that the limits ignore
	Base     string     // base
}

// ParseConfig reads a ConfigFile, which is one YAML document. docs/ANALYZE.md has the keys. An
// unknown key and a key that is there twice are errors. Each error begins with name and a line.
func ParseConfig(name string, data []byte) (Config, error) {
	c, line, err := parseConfig(data)
	if err != nil {
		return Config{}, fmt.Errorf("%s:%d: %w", name, line, err)
	}
	return c, nil
}

// syntaxError matches the errors of the YAML library that have a line.
var syntaxError = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^yaml: line (\d+): (?s:(.*))$`)
})

func parseConfig(data []byte) (c Config, line int, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); err == io.EOF {
		return Config{}, 1, nil
	} else if err != nil {
		line, err = errorLine(err)
		return Config{}, line, err
	}
	if err := dec.Decode(&second); err != io.EOF {
		return Config{}, max(second.Line, 1), errors.New("there is more than one YAML document")
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return Config{}, 1, nil // only comments
	}
	if root.Kind != yaml.MappingNode {
		err := errors.New("keys with values are expected, such as base: debian:13")
		return Config{}, max(root.Line, 1), err
	}
	seen := map[string]int{}
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if before := seen[key.Value]; before > 0 {
			err := fmt.Errorf("%s is already set in line %d", key.Value, before)
			return Config{}, key.Line, err
		}
		seen[key.Value] = key.Line
		if line, err := c.key(key, value); err != nil {
			return Config{}, line, err
		}
	}
	return c, 0, nil
}

// errorLine returns the line and the text of an error of the YAML library.
func errorLine(err error) (int, error) {
	text, line := err.Error(), 1
	if m := syntaxError().FindStringSubmatch(text); m != nil {
		fmt.Sscan(m[1], &line)
		text = m[2]
	}
	text = strings.TrimPrefix(text, "yaml: ")
	if strings.Contains(text, "alphabetic or numeric character") {
		text += " (a value that begins with * or & must be quoted)"
	}
	return line, errors.New(text)
}

var configKeys = []string{"accept", "base", "fail-on", "fail-over"}

// key reads the value of one key. It returns the line of an error.
func (c *Config) key(key, value *yaml.Node) (line int, err error) {
	if key.Kind != yaml.ScalarNode || !slices.Contains(configKeys, key.Value) {
		return key.Line, fmt.Errorf("unknown key %q (known: %s)", key.Value,
			strings.Join(configKeys, ", "))
	}
	if value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	items := []*yaml.Node{value}
	switch {
	case value.Kind == yaml.SequenceNode && (key.Value == "base" || key.Value == "fail-over"):
		return key.Line, fmt.Errorf("%s takes one value, not a list", key.Value)
	case value.Kind == yaml.SequenceNode:
		items = value.Content
	case value.Kind == yaml.ScalarNode && value.Tag == "!!null" && key.Value == "accept":
		return 0, nil
	case value.Kind == yaml.ScalarNode && value.Tag == "!!null" && key.Value == "fail-on":
		// An unfinished rule must not look like a gate.
		return key.Line, errors.New("fail-on has no items; for none, write fail-on: []")
	}
	for _, item := range items {
		if item.Kind == yaml.AliasNode {
			item = item.Alias
		}
		switch {
		case item.Kind != yaml.ScalarNode:
			return item.Line, fmt.Errorf("%s: a string is expected", key.Value)
		case item.Value == "" || item.Tag == "!!null":
			return item.Line, fmt.Errorf("%s has no value", key.Value)
		}
		if err := c.set(key.Value, item.Value); err != nil {
			return item.Line, err
		}
	}
	return 0, nil
}

// set sets the value of a key, or adds a further value.
func (c *Config) set(key, value string) (err error) {
	switch key {
	case "accept":
		c.Accept = append(c.Accept, value)
		_, err = newAcceptor([]string{value})
	case "base":
		c.Base = value
	case "fail-on":
		c.FailOn = append(c.FailOn, value)
		err = CheckFailOn(value)
	case "fail-over":
		c.FailOver, err = ParseThreshold(value)
	}
	return err
}
