package github

import (
	"strconv"
	"strings"
)

// Level is the kind of an annotation.
type Level string

// The levels of annotations.
const (
	Error   Level = "error"
	Warning Level = "warning"
)

// Annotation is a message about a file of the repository, or about none.
type Annotation struct {
	Level   Level
	File    string // relative to the root of the repository; "" for none
	Line    int    // from 1; 0: none
	EndLine int    // at most Line: one line
	Title   string // may be empty
	Message string
}

// String returns the command that makes the annotation, with a line end.
func (a Annotation) String() string {
	var properties []string
	add := func(name, value string) {
		if value != "" {
			properties = append(properties, name+"="+escapeProperty(value))
		}
	}
	if a.File != "" && a.File != "-" {
		add("file", a.File)
		if a.Line > 0 {
			add("line", strconv.Itoa(a.Line))
		}
		if a.EndLine > a.Line && a.Line > 0 {
			add("endLine", strconv.Itoa(a.EndLine))
		}
	}
	add("title", a.Title)
	command := string(a.Level)
	if len(properties) > 0 {
		command += " " + strings.Join(properties, ",")
	}
	return "::" + command + "::" + escapeData(a.Message) + "\n"
}

// Group returns the command that begins a group of lines, with a line end.
func Group(title string) string { return "::group::" + escapeData(title) + "\n" }

// EndGroup is the command that ends a group of lines.
const EndGroup = "::endgroup::\n"

var (
	dataEscapes     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	propertyEscapes = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A",
		",", "%2C")
)

func escapeData(s string) string     { return dataEscapes.Replace(s) }
func escapeProperty(s string) string { return propertyEscapes.Replace(s) }
