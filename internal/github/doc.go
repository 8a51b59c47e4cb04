// Package github writes workflow commands for GitHub Actions, and keeps other text from being read
// as such.
//
// A runner reads the output of a job's steps line by line, from both standard streams. A line that
// begins with "::NAME" or has "##[NAME" anywhere is a command: it can set outputs, mask text in the
// log or stop commands. Output of a container's build is not trusted, so the program passes it
// through a Writer, which puts a backslash into such a line. The command stop-commands is not used:
// its effect is one switch for both streams, which the runner reads independently, so that output
// on one could be read after the other has resumed commands; and groups do not work while it is in
// effect.
//
// It imports no other package of the module. It writes to the given writers and does no other I/O.
//
// To test it, run go test ./internal/github as any user. The test has a parser of commands as the
// runner has it, and FuzzWriter gives it hostile output.
package github
