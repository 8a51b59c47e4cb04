// Package pattern matches names against the patterns of ignore files, of --exclude and of
// --parents.
//
// A pattern has the meaning that the documentation of ignore files defines, whatever characters it
// contains. It follows path/filepath.Match: *, ?, [class] and \c are special, and all other
// characters match themselves. In addition
//
//   - "**" and "**/" match nothing, or anything that ends with a slash;
//   - "**" at the end of a pattern matches anything, also nothing;
//   - "**" in a pattern such as "**.go", without other special characters, matches anything.
//
// So does github.com/moby/patternmatcher, which BuildKit uses.
//
// The matchers of other builders turn patterns into regular expressions, in which some characters
// have another meaning (github.com/moby/patternmatcher: ^, classes, a backslash before a letter,
// invalid UTF-8).
//
// A pattern that matches a directory matches everything in it. Of the patterns of a list that match
// a name, or a directory that contains it, the last one decides. A pattern that begins with "!"
// makes an exception. A pattern only has an effect if it changes the result of earlier patterns: an
// exception for a directory that no earlier pattern selects is not an exception for the names in
// it.
//
// It imports no other package of the module. It does no I/O.
//
// To test it, run go test ./internal/pattern as any user. FuzzMatch compares single patterns with
// path/filepath, FuzzList lists with BuildKit's matcher.
package pattern
