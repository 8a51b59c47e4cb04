// Package state tests the state directory: damage to each kind of object, full disks, concurrent
// and killed builds and prunes, interrupted waits for locks, and growth.
//
// It imports imagetest, rounds and lab. It runs the program, damages its files and mounts small
// file systems.
//
// To run it: go test ./test/state, as root. make faults runs more rounds and more kinds of damage.
package state
