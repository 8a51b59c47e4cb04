// Package container runs commands on an image, in a file system that is removed afterwards: the
// verb run.
//
// It imports executor, event, image, state and snapshot. It makes no system calls itself. It makes
// a snapshot, which Close removes, and the executor starts the commands in it.
//
// It is tested by the program: go test ./test/runverb, as root.
package container
