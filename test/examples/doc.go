// Package examples checks what the README of each example claims, and that the experiments of
// examples/layers print what docs/LAYERS.md shows.
//
// It imports lab. It runs the program and the scripts of the examples.
//
// To run it: go test ./test/examples, as root, after make rootfs. go test -short leaves out the
// example that writes a gigabyte.
package examples
