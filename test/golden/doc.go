// Package golden has a set of small images with known digests, which are the same on every machine,
// for every user and with every driver.
//
// It imports imagetest and lab. It makes system calls to set attributes, and runs the program, on
// each driver, with one and with two threads. testdata/digests.txt has the digests. A changed
// digest affects every user: using -update is a decision.
//
// To run it: go test ./test/golden, as root. test/rootless builds the same images as other users.
package golden
