// Package caches tests caches that several machines share (--cache) with real servers.
//
// It imports counting and lab. It starts servers on loopback, and runs the program.
//
// To run it: go test ./test/caches, as root.
package caches
