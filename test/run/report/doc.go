// Package report reads what test binaries print with -test.v=test2json and sums it up.
//
// It imports no other package of the module. It does no I/O but to write to the given writer.
//
// To test it, run go test ./test/run/report as any user.
package report
