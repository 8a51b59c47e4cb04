package markdown

import "strings"

// Code formats s, one line without control characters, as code. It can be used in a table.
// Backslashes do not escape in code, so characters that would end it, or a cell, are replaced.
func Code(s string) string {
	s = strings.NewReplacer("`", "'", "|", "¦", "\n", " ", "\r", " ").Replace(s)
	if strings.TrimSpace(s) == "" {
		return "` `"
	}
	return "`" + s + "`"
}

// Escape escapes s, one line without control characters, so that Markdown shows it unchanged.
func Escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "`", "\\`", "*", `\*`, "_", `\_`, "<", "&lt;",
		"[", `\[`, "&", "&amp;", "#", `\#`, "@", "&#64;", "~", `\~`, "\n", " ",
		"\r", " ").Replace(s)
}
