// Command run runs compiled test binaries as one user and reports which tests passed, failed and
// were skipped.
//
//	run [-as USER] [-skips FILE [-strict]] [-p N] [-timeout D] [-env NAME=VALUE]... BINARIES TREE
//
// BINARIES is a directory of test binaries made by `go test -c`. Each is named after its package's
// directory, with "%" instead of "/", and runs in that directory below TREE. The user needs neither
// a Go toolchain nor write access.
//
// go test cannot do this: it runs tests only as the user who compiles them, and it does not name a
// skipped test.
//
// It imports run/report. It starts the test binaries, as another user if it is root.
//
// It is part of make test. go test ./test/run/report tests how it reads results.
package main
