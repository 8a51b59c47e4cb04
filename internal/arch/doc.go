// Package arch tests the source of the module: which rooms and third-party modules each room may
// import; which rooms may make system calls; that exported names and packages are documented; that
// docs/ARCHITECTURE.md lists the rooms; that the tests and files to which Markdown files refer
// exist; and the rules for file names and for the words of comments, messages, documents and
// scripts.
//
// The tables are in rooms_test.go. If a test forbids a change, make the change in another room, or
// change the table and give the reason in the commit.
//
// It imports no other package of the module. It reads the source and calls go list.
//
// To test it, run go test ./internal/arch as any user, or make lint. Each check has a test that
// plants a fault.
package arch
