// Package examples checks the claims in the README of each example, and compares the output of the
// experiments of examples/layers with docs/LAYERS.md.
//
// It imports lab. It runs the program and the scripts of the examples.
//
// To run it: go test ./test/examples, as root, after make rootfs. go test -short skips the example
// that writes a gigabyte.
package examples
