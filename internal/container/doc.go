// Package container runs commands on an image, in a file system that is removed afterwards: the
// verb run.
//
// It imports executor, event, image, state and snapshot. It makes no system calls itself. It makes
// a snapshot, which Close removes, and the executor starts the commands in it.
//
// To test it, run go test ./internal/container as root, or as a user who may make user namespaces.
// test/runverb tests it with the program.
package container
