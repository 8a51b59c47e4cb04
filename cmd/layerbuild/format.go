package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/layerbuild/layerbuild/internal/gotemplate"
	"github.com/layerbuild/layerbuild/internal/suggest"
	"github.com/layerbuild/layerbuild/internal/units"
)

// sizeText returns a number of bytes for people.
func sizeText(n int64) string { return units.Size(n) }

// parseFormat parses the value of a --format that may be one of some words or a template. It
// returns nil for a word, and reports whether the template is that of a table.
func parseFormat(s string, words ...string) (t *gotemplate.Template, table bool, err error) {
	if slices.Contains(words, s) {
		return nil, false, nil
	}
	text := s
	if slices.Contains(words, "table") {
		text, table = strings.CutPrefix(text, "table ")
	}
	if !strings.Contains(text, "{{") {
		if near := suggest.Near(s, words); near != "" {
			return nil, false, badValue("format", s, fmt.Errorf("did you mean %s?", near))
		}
		return nil, false, badValue("format", s, fmt.Errorf(
			"%s, or a template such as '{{.ID}}', is expected", joinWords(words, "or")))
	}
	// As in docker, the shell need not know how to write a tab.
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	if t, err = gotemplate.Parse(text); err != nil {
		return nil, false, badValue("format", s, err)
	}
	return t, table, nil
}

// printTemplate executes a template for each value, in a line of its own. For a table it first
// executes it with the headings of the fields.
func printTemplate[T any](w io.Writer, t *gotemplate.Template, table bool, list []T,
	headings map[string]string) error {
	var values []any
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	to := w
	if table {
		to = tw
		values = append(values, headings)
	}
	for _, v := range list {
		values = append(values, v)
	}
	for _, v := range values {
		var line strings.Builder
		if err := t.Execute(&line, v); err != nil {
			return fmt.Errorf("--format: %w", err)
		}
		if _, err := fmt.Fprintln(to, line.String()); err != nil {
			return err
		}
	}
	if !table {
		return nil
	}
	return errors.Join(tw.Flush())
}
