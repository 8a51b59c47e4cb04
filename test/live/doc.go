// Package live tests builds whose context changes while they run.
//
// It imports rounds and lab. It runs the program, and goroutines that change files.
//
// To run it: go test ./test/live, as root. make faults runs more rounds.
package live
