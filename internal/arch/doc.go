// Package arch tests the source of the module: which room may import which, and which third-party
// module; which may make system calls; that names, packages and the list of rooms in
// docs/ARCHITECTURE.md are documented; that the tests and files to which Markdown files refer
// exist; and the rules for file names and for the words of comments, messages, documents and
// scripts.
//
// The tables are in rooms_test.go. A change that a test forbids is either made elsewhere, or the
// table is changed with it, with the reason in the commit.
//
// It imports no other package of the module. It reads the source and calls go list.
//
// To test it, run go test ./internal/arch as any user, or make lint. Each check has a test that
// plants a fault.
package arch
