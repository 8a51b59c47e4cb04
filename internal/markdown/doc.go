// Package markdown escapes text for Markdown.
//
// It imports no other package of the module. It has no state and does no I/O.
//
// To test it, run go test ./internal/markdown as any user. FuzzEscape reads hostile text.
package markdown
