// Package event defines the events that a build reports while it runs, as a closed set of plain
// values.
//
// It imports no other package of the module. It does no I/O.
//
// It has no behaviour to test. go test ./internal/ui tests what is shown of each event.
package event
