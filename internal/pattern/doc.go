// Package pattern matches names against the patterns of ignore files, of --exclude and of
// --parents.
//
// A pattern has the meaning that the documentation of ignore files gives it, whatever characters
// are in it. It follows path/filepath.Match: *, ?, [class] and \c are special there, and all other
// characters match themselves. In addition
//
//   - "**/", at the beginning of a path component, matches zero or more whole directories;
//   - "**" elsewhere matches anything, including slashes and nothing.
//
// The matchers of other builders turn patterns into regular expressions, in which some characters
// have another meaning (github.com/moby/patternmatcher: ^, classes, a backslash before a letter,
// invalid UTF-8).
//
// A pattern that matches a directory matches everything in it. Of the patterns of a list that match
// a name, or a directory that contains it, the last one decides; one that begins with "!" makes an
// exception.
//
// It imports no other package of the module. It does no I/O.
//
// To test it, run go test ./internal/pattern as any user. FuzzMatch compares single patterns with
// path/filepath, FuzzList lists with their single patterns.
package pattern
