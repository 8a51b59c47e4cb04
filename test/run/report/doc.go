// Package report reads the output of test binaries with -test.v=test2json and summarizes it.
//
// It imports no other package of the module. It only writes to the given writer.
//
// To test it, run go test ./test/run/report as any user.
package report
