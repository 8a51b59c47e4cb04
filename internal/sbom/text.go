package sbom

import (
	"slices"
	"strings"
)

// oneLine joins the words of a text with single spaces.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// unique returns the texts that are not empty, sorted, each once.
func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if s = oneLine(strings.ToValidUTF8(s, "�")); s != "" {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
