// Package lock coordinates processes that share a directory, with flock(2) on a file.
//
// A wait for a lock ends with its context: a build that is canceled does not wait for another
// process that is stopped, or whose disk is full.
//
// It imports no other package of the module. It makes the system call flock(2). It makes and opens
// lock files and directories, and does not write to them.
//
// To test it, run go test ./internal/lock as any user. Its users test it too: ./internal/store
// ./internal/state ./internal/stagedir ./internal/cachemount, as any user.
package lock
