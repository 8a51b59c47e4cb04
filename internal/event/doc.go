// Package event defines the events that a build reports while it runs, as a closed set of plain
// values.
//
// It imports no other package of the module. It does no I/O.
//
// It has no behaviour to test. go test ./internal/ui tests how each event is shown.
package event
