// Package sarif has the part of the Static Analysis Results Interchange Format, version 2.1.0
// (https://docs.oasis-open.org/sarif/sarif/v2.1.0/), that layerbuild writes: one run of one tool,
// with its rules and results.
//
// It imports no other package of the module. It has no state and does no I/O.
//
// To test it, run go test ./internal/sarif as any user. The test validates logs against the
// published schema, which is in testdata with its notice. FuzzLog makes logs of hostile text.
package sarif
