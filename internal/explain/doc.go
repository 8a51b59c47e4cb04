// Package explain finds out why a step of a build runs, although an earlier build ran one like it.
//
// An account has the steps of the latest builds of a Dockerfile with all that their results
// depended on. The package compares a step that runs with the nearest of them. Values of variables
// are in an account as checksums only.
//
// It imports atomicfile, smallfile and sorting. It reads and writes the files of accounts, and does
// nothing else outside of the process.
//
// To test it, run go test ./internal/explain as any user. FuzzHistory reads damaged accounts.
package explain
