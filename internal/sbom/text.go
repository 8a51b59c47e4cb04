package sbom

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// oneLine joins the words of a text with single spaces.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// maxString and maxList limit what is kept of a package.
const (
	maxString = 1 << 10
	maxList   = 100
)

// shortened returns the beginning of a text that is too long, as a text of its own: a part of a
// large one would keep it in memory. It cuts no character.
func shortened(s string) string {
	if len(s) <= maxString {
		return s
	}
	end := maxString
	for end > maxString-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return strings.Clone(s[:end])
}

// shortList shortens a list and its texts.
func shortList(list []string) []string {
	list = slices.Clone(list[:min(len(list), maxList)])
	for i, s := range list {
		list[i] = shortened(s)
	}
	return list
}

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
